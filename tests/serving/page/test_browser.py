"""The page in a real browser, with a microphone that plays a recording, against the shipped model.

Own target: `make page-test` (Debian's chromium and the extra `page`).
"""

import os
import shutil
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mdmspeech.audio.wave import load_wave

pytestmark = pytest.mark.browser
playwright = pytest.importorskip(
    "playwright.sync_api", reason='needs Playwright: pip install -e ".[page]"'
)
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs a browser: apt-get install chromium", allow_module_level=True)
RATE, PATIENCE = 16_000, 120_000  # Hz, ms
LONG = "Count from one to thirty."  # ten seconds and more
SCREENSHOTS = os.environ.get("SCREENSHOTS")  # a folder


@pytest.fixture(scope="module")
def served(running):
    """Starts servers of the shipped model: `with served(...) as server`."""
    import mdmspeech

    model = mdmspeech.load("compact")
    start = running

    def with_model(**settings):
        server = start(max_sessions=4, context=1024, model_id="compact", **settings)
        server._assistant = model
        return server

    return with_model


@pytest.fixture(scope="module")
def server(served):
    with served() as server:
        server.engine.assistant.chat(question())  # compiled before anybody waits for it
        yield server


@pytest.fixture(scope="module")
def play():
    with playwright.sync_playwright() as play:
        yield play


def question():
    return load_wave(str(resources.files("mdmspeech") / "assets" / "question.wav"))


def silence(seconds):
    return np.zeros(int(seconds * RATE), np.float32)


@pytest.fixture
def browse(play, tmp_path):
    """Opens a page in a browser whose microphone plays these sounds."""
    opened = []

    def open_page(url, *sounds, rules="", script="", **context):
        wave = tmp_path / "microphone.wav"
        soundfile.write(wave, np.concatenate([*sounds, silence(60)]), RATE)
        flags = [
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={wave}%noloop",
            "--autoplay-policy=user-gesture-required",
            *([f"--host-resolver-rules={rules}"] if rules else []),
        ]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        opened.append(browser)
        page = browser.new_context(**context).new_page()
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on(
            "console",
            lambda message: message.type == "error" and page.problems.append(message.text),
        )
        page.set_default_timeout(PATIENCE)
        if script:
            page.add_init_script(script)
        page.goto(url)
        return page

    yield open_page
    for browser in opened:
        browser.close()


def state(page):
    return page.evaluate("({...window.mdmspeech})")


def shot(page, name):
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)


def wait_for(page, what):
    """Playwright's own waiting evaluates texts inside the page, which its policy forbids."""
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(what):
        assert time.monotonic() < end, (what, state(page), page.problems)
        page.wait_for_timeout(100)


def test_a_spoken_question_is_answered_and_heard(server, browse):
    """Both transcripts, all of the sound, latency, the picture of the tokens, the download."""
    page = browse(server.url, silence(1.5), question())
    page.get_by_role("button", name="Start the microphone").click()
    wait_for(page, "window.mdmspeech.answers === 1 && window.mdmspeech.speaking === null")
    assert "capital" in page.locator(".you span").inner_text()
    text = page.locator(".it .text").inner_text()
    assert len(text.split()) > 1
    now = state(page)
    assert now["connected"] == "socket" and now["gaps"] >= 0  # how many depends on the machine
    with page.expect_download() as got:
        page.get_by_text("Download the answer").click()
    saved = soundfile.info(got.value.path())
    assert saved.samplerate == 24_000 and saved.duration == pytest.approx(now["played"], abs=0.001)
    assert "first sound after" in page.locator(".latency").inner_text()
    assert page.locator(".latency li").count() >= 4
    page.get_by_text("Which token in which step").click()
    assert "tokens in" in page.locator("canvas").get_attribute("aria-label")
    shot(page, "page_light")
    assert page.problems == []


def test_who_speaks_stops_it(server, browse):
    """The microphone is opened while a long answer is heard, and a question comes in by it."""
    page = browse(server.url, silence(0.5), question())
    page.get_by_label("Or type a question").fill(LONG)
    page.get_by_role("button", name="Ask").click()
    wait_for(page, "window.mdmspeech.speaking !== null")
    page.get_by_role("button", name="Start the microphone").click()
    wait_for(page, "window.mdmspeech.first !== null")
    made, played = page.evaluate("window.mdmspeech.first")
    assert 0 < played < made - 0.2
    wait_for(page, "window.mdmspeech.answers >= 2 && window.mdmspeech.speaking === null")
    assert "capital" in page.locator(".you span").nth(1).inner_text()
    assert page.locator(".it .text").nth(1).inner_text() and page.problems == []


@pytest.mark.parametrize("heard", [False, True], ids=["made", "played"])
@pytest.mark.parametrize("way", ["socket", "http"])
def test_a_typed_question_stops_the_answer_and_is_answered(server, browse, way, heard):
    """As soon as the first is made, and when it is played; the second is heard to its end."""
    page = browse(server.url, script="" if way == "socket" else "delete window.WebSocket")
    wait_for(page, f"window.mdmspeech.connected === '{way}'")
    said = page.locator("#notice").inner_text()

    def ask(text):
        page.get_by_label("Or type a question").fill(text)
        page.get_by_role("button", name="Ask").click()

    ask(LONG)
    speaks, runs = "window.mdmspeech.speaking !== null", "!document.getElementById('stop').disabled"
    wait_for(page, speaks if heard else runs)
    ask("What is the capital of France?")
    wait_for(page, "window.mdmspeech.first !== null")
    made, played = page.evaluate("window.mdmspeech.first")
    assert played < made or not heard
    wait_for(page, "window.mdmspeech.answers === 2 && window.mdmspeech.speaking === null")
    assert page.locator(".it .ended").nth(1).inner_text() == ""
    assert "Paris" in page.locator(".it .text").nth(1).inner_text()
    assert page.locator(".turn").count() == 2 and page.locator("#notice").inner_text() == said
    assert page.problems == []


def test_by_the_keyboard_alone(server, browse):
    """Tab to the question, Enter asks; the stop button stops at once."""
    page = browse(server.url, color_scheme="dark", viewport={"width": 390, "height": 844})
    wait_for(page, "!document.getElementById('ask').disabled")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link that skips to the question
    page.keyboard.type("What is the capital of France?")
    page.keyboard.press("Enter")
    wait_for(page, "window.mdmspeech.speaking !== null")
    page.get_by_role("button", name="Stop the answer").focus()
    page.keyboard.press("Enter")
    wait_for(page, "window.mdmspeech.speaking === null && window.mdmspeech.answers === 1")
    played = state(page)["played"]
    page.wait_for_timeout(500)
    assert state(page)["played"] == played and page.problems == []
    shot(page, "page_dark_phone")
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0


@pytest.mark.parametrize("way", ["socket", "http"])
def test_push_to_talk(server, browse, way):
    """Only what is said while the space bar is down is a question; a tap is none."""
    script = "" if way == "socket" else "delete window.WebSocket"
    page = browse(server.url, silence(2), question(), script=script)
    wait_for(page, f"window.mdmspeech.connected === '{way}'")
    page.get_by_label("push to talk").check()
    page.get_by_role("button", name="Start the microphone").click()
    wait_for(page, "window.mdmspeech.listening")
    page.get_by_role("button", name="Hold to talk").focus()
    page.keyboard.press("Space")
    page.keyboard.down("Space")
    page.wait_for_timeout(6000)
    page.keyboard.up("Space")
    wait_for(page, "window.mdmspeech.answers === 1")
    wait_for(page, "!document.querySelector('.you span').textContent.startsWith('...')")
    assert "capital" in page.locator(".you span").inner_text()  # of one row
    page.get_by_label("Or type a question").fill("What is the capital of France?")
    page.get_by_role("button", name="Ask").click()
    wait_for(page, "window.mdmspeech.answers === 2")
    assert "Paris" in page.locator(".it .text").nth(1).inner_text() and page.problems == []


def test_without_a_websocket_it_goes_over_http(server, browse):
    page = browse(server.url, silence(2), question(), script="delete window.WebSocket")
    wait_for(page, "window.mdmspeech.connected === 'http'")
    assert "over HTTP" in page.locator("#notice").inner_text()
    page.get_by_label("Or type a question").fill("What is the capital of France?")
    page.get_by_role("button", name="Ask").click()
    wait_for(page, "window.mdmspeech.answers === 1 && window.mdmspeech.speaking === null")
    assert page.locator(".it .text").inner_text() and state(page)["played"] > 0
    assert page.problems == []


def test_a_key_is_asked_for(served, browse):
    with served(api_keys=("a-long-secret",)) as server:
        page = browse(server.url)
        page.get_by_label("This server wants a key").fill("a-long-secret")
        page.get_by_role("button", name="Connect").click()
        wait_for(page, "window.mdmspeech.connected === 'socket'")
        assert page.locator("#key-form").is_hidden()


def test_why_there_is_no_microphone(served, browse):
    """A page of another machine over plain http."""
    with served(allow_hosts=("talk.test",)) as server:
        page = browse(server.url.replace("127.0.0.1", "talk.test"), rules="MAP talk.test 127.0.0.1")
        wait_for(page, "window.mdmspeech.connected === 'socket'")
        assert "ssh -L" in page.locator("#notice").inner_text()
        assert page.get_by_role("button", name="Start the microphone").is_disabled()
        page.get_by_label("Or type a question").fill("What is the capital of France?")
        page.get_by_role("button", name="Ask").click()
        wait_for(page, "window.mdmspeech.answers === 1")
