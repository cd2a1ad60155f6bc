"""The page's files: what is given, to whom, under which policy, and that one names the other."""

import re
import shutil
import subprocess
import urllib.request
from importlib import resources

import pytest

from mdmspeech.serving.page import PATHS

FILES = resources.files("mdmspeech.serving") / "static"


@pytest.fixture(scope="module")
def server(running):
    with running(api_keys=("a-long-secret",)) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_each_is_given_without_a_key(server, path):
    with urllib.request.urlopen(server.url + path) as answer:
        assert answer.read() == (FILES / PATHS[path]).read_bytes()
        policy = answer.headers["Content-Security-Policy"]
        host = server.url.removeprefix("http://")
        assert "default-src 'none'" in policy and f"ws://{host} " in policy
        assert "unsafe" not in policy and "*" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/static/main.js", "/../page.py", "/main.js/", "/%2e%2e/page.py"])
def test_nothing_else_is(server, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(server.url + path)
    assert error.value.code in (401, 404)


def test_all_files_are_known_and_name_each_other_only():
    """No file of another place, no script or style inside the page: its policy allows none."""
    names = {file.name for file in FILES.iterdir()}
    assert names == set(PATHS.values())
    for name in names:
        text = (FILES / name).read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg|127\.0\.0\.1)", text), name
        for named in re.findall(
            r"(?:from|src=|href=|addModule\() ?\"(?:\./)?([\w.]+\.\w+)\"", text
        ):
            assert named in names, (name, named)
    page = (FILES / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page)


def test_trap_19_the_sound_card_chooses_the_rate():
    """Firefox refuses a microphone in an AudioContext of another rate: none is asked for, and both
    worklets convert (below).
    """
    files = {file.name: file.read_text() for file in FILES.glob("*.js")}
    assert "new AudioContext(" in files["sound.js"] and "getUserMedia" in files["sound.js"]
    for name, text in files.items():
        assert not re.search(r"\bsampleRate\s*:", text), name
    for name in ("capture_worklet.js", "playback_worklet.js"):
        assert re.search(r"new Resampler\([^)]*\bsampleRate\b", files[name])


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node (apt-get install nodejs)")
def test_sound_at_another_rate_is_the_same_sound(tmp_path):
    """Tones below both Nyquist frequencies are kept, above are not heard; cut anywhere."""
    (tmp_path / "resampler.mjs").write_bytes((FILES / "resampler.js").read_bytes())
    (tmp_path / "try.mjs").write_text(
        """
import { Resampler } from "./resampler.mjs";
for (const [from, to] of [[48000, 24000], [44100, 24000], [24000, 48000], [24000, 44100]]) {
  for (const hertz of [300, 3000, 9000, 15000]) {
    if (hertz > from / 2) continue;
    const [resampler, out] = [new Resampler(from, to), []];
    for (let at = 0; at < from; at += 128) {
      const piece = new Float32Array(Math.min(128, from - at));
      piece.forEach((_, i) => (piece[i] = Math.sin((2 * Math.PI * hertz * (at + i)) / from)));
      out.push(...resampler.push(piece));
    }
    let worst = Math.abs(out.length - to) > 64 ? 9 : 0;
    for (let k = to >> 2; k < to >> 1; k++) {
      const kept = hertz < to / 2 ? Math.sin((2 * Math.PI * hertz * k) / to) : 0;
      worst = Math.max(worst, Math.abs(out[k] - kept));
    }
    if (worst > 0.01) console.log(from, to, hertz, worst);
  }
}
"""
    )
    made = subprocess.run(
        ["node", tmp_path / "try.mjs"], capture_output=True, text=True, timeout=120
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
