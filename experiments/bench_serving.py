"""What the server adds and bears: first sound over the socket beside the same model without one, as
many conversations as it was started for and twice as many, and one after another for long.

Command: make bench-serving (some fifteen minutes). Not an experiment with a config, and no test.
  --parts, --sequential N, --questions N, --sessions N, -o STEM: less, elsewhere
Needs:   spoken test questions: mdmspeech data --parts questions_test; without, the shipped question
Seen:    experiments/results/bench_serving.md; parts that are not asked for keep their figures

first_audio: a question is there at once; from `input_audio_buffer.commit` to the first samples, by
  turns over a WebSocket of this machine and in a session of this process; and how much longer each
  question took over the socket.
load: N clients ask in the time that speaking takes and play what comes; an underrun is a moment at
  which more than 100 ms of sound are missing (`inference.playback`). Then N more knock while those N talk.
sequential: a WebSocket, a typed question, its answer, closed; resident memory of the server.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mdmspeech.evaluation.provenance import line, provenance
from mdmspeech.evaluation.speed.live import say_in_time, spread
from mdmspeech.evaluation.tables import table
from mdmspeech.files import check_writable, write_text
from mdmspeech.inference.playback import Playback
from mdmspeech.serving.realtime.audio import decode, encode

ROOT = Path(__file__).parents[1]
RATE = 24_000  # of the protocol's pcm
PIECE = RATE // 25  # samples that a client sends at a time
TURNS = 3  # questions of a client under load
PARTS = ("first_audio", "load", "sequential")


@contextlib.contextmanager
def served(model: str, sessions: int) -> Iterator[tuple[str, int]]:
    """(address of /v1/realtime, process id) of a server of its own, with so many places."""
    command = [sys.executable, "-m", "mdmspeech", "serve", model, "--port", "0", "--quiet"]
    command += ["--max-sessions", str(sessions)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            ready = server.stdout.readline()
            found = re.search(r"http://(\S+)", ready)
            if not found:
                raise RuntimeError(f"the server did not start: {ready}")
            yield f"ws://{found[1]}/v1/realtime", server.pid
        finally:
            server.terminate()


class Client:
    """One conversation over the protocol; `turns`: whether the server finds their ends."""

    def __init__(self, address: str, turns: bool):
        from websockets.sync.client import connect

        self._socket = connect(address, max_size=None, compression=None)
        self.first = self.hear()
        detection = {"type": "server_vad"} if turns else None
        self.say("session.update", session={"audio": {"input": {"turn_detection": detection}}})

    def say(self, kind: str, **fields: Any) -> None:
        """Sends an event."""
        self._socket.send(json.dumps({"type": kind, **fields}))

    def hear(self, *kinds: str) -> dict[str, Any]:
        """The next event, of these kinds if any are named. RuntimeError: an error came instead."""
        while True:
            event = json.loads(self._socket.recv(timeout=120))
            if event["type"] == "error" and "error" not in kinds:
                raise RuntimeError(event["error"]["message"])
            if not kinds or event["type"] in kinds:
                return event

    def append(self, wave: np.ndarray) -> None:
        """Sound in [-1, 1] at `RATE`."""
        self.say("input_audio_buffer.append", audio=encode(wave))

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()


def first_audio(address: str, model: Any, waves: list[np.ndarray]) -> dict[str, Any]:
    """Milliseconds to the first samples, median and 95th percentile, both ways."""
    found: dict[str, list[float]] = {"socket": [], "session": []}
    ways = {"socket": _over_socket(address), "session": _in_process(model)}
    for wave in waves:
        for ask in ways.values():  # once before, so that none is the first with its length
            ask(wave)
        for way, ask in ways.items():
            found[way].append(ask(wave))
    found["added"] = list(np.subtract(found["socket"], found["session"]))
    return {"questions": len(waves), **{way: spread(waits) for way, waits in found.items()}}


def _over_socket(address: str):
    def ask(wave: np.ndarray) -> float:
        client = Client(address, turns=False)
        client.hear("session.updated")
        client.append(wave)
        began = time.monotonic()
        client.say("input_audio_buffer.commit")
        client.say("response.create")
        client.hear("response.output_audio.delta")
        waited = time.monotonic() - began
        client.hear("response.done")
        client.close()
        return waited

    return ask


def _in_process(model: Any):
    from mdmspeech.inference.session_events import ResponseAudio, ResponseEnded, SessionOpened

    def ask(wave: np.ndarray) -> float:
        with model.session(turn_detection=None) as session:
            while not isinstance(session.events.get(None), SessionOpened):
                pass
            session.push_audio(wave, RATE)
            began, waited = time.monotonic(), None
            session.commit()
            for event in session.events:
                if isinstance(event, ResponseAudio) and waited is None and len(event.audio):
                    waited = time.monotonic() - began
                if isinstance(event, ResponseEnded):
                    break
        return waited

    return ask


def load(address: str, sessions: int, waves: list[np.ndarray]) -> dict[str, Any]:
    """N clients at once; in the middle of it N more, each of which must be refused at once."""
    turns: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=_talk, args=(address, waves[n:] + waves[:n], turns))
        for n in range(sessions)
    ]
    for thread in threads:
        thread.start()
    time.sleep(3.0)  # all are inside
    refused = [_knock(address) for _ in range(sessions)]
    for thread in threads:
        thread.join()
    waits = [1000 * turn["waited"] for turn in turns]
    return {
        "sessions": sessions,
        "turns": len(turns),
        "asked": sessions * TURNS,
        "underruns": sum(turn["underruns"] for turn in turns),
        "first_audio_ms": {
            "median": round(float(np.median(waits)), 1),
            "most": round(max(waits), 1),
        },
        "more": {
            "asked": sessions,
            "refused": sum(code == 1013 for code, _ in refused),
            "slowest_ms": round(1000 * max(took for _, took in refused), 1),
        },
    }


def _talk(address: str, waves: list[np.ndarray], turns: list[dict[str, Any]]) -> None:
    """Asks in the time it takes, and plays; appends what it waited for and missed of each turn."""
    client = Client(address, turns=True)
    for number in range(TURNS):
        over = threading.Event()
        asked = (client.append, waves[number % len(waves)], over, RATE, PIECE)
        speaker = threading.Thread(target=say_in_time, args=asked)
        speaker.start()
        stopped = client.hear("input_audio_buffer.speech_stopped") and time.monotonic()
        arrivals = []
        while (event := client.hear())["type"] != "response.done":
            if event["type"] == "response.output_audio.delta":
                samples = len(decode(event["delta"], "delta")) // 2
                arrivals.append((time.monotonic(), samples / RATE))
        over.set()
        speaker.join()
        turns.append({"waited": arrivals[0][0] - stopped, "underruns": underruns(arrivals)})
    client.close()


def underruns(arrivals: list[tuple[float, float]]) -> int:
    """How often a player had none to play. arrivals: (when, seconds of sound)."""
    playback = Playback()
    for when, seconds in arrivals:
        playback.add(when, seconds)
    return playback.underruns


def _knock(address: str) -> tuple[int | None, float]:
    """(close code, seconds until it was closed) of one who comes when all places are taken."""
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    began = time.monotonic()
    with connect(address, compression=None) as socket:
        try:
            while True:
                if json.loads(socket.recv(timeout=60))["type"] == "session.created":
                    return None, time.monotonic() - began
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else None, time.monotonic() - began


def sequential(address: str, pid: int, count: int) -> dict[str, Any]:
    """So many conversations, one after another; MB of the server before, in the middle and after."""
    memory = []
    for number in range(count + 1):
        if number % max(count // 10, 1) == 0:
            memory.append(round(_resident(pid) / 1e6, 1))
            print(f"{number} of {count} conversations, {memory[-1]} MB", flush=True)
        if number == count:
            break
        client = Client(address, turns=False)
        content = [{"type": "input_text", "text": "Say hello."}]
        item = {"type": "message", "role": "user", "content": content}
        client.say("conversation.item.create", item=item)
        client.say("response.create", response={"max_output_tokens": 3})
        status = client.hear("response.done")["response"]["status"]
        if status not in ("completed", "incomplete"):
            raise RuntimeError(f"conversation {number} ended as {status}")
        client.close()
    half = memory[len(memory) // 2 :]
    return {"conversations": count, "memory_mb": memory, "growth_mb": round(half[-1] - half[0], 1)}


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _waves(count: int) -> list[np.ndarray]:
    """Questions at `RATE`: spoken test questions, or where there are none, the shipped one."""
    from mdmspeech.audio.wave import load_wave, resample
    from mdmspeech.errors import UserError
    from mdmspeech.evaluation.speed.live import questions
    from mdmspeech.speech_format import INPUT_RATE

    try:
        found = questions(None, count)
    except UserError:
        found = [load_wave(str(ROOT / "mdmspeech/assets/question.wav"), INPUT_RATE)]
    return [resample(wave, INPUT_RATE, RATE) for wave in found]


def page(result: dict[str, Any]) -> str:
    """Markdown."""
    told = ["# What the server adds and bears"]
    if found := result.get("first_audio"):
        over, inside, added = found["socket"], found["session"], found["added"]
        told.append(
            f"First sound of {found['questions']} questions that are there at once, ms, median (95th "
            f"percentile): over a WebSocket {over['median']} ({over['p95']}), in a session of the "
            f"asking process {inside['median']} ({inside['p95']}); a question takes {added['median']} "
            f"({added['p95']}) longer over the WebSocket."
        )
        told.append(line(found["made"]))
    if rows := result.get("load", {}).get("rows"):
        names = ["at once", "answered", "first sound, ms, median (most)", "underruns"]
        told.append(
            table([*names, "more that came", "refused (slowest, ms)"], [_cells(r) for r in rows])
        )
        told.append(line(rows[0]["made"]))
    if found := result.get("sequential"):
        told.append(
            f"{found['conversations']} conversations one after another: the server held "
            f"{', '.join(map(str, found['memory_mb']))} MB, every tenth of them; "
            f"{found['growth_mb']} MB more at the end than in the middle."
        )
        told.append(line(found["made"]))
    return "\n\n".join(told) + "\n"


def _cells(row: dict[str, Any]) -> list[Any]:
    first, more = row["first_audio_ms"], row["more"]
    return [
        row["sessions"],
        f"{row['turns']} of {row['asked']}",
        f"{first['median']} ({first['most']})",
        row["underruns"],
        more["asked"],
        f"{more['refused']} ({more['slowest_ms']})",
    ]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="compact", metavar="NAME|DIR")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--questions", type=int, default=30, metavar="N")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--sequential", type=int, default=1000, metavar="N")
    stem = ROOT / "experiments" / "results" / "bench_serving"
    parser.add_argument("-o", "--out", type=Path, default=stem, metavar="STEM")
    args = parser.parse_args()
    check_writable(str(args.out.with_suffix(".json")), "name another stem with -o")
    file = args.out.with_suffix(".json")
    result = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    made = lambda **sizes: {"made": provenance(sizes=sizes, seeds={"speech": 0})}
    waves = _waves(args.questions)
    if "first_audio" in args.parts:
        import mdmspeech

        model = mdmspeech.load(args.model)
        with served(args.model, 1) as (address, _):
            found = first_audio(address, model, waves)
        result["first_audio"] = found | made(questions=len(waves))
        print(found, flush=True)
    if "load" in args.parts:
        rows = []
        for sessions in args.sessions:
            with served(args.model, sessions) as (address, _):
                rows.append(load(address, sessions, waves) | made(sessions=sessions, turns=TURNS))
            print({key: value for key, value in rows[-1].items() if key != "made"}, flush=True)
        result["load"] = {"rows": rows}
    if "sequential" in args.parts:
        with served(args.model, 1) as (address, pid):
            found = sequential(address, pid, args.sequential)
        result["sequential"] = found | made(conversations=args.sequential)
    write_text(file, json.dumps(result, indent=1) + "\n")
    write_text(args.out.with_suffix(".md"), page(result))
    print(args.out.with_suffix(".md"))


if __name__ == "__main__":
    main()
