"""One small random assistant behind a real server, for all tests of the room."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

for folder in ("serving", "inference"):  # for `import small_speech`
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))


@pytest.fixture(scope="session")
def assistant():
    """With answers of several words, see tests/inference/small_session.py."""
    import small_session
    import small_speech

    return small_session.model(small_speech.assistant(small_speech.small_codec()))


class Running:
    """A server in a thread of its own: `url`, `engine`, and `run` for coroutines in its event loop."""

    def __init__(self, assistant, settings):
        self._assistant, self._settings = assistant, settings
        self._started, self._stop = threading.Event(), None
        self._error = None
        self._thread = threading.Thread(target=self._main, daemon=True)

    def __enter__(self):
        self._thread.start()
        self._started.wait(120)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)
        assert not self._thread.is_alive()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def _main(self):
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
            self._started.set()

    async def _serve(self):
        import small_session

        from mdmspeech.inference.session_config import SessionConfig
        from mdmspeech.serving.engine import Engine
        from mdmspeech.serving.run import Server

        self.loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        settings = self._settings
        self.engine = Engine(
            self._assistant, max_sessions=settings.max_sessions, max_queue=settings.max_queue
        )
        async with Server(self.engine, settings) as server:
            self.url, self.port, self.app = server.url, server.port, server.app
            await self.engine.warm_up(SessionConfig(**small_session.SETTINGS))
            self._started.set()
            await self._stop.wait()


@pytest.fixture(scope="session")
def running(assistant):
    """Starts servers: `with running(max_sessions=2) as server`."""
    from mdmspeech.serving.settings import Settings

    def start(**settings):
        usual = {"port": 0, "context": 256, "model_id": "small", "drain_s": 5.0}
        return Running(assistant, Settings(**usual | settings))

    return start


@pytest.fixture(scope="session")
def server(running):
    """One for the tests that need no settings of their own."""
    with running() as one:
        yield one


@pytest.fixture(scope="session")
def client(server):
    """OpenAI's own."""
    import openai

    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="not-needed", max_retries=0)
