"""The notebooks' microphone, record.js, in a real browser whose microphone plays a recording.

Own target: `make page-test` (Debian's chromium and the extra `page`).
"""

import functools
import http.server
import os
import shutil
import threading

import numpy as np
import pytest
import soundfile

from experiments.colab import helpers
from mdmspeech.audio.wave import load_wave

pytestmark = pytest.mark.browser
playwright = pytest.importorskip(
    "playwright.sync_api", reason='needs Playwright: pip install -e ".[page]"'
)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs a browser: apt-get install chromium", allow_module_level=True)
SECONDS = 4


@pytest.fixture
def address(tmp_path):
    """An empty page at a place that browsers give a microphone to."""
    (tmp_path / "index.html").write_text("<!doctype html><title>a notebook</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


# a second after the recording has begun
CLICK = """const timer = setInterval(() => {
  const stop = document.querySelector("button");
  if (!stop || stop.disabled) return;
  clearInterval(timer);
  setTimeout(() => stop.click(), 1000);
}, 20);"""


def recorded(address, *flags, seconds=SECONDS, click=False):
    """What record.js answers in such a browser, and how many buttons are left on its page."""
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=list(flags))
        page = browser.new_page()
        page.goto(address)
        if click:
            page.evaluate(CLICK)
        answer = page.evaluate(helpers.recording_script(seconds, "speak"))
        left = page.locator("button").count()
        browser.close()
    return answer, left


def test_what_was_said_arrives(address, tmp_path):
    question = load_wave(str(helpers.QUESTION))
    wave = tmp_path / "microphone.wav"
    soundfile.write(wave, np.concatenate([question, np.zeros(16_000 * 9, np.float32)]), 16_000)
    answer, left = recorded(
        address,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={wave}%noloop",
    )
    audio, rate = helpers.read_recording(answer)
    assert rate == 16_000 and len(audio) / rate == pytest.approx(SECONDS, abs=1.0) and not left
    # the same sound somewhere in it: browsers begin late and level what they record
    spectrum = np.fft.rfft(audio, 2**18) * np.conj(np.fft.rfft(question, 2**18))
    match = np.abs(np.fft.irfft(spectrum)).max()
    assert match > 0.5 * np.linalg.norm(audio) * np.linalg.norm(question)


def test_a_click_ends_it(address):
    answer, left = recorded(
        address,
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        seconds=60,
        click=True,
    )
    audio, rate = helpers.read_recording(answer)
    assert 0.3 < len(audio) / rate < 30 and not left


def test_a_refused_microphone_is_said(address, capsys):
    answer, left = recorded(address)  # a headless browser without the flags gives none
    assert helpers.read_recording(answer) is None and not left
    assert "nothing was recorded: " in capsys.readouterr().out
