"""The stages of a preparation one by one, without Beam: voices that are programs and endpoints,
alignment, speech tokens of any codec, encoder states, and corpora of every format.
"""

import http.server
import io
import json
import shlex
import sys
import threading
from pathlib import Path

import corpora
import numpy as np
import pytest
import soundfile
from plainly import prepare, target

from mdmspeech.cli.prepare import open_pronouncer
from mdmspeech.data.beam import sources, stages, voices
from mdmspeech.data.beam.records import Record
from mdmspeech.data.datasets import corpus
from mdmspeech.data.importers import Item
from mdmspeech.data.importers.records import Clip
from mdmspeech.data.recordings.align import Alignment
from mdmspeech.data.synthesis.voices.base import Job
from mdmspeech.errors import UserError

CLEAN = stages.Clean(open_pronouncer)
TEXTS = ("Good morning.", "It is three o'clock.", "fail here", "Thank you very much.")


class MuLaw:
    """A codec: a token is the loudness of 40 ms, companded to eight bits (G.711)."""

    sample_rate, token_samples, vocabulary = 24_000, 960, 256

    def encode(self, waves):
        rows = [np.pad(w, (0, -len(w) % 960)).reshape(-1, 960) for w in waves]
        loud = [np.sqrt(np.mean(row**2, axis=1)) for row in rows]
        return [np.rint(255 * np.log1p(255 * x) / np.log(256)).astype(np.int32) for x in loud]


def open_states():
    """Four states of 20 ms that tell the loudest sample of each."""
    return lambda waves: [
        np.abs(np.pad(w, (0, -len(w) % 320)).reshape(-1, 320)).max(1)[:, None] * np.ones(4)
        for w in waves
    ]


def open_even_aligner():
    def align(waves, symbols):
        found: list[Alignment | None] = []
        for wave, row in zip(waves, symbols, strict=True):
            units = -(-len(wave) // 400)
            share = np.diff(np.linspace(0, units, len(row) + 1).astype(int)).astype(np.int32)
            score = -0.5 if wave[0] >= 0 else -9.0
            enough = units >= len(row)
            found.append(Alignment(share, score, 0, units) if enough else None)
        return found

    return align


def every(root, kind):
    """id -> record of a dataset."""
    found = corpus.whole(root, kind, "mine")
    return {record["id"]: record for record in (found[i] for i in range(len(found)))}


def texts(folder: Path) -> sources.Source:
    folder.mkdir()
    (folder / "a.txt").write_text("\n".join(TEXTS[:2]) + "\n\n")
    lines = [{"text": TEXTS[2], "id": "bad"}, {"text": TEXTS[3], "speaker": "2", "split": "test"}]
    more = (
        "".join(json.dumps(line) + "\n" for line in lines) + '{"text": 3}\n{"nothing": ""}\n# no\n'
    )
    (folder / "b.jsonl").write_text(more)
    return sources.Source(str(folder), "texts")


# A program of anybody's: text file, voice -> sound. It cannot say "fail".
_PROGRAM = """
import sys, numpy, soundfile
text, out, voice = open(sys.argv[1]).read(), sys.argv[2], sys.argv[3] or "0"
if "fail" in text: sys.exit("cannot say that")
wave = numpy.sin(numpy.arange(400 * len(text)) * (1 + int(voice)) / 10) / 3
soundfile.write(out, wave, 8000)
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "speak.py").write_text(_PROGRAM)
    words = [sys.executable, str(tmp_path / "speak.py"), "{text_file}", "{out}", "{voice}"]
    return voices.COMMAND + shlex.join(words)


def spoken_by(spec: str) -> tuple:
    import functools

    factory = functools.partial(voices.open_voice, spec)
    return (
        stages.Clean(open_pronouncer, needs_sound=False),
        stages.Synthesise(factory, voices.known_as(spec), spec, voices.licence(spec)),
    )


def test_texts_are_spoken_by_a_program(program, tmp_path):
    chosen = spoken_by(program)
    where = target(tmp_path / "out", chosen)
    _, told = prepare(texts(tmp_path / "texts"), where, chosen)
    assert told["rejected"] == {
        "import: line not usable": 2,
        "import: text not usable": 1,
        "synthesise: text not spoken": 1,
    }
    made = every(where.root, "recordings")
    assert set(made) == {"a.txt-1", "a.txt-2", "b.jsonl-2"}
    assert made["b.jsonl-2"]["split"] == "test" and made["b.jsonl-2"]["voice"] == "2"
    for record in made.values():
        assert record["rate"] == 24_000 and record["engine"] == Path(sys.executable).name
        assert len(record["audio"]) == 3 * 400 * (len(record["text"]) + 1)
    again = target(tmp_path / "again", chosen)
    prepare(sources.Source(str(tmp_path / "texts"), "texts"), again, chosen, shuffled=5)
    names = [p.name for p in Path(where.folder("recordings")).iterdir()]
    for name in names:
        first, second = (Path(t.folder("recordings"), name).read_bytes() for t in (where, again))
        assert first == second, name


@pytest.fixture
def endpoint():
    """A voice behind HTTP; `answers` are the statuses that it gives first."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(said)
            status = server.answers.pop(0) if server.answers else 200
            status = 422 if "fail" in said["text"] else status
            out = io.BytesIO()
            wave = np.sin(np.arange(300 * len(said["text"])) / 9) / 3
            soundfile.write(out, wave, 16_000, format="FLAC")
            self.send_response(status)
            self.end_headers()
            self.wfile.write(out.getvalue() if said["text"] != "Thank you very much." else b"no")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.answers = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f"http://127.0.0.1:{server.server_address[1]}/speak?key=secret"
    server.shutdown()


def test_texts_are_spoken_by_an_endpoint_that_fails_at_times(endpoint, tmp_path):
    server, url = endpoint
    server.answers = [503, 500, 429]
    chosen = spoken_by(url)
    where = target(tmp_path / "out", chosen, 1)
    _, told = prepare(texts(tmp_path / "texts"), where, chosen)
    assert told["stages"]["synthesise"] == {"in": 4, "out": 2, "rejected": 2}
    assert len(server.asked) == 4 + 3 and {"text", "voice", "id", "seed"} == set(server.asked[0])
    made = every(where.root, "recordings")
    assert set(made) == {"a.txt-1", "a.txt-2"}
    assert "secret" not in json.dumps([made[i]["engine"] for i in made])
    assert len(made["a.txt-1"]["audio"]) == 450 * len(made["a.txt-1"]["text"])


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("http://127.0.0.1:9/none", "does not answer"),
        ("command:", "needs {out}"),
        ("command:cat {text_file}", "needs {out}"),
        ("command:tool -o {out}", "needs {out}"),
        ("command:no-such-program {text} {out}", "no-such-program is not installed"),
        ("command:cat '{text} {out}", "quote it"),
        ("nobody", "no speech engine"),
        ("nobody:x", "no speech engine"),
    ],
)
def test_a_voice_that_is_not_there_ends_it_and_is_no_fault_of_a_text(spec, told, monkeypatch):
    monkeypatch.setenv("MDMSPEECH_RETRY_SECONDS", "0")
    with pytest.raises(UserError, match=told):
        voices.open_voice(spec)(Job("i", "text", "", ""))


def test_the_shipped_voice_brings_durations(tmp_path):
    chosen = spoken_by("hibari")
    where = target(tmp_path / "out", chosen, 1)
    _, told = prepare(texts(tmp_path / "texts"), where, chosen)
    assert told["rejected"]["synthesise: text not spoken"] == 1  # it has no speaker "2"
    made = every(where.root, "recordings")
    assert set(made) == {"a.txt-1", "a.txt-2", "bad"}
    for record in made.values():
        assert len(record["frames"]) == len(record["symbols"])
        assert len(record["audio"]) == 600 * record["frames"].sum()
        assert len(record["f0"]) > 50 and record["licence"] == "hibari-tts, Apache-2.0"


def recordings(folder: Path, *more: dict) -> sources.Source:
    folder.mkdir()
    lines = []
    for n, seconds in enumerate((1.5, 2.5, 0.3, 2.0)):
        wave = 0.3 * np.sin(np.arange(int(24_000 * seconds)) / (5 + n)) * (-1 if n == 3 else 1)
        wave[0] = -0.2 if n == 3 else 0.2  # which the aligner goes by
        soundfile.write(folder / f"{n}.wav", wave, 24_000)
        lines.append({"audio": f"{n}.wav", "text": "a word or two"})
    lines += more
    (folder / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return sources.Source(str(folder))


def test_alignment_gives_durations_or_a_reason(tmp_path):
    chosen = (CLEAN, stages.Align(open_even_aligner))
    where = target(tmp_path / "out", chosen, 2)
    _, told = prepare(recordings(tmp_path / "c"), where, chosen)
    assert told["rejected"] == {"align: text not in the recording": 2}
    made = every(where.root, "recordings")
    assert set(made) == {"0.wav", "1.wav"}
    for record in made.values():
        assert len(record["frames"]) == len(record["symbols"])
        assert len(record["audio"]) == 600 * record["frames"].sum() and "f0" in record


def test_tokens_and_states_are_datasets_of_their_own(tmp_path):
    chosen = (CLEAN, stages.SpeechTokens(MuLaw, "mulaw"), stages.EncoderStates(open_states, "loud"))
    kinds = {"recordings": {}, "tokens": {"codec": "mulaw"}, "states": {"encoder": "loud"}}
    where = target(tmp_path / "out", chosen, 1, kinds=kinds, width=4)
    prepare(recordings(tmp_path / "c"), where, chosen)
    made, tokens, states = (every(where.root, kind) for kind in kinds)
    # in the order of the ids, not of their lengths
    assert [*made] == [*tokens] == [*states] == [f"{n}.wav" for n in range(4)]
    for name, record in made.items():
        wave = record["audio"].astype(np.float32) / 32768
        assert (tokens[name]["tokens"] == MuLaw().encode([wave])[0]).all()
        assert tokens[name]["text"] == record["text"] and len(tokens[name]["symbols"])
        assert states[name]["states"].shape == (-(-len(wave) * 2 // 3 // 320), 4)
    found = corpus.tokens(where.root, ("mine",), "train", codec="mulaw")
    assert found.about("made_from") == corpus.whole(where.root, "recordings", "mine").about(
        "made_from"
    )
    with pytest.raises(UserError, match="made by codec mulaw, not other"):
        corpus.tokens(where.root, ("mine",), "train", codec="other")


def test_the_tokens_of_a_conversation_are_those_of_its_answer(tmp_path):
    answer = 0.2 * np.sin(np.arange(48_000) / 7)
    more = (
        {"audio": "0.wav", "text": "how many?", "id": "q", "answer": "2.", "answer_audio": "a.wav"},
        {"audio": "0.wav", "text": "and who?", "id": "none", "answer": "Ann."},
        {"audio": "0.wav", "text": "why?", "id": "bad", "answer": "So.", "answer_audio": "b.wav"},
    )
    source = recordings(tmp_path / "c", *more)
    soundfile.write(tmp_path / "c" / "a.wav", answer, 24_000)
    soundfile.write(tmp_path / "c" / "b.wav", 0 * answer, 24_000)
    chosen = (CLEAN, stages.SpeechTokens(MuLaw, "mulaw"))
    where = target(tmp_path / "out", chosen, 2, kinds={"recordings": {}, "tokens": {}})
    _, told = prepare(source, where, chosen)
    assert told["rejected"] == {"tokens: answer: only silence": 1}
    made, tokens = every(where.root, "recordings"), every(where.root, "tokens")
    assert set(tokens) == {*(f"{n}.wav" for n in range(4)), "q"} and set(made) == {*tokens, "none"}
    assert tokens["q"]["text"] == "two." and tokens["q"]["question"] == "how many?"
    assert len(tokens["q"]["tokens"]) == 50 and (made["q"]["units"] == tokens["q"]["tokens"]).all()
    assert made["q"]["rate"] == 16_000 and "units" not in made["none"]


@pytest.mark.parametrize(
    "name",
    ["manifest", "vocalnet", "ljspeech", "librispeech", "libritts", "vctk", "common_voice",
     "parquet", "voice_assistant", "webdataset"],
)  # fmt: skip
def test_a_corpus_of_every_format(name, tmp_path):
    (tmp_path / "c").mkdir()
    getattr(corpora, name)(tmp_path / "c")
    source = sources.Source(str(tmp_path / "c"))
    items = list(source.open().items())
    chosen = (stages.Clean(None),)
    where = target(tmp_path / "out", chosen, 2)
    _, told = prepare(source, where, chosen)
    good = {item.id: item for item in items if isinstance(item, Item)}
    assert told["records"] == len(good) > 1 and told["stages"]["import"]["in"] == len(items)
    for name, record in every(where.root, "recordings").items():
        item = good[name]
        assert record["split"] == item.split and record["voice"] == item.speaker
        assert record["rate"] == (16_000 if item.answer else 24_000)
        wave, rate = item.load()
        assert len(record["audio"]) == pytest.approx(len(wave) / rate * record["rate"], abs=1)


@pytest.mark.parametrize(
    ("language", "text", "said", "symbols"),
    [
        ("en", "It costs $3.", "It costs three dollars.", True),
        ("", "No. 5", "Number five", True),
        ("en-GB", "at 7:30", "at seven thirty", True),
        ("de", "Es kostet 3 Euro.", "Es kostet 3 Euro.", False),
        ("fr", "Ça va ?", "Ça va ?", False),
        ("zh", "你好", "你好", False),
    ],
)
def test_only_english_is_read_as_english(language, text, said, symbols):
    item = Item("i", text, "w", Clip("", ""), language=language)
    clean = stages.Clean(open_pronouncer, needs_sound=False)
    (record,) = clean.run(clean.load(), [Record(item, {})])
    assert record.fields["text"] == said and ("symbols" in record.fields) == symbols


def test_a_text_without_a_recording_needs_a_voice():
    item = Item("i", "a text", "list, line 3", Clip("", ""))
    (told,) = CLEAN.run(None, [Record(item, {})])
    assert (told.stage, told.kind, told.where) == ("clean", "no audio", "list, line 3")


def test_one_speaker_of_many(tmp_path):
    corpora.vctk(tmp_path / "c")
    found = sources.Source(str(tmp_path / "c")).open().items()
    speakers = {item.speaker for item in found if isinstance(item, Item)}
    assert len(speakers) > 1
    chosen = (stages.Clean(None),)
    for speaker in speakers:
        where = target(tmp_path / speaker, chosen, 1)
        source = sources.Source(str(tmp_path / "c"), options={"speaker": speaker})
        _, told = prepare(source, where, chosen)
        assert {r["voice"] for r in every(where.root, "recordings").values()} == {speaker}
        assert told["records"] and told["rejected"].keys() <= {"import: no text"}
    source = sources.Source(str(tmp_path / "c"), options={"speaker": "nobody"})
    with pytest.raises(UserError, match=r"none of the \d records"):
        prepare(source, target(tmp_path / "none", chosen, 1), chosen)
