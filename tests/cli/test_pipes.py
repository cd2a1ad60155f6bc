"""Real processes with real pipes: what is printed may be lost, the speech is not; audio goes in and
out through standard input and output.
"""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from small_speech import question

from mdmspeech.cli import main, streams
from mdmspeech.errors import UserError
from mdmspeech.inference.speech import join

WORD = 6000  # samples of a word of fast_voice.py
SAY = f'"{sys.executable}" "{Path(__file__).parent / "fast_voice.py"}" say'
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")


def shell(command, cwd, **environment):
    """Runs a line of bash; SAY is the command, $? of the whole line is that of its first part."""
    line = "set -o pipefail\n" + command.replace("SAY", SAY)
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr, (
        done.stderr.decode()
    )
    return done


def frames(source):
    return len(soundfile.read(source)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code", "file"),
    [
        ("SAY 'one two' -o a.wav | head -0", 0, "a.wav"),
        ("SAY 'one two' -o a.flac 2>&1 | head -0", 0, "a.flac"),
        ("SAY 'one two' -o a.wav >&-", 0, "a.wav"),
        ("SAY 'one two' -o a.wav 2>&-", 0, "a.wav"),
        pytest.param("SAY 'one two' -o a.wav >/dev/full", 2, "a.wav", marks=FULL),
        ("SAY 'one two' -o - > a.wav", 0, "a.wav"),
        ("SAY 'one two' -o /dev/stdout | cat > a.wav", 0, "a.wav"),
        ("SAY one -o - >> a.wav; SAY 'one two' -o - > b.wav", 0, "b.wav"),
        ("SAY 'one two' -o /dev/null", 0, None),
        ("mkfifo p.wav; cat p.wav > a.wav & SAY 'one two' -o p.wav; wait", 0, "a.wav"),
        ("SAY 'one two three' -o - | head -c 20 > /dev/null", 141, None),
        ("echo 'one two' | SAY - -o a.wav", 0, "a.wav"),
        ("echo 'one two' | SAY /dev/stdin -o a.wav", 0, "a.wav"),
        (r"printf '\xef\xbb\xbfone two' > t; SAY - -o a.wav < t", 0, "a.wav"),
    ],
)
def test_pipes(tmp_path, command, code, file):
    done = shell(command, tmp_path)
    assert done.returncode == code, done.stderr.decode()
    if file:
        assert frames(tmp_path / file) == 2 * WORD
    assert not list(tmp_path.glob("*.part.*"))


def test_only_the_wav_is_on_standard_output(tmp_path):
    done = shell("SAY 'one two' -o -", tmp_path)
    assert frames(io.BytesIO(done.stdout)) == 2 * WORD and len(done.stdout) == 44 + 4 * WORD
    assert b"real-time factor" in done.stderr and not os.listdir(tmp_path)
    assert not shell("SAY one -o - --quiet", tmp_path).stderr


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("SAY - -o a.wav < /dev/null", "nothing to say"),
        ("SAY - -o a.wav <&-", "standard input is closed"),
        (r"printf 'caf\xe9' | SAY - -o a.wav", "no UTF-8 text (byte 4)"),
        (r"SAY $'caf\xe9' -o a.wav", "no valid UTF-8"),
        ("SAY one -o - >&-", "standard output is closed"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, command, told):
    done = shell(command, tmp_path)
    assert done.returncode == 2 and told in done.stderr.decode() and done.stderr.count(b"\n") == 1
    assert not os.listdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_what_was_said_before_an_interruption_is_kept(tmp_path, kill):
    (tmp_path / "a.wav").write_bytes(b"an older one")
    command = [
        sys.executable,
        str(Path(__file__).parent / "fast_voice.py"),
        "say",
        "one " * 500,
        "-o",
        "a.wav",
    ]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env={**os.environ, "HUM_SECONDS": "0.05"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        part, until = tmp_path / "a.part.wav", time.monotonic() + 110
        while not (part.exists() and part.stat().st_size > 44) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(kill)
        _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if kill == signal.SIGINT else -9)
    assert frames(part) >= WORD and (tmp_path / "a.wav").read_bytes() == b"an older one"
    if kill == signal.SIGINT:
        assert b"a.part.wav" in err and err.endswith(b"stopped\n") and b"Traceback" not in err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-o", "no/a.wav"], "the folder"),
        (["-o", "a.mp3"], "name it .wav or .flac"),
        (["-o", ""], "name it .wav or .flac"),
        (["-o", "."], "it is a folder"),
        (["--picture", "a.txt"], "name it .png, .svg or .pdf"),
        (["-o", "/dev/null", "--play"], "--play plays the file"),
        (["--pace", "nan"], "pace=nan"),
        (["--pace", "inf"], "pace=inf"),
        (["--pace", "9"], "pace=9.0"),
        (["--temperature", "nan"], "temperature=nan"),
        (["--temperature", "-1"], "temperature=-1.0"),
        (["--steps", "0"], "steps=0"),
        (["--seed", "-1"], "seed=-1"),
    ],
)
@pytest.mark.parametrize("verb", ["say", "chat"])
def test_options_are_checked_before_the_model_is_opened(
    no_model, verb, options, told, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([verb, "hello", *options]) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1 and not os.listdir(tmp_path)


@pytest.mark.parametrize("argument", ["-", "/dev/stdin", "pipe"])
def test_a_question_comes_through_a_pipe(small_model, tmp_path, capsys, monkeypatch, argument):
    sound = io.BytesIO()
    soundfile.write(sound, question(), 16_000, format="WAV")
    there, here = os.pipe()
    os.write(here, sound.getvalue())  # 32 kB: fits into a pipe
    os.close(here)
    with open(there, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        argument = f"/dev/fd/{there}" if argument == "pipe" else argument
        assert (
            main(
                [
                    "chat",
                    argument,
                    "-o",
                    str(tmp_path / "a.wav"),
                    "--quiet",
                    "--cold",
                    "--steps",
                    "1",
                ]
            )
            == 0
        )
    assert capsys.readouterr().out.strip() == small_model.hear(question()).strip()
    assert frames(tmp_path / "a.wav") == len(small_model.chat(question(), steps=1).audio)


def test_an_endless_input_is_refused(monkeypatch):
    monkeypatch.setattr(streams, "MOST", 1000)
    with open("/dev/zero", "rb") as zeros:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(zeros))
        with pytest.raises(UserError, match="standard input holds more than"):
            streams.input_bytes()


@pytest.mark.slow
def test_a_long_text_shows_its_progress_on_a_terminal_only(tmp_path):
    line = f"stty cols 80 rows 20; {SAY} 'one two three' -o a.wav"
    script = f"import pty; pty.spawn(['bash', '-c', {line!r}])"
    shown = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    ).stdout
    assert b"/3 [" in shown and b"word" in shown
    assert b"/3 [" not in shell("SAY 'one two three' -o a.wav", tmp_path).stderr


@pytest.mark.slow
def test_the_parts_are_written_as_they_are_made(small_model, tmp_path, capsys):
    text = "it is good and it is red. " * 12
    assert (
        main(
            [
                "say",
                text,
                "-o",
                str(tmp_path / "a.wav"),
                "--picture",
                str(tmp_path / "a.png"),
                "--steps",
                "1",
            ]
        )
        == 0
    )
    written, _ = soundfile.read(tmp_path / "a.wav")
    np.testing.assert_allclose(
        written, join(list(small_model.say_parts(text, steps=1))).audio, atol=1e-3
    )
    assert (tmp_path / "a.png").stat().st_size > 1000


@pytest.mark.slow
def test_libtpu_without_a_tpu_is_quiet_in_python(tmp_path):
    """With libtpu installed, JAX complains at the first computation unless it is told not to look
    for a TPU.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR")
    }
    code = (
        "import mdmspeech; "
        "print(mdmspeech.load('compact').voice().engine.params['norm']['scale'].device)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "cpu" in done.stdout.lower()
