"""`mdmspeech chat`: text, timeline, wave and picture come out; bad recordings are one line and exit
code 2, odd ones are handled.
"""

import numpy as np
import pytest
import soundfile
from small_speech import question

from mdmspeech.cli import main
from mdmspeech.inference.speech_frontend import EncodedSpeech


def write(path, wave, rate=16_000, subtype=None):
    soundfile.write(path, wave, rate, subtype=subtype)
    return str(path)


def refused(capsys, *argv):
    """The one line on standard error."""
    assert main([*argv]) == 2
    out = capsys.readouterr()
    assert out.err.count("\n") == 1 and out.err.startswith(f"mdmspeech {argv[0]}: ")
    return out.err


def test_answers_a_recording(small_model, tmp_path, capsys):
    wave = write(tmp_path / "q.wav", question())
    assert (
        main(
            [
                "chat",
                wave,
                "-o",
                str(tmp_path / "a.wav"),
                "--picture",
                str(tmp_path / "a.png"),
                "--steps",
                "2",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    reply = small_model.chat(question(), steps=2)
    assert out.startswith(small_model.hear(wave))
    for told in ("heard: ", "first audio", "saved "):
        assert told in out
    audio, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 24_000 and len(audio) == len(reply.audio)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_quiet_prints_only_the_text(small_model, tmp_path, capsys):
    wave = write(tmp_path / "q.wav", question())
    assert main(["chat", wave, "-o", str(tmp_path / "a.wav"), "--quiet"]) == 0
    out = capsys.readouterr()
    assert out.out.strip() == small_model.hear(wave) and not out.err


def test_several_questions_are_answered_each_as_if_alone(
    small_model, tmp_path, capsys, monkeypatch
):
    waves = {"first": question(), "second": question(2.0, seed=1)}
    files = [write(tmp_path / f"{name}.flac", wave) for name, wave in waves.items()]
    folder = tmp_path / "new" / "answers"
    asked, stream = [], small_model.stream
    with monkeypatch.context() as patch:
        listen = lambda wave, **how: (asked.append(wave), stream(wave, **how))[1]
        patch.setattr(small_model, "stream", listen)
        assert main(["chat", *files, "-o", str(folder), "--steps", "2"]) == 0
    for heard, wave in zip(asked, waves.values(), strict=True):
        np.testing.assert_allclose(heard, wave, atol=1e-3)
    out = capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == [
        "first.answer.wav", "second.answer.wav"
    ]  # fmt: skip
    for file, (name, wave) in zip(files, waves.items(), strict=True):
        reply = small_model.chat(wave, steps=2)
        assert f"{file}:\n{reply.text}" in out and f"saved {folder / name}.answer.wav" in out
        said, _ = soundfile.read(folder / f"{name}.answer.wav", dtype="int16")
        assert len(said) == len(reply.audio)


def test_several_questions_that_have_no_place_for_their_answers(no_model, tmp_path, capsys):
    first, second = (write(tmp_path / f"{name}.wav", question()) for name in ("a", "b"))
    silent = write(tmp_path / "c.wav", np.zeros(16_000, np.float32))
    (tmp_path / "d").mkdir()
    same = write(tmp_path / "d" / "a.wav", question())
    folder = tmp_path / "answers"
    of = lambda *more: refused(capsys, "chat", first, *more)
    assert "name a folder with -o, not one.wav" in of(second, "-o", "one.wav")
    assert "name a folder with -o, not answer.wav" in of(second, "-o", "answer.wav")
    assert "name a folder with -o, not -" in of(second, "-o", "-")
    assert "not " + second in of(second, "-o", second)
    assert "ask one question at a time" in of(second, "--picture", str(tmp_path / "p.png"))
    assert "which holds one question" in of("-")
    assert "a.answer.wav; rename one" in of(same, "-o", str(folder))
    assert "only silence" in of(silent, "-o", str(folder))
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "wave", "rate", "subtype"),
    [
        ("8 kHz", question(1.0, 8000), 8000, None),
        ("stereo", np.stack([question(), question(seed=1)], axis=1), 16_000, None),
        ("float64", question().astype(np.float64), 16_000, "DOUBLE"),
        ("48 kHz, 8 bits", question(1.0, 48_000), 48_000, "PCM_U8"),
    ],
)
def test_what_can_be_handled_is(small_model, tmp_path, capsys, name, wave, rate, subtype):
    path = write(tmp_path / "q.wav", wave, rate, subtype)
    assert main(["chat", path, "-o", str(tmp_path / "a.wav"), "--quiet", "--steps", "1"]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("wave", "told"),
    [
        (np.zeros(16_000, np.float32), "only silence"),
        (question(0.05), "too short"),
        (np.concatenate([question(0.5), [np.nan], question(0.5)]), "NaN"),
        (question(600.0), "too long"),
    ],
    ids=["silence", "0.05 s", "NaN", "10 minutes"],
)
def test_recordings_that_cannot_be_heard(no_model, tmp_path, capsys, wave, told):
    path = write(tmp_path / "q.wav", wave, subtype="FLOAT" if np.isnan(wave).any() else None)
    assert told in refused(capsys, "chat", path, "-o", str(tmp_path / "a.wav"))


@pytest.mark.parametrize(
    ("content", "told"), [(b"This is a letter.", "not readable audio"), (b"", "empty file")]
)
def test_files_that_are_no_audio(no_model, tmp_path, capsys, content, told):
    path = tmp_path / "q.wav"
    path.write_bytes(content)
    assert told in refused(capsys, "chat", str(path), "-o", str(tmp_path / "a.wav"))


def test_a_file_that_is_not_there(no_model, tmp_path, capsys):
    assert "does not exist" in refused(
        capsys, "chat", str(tmp_path / "no.wav"), "-o", str(tmp_path / "a.wav")
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["-o", "answer.mp3"], ".wav or .flac"),
        (["-o", "no/such/folder/a.wav"], "does not exist"),
        (["--picture", "no/folder/a.png"], "does not exist"),
    ],
)
def test_outputs_are_checked_before_anything_runs(
    no_model, tmp_path, capsys, monkeypatch, options, told
):
    monkeypatch.chdir(tmp_path)
    assert told in refused(capsys, "chat", write(tmp_path / "q.wav", question()), *options)


def test_steps_out_of_range(small_model, tmp_path, capsys):
    wave = write(tmp_path / "q.wav", question())
    assert "16 steps are the most" in refused(
        capsys, "chat", wave, "-o", str(tmp_path / "a.wav"), "--steps", "40", "--cold"
    )


def test_play_without_a_player(no_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "--play needs one of" in refused(
        capsys, "chat", "q.wav", "--play", "-o", str(tmp_path / "a.wav")
    )


def test_play_runs_the_player(small_model, tmp_path, capsys, monkeypatch):
    player = tmp_path / "aplay"
    player.write_text(f'#!/bin/sh\n/bin/cp "$2" {tmp_path}/played.wav\n')
    player.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    wave = write(tmp_path / "q.wav", question())
    assert main(["chat", wave, "-o", str(tmp_path / "a.wav"), "--play", "--quiet", "--cold"]) == 0
    assert (tmp_path / "played.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()


def test_a_recording_that_was_cut_off_is_answered_with_one_line_of_warning(
    small_model, tmp_path, capsys
):
    path = tmp_path / "q.wav"
    write(path, question(2.0))
    path.write_bytes(path.read_bytes()[:40_000])
    assert (
        main(
            ["chat", str(path), "-o", str(tmp_path / "a.wav"), "--quiet", "--steps", "1", "--cold"]
        )
        == 0
    )
    out = capsys.readouterr()
    assert out.out.strip() and out.err.count("\n") == 1
    assert out.err.startswith(f"mdmspeech chat: {path} was cut off: 0.75 s of 2.00 s are missing")


def test_no_speech_is_one_line_and_exit_code_2(small_model, tmp_path, capsys, monkeypatch):
    silent = lambda source, draft=None: EncodedSpeech(None, "", 0.0, 0.0)
    monkeypatch.setattr(small_model.frontend, "encode", silent)
    wave = write(tmp_path / "noise.wav", question())
    assert "no speech heard" in refused(
        capsys, "chat", wave, "-o", str(tmp_path / "a.wav"), "--cold", "--quiet"
    )
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x" * 300, "File name too long"),
        ("", "path is empty"),
        ("https://example.com/q.wav", "download"),
        ("q.m4a", "not readable audio: an MP4"),
    ],
)
def test_paths_and_files_that_cannot_be_opened(no_model, tmp_path, capsys, monkeypatch, name, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    assert told in refused(capsys, "chat", name, "-o", "a.wav")
