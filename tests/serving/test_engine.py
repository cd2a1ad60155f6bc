"""The engine: one thread, who gets in, who is paused, what happens to those who go."""

import asyncio
import threading

import pytest
import small_session

from mdmspeech.errors import UserError
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_events import ResponseEnded, SessionOpened
from mdmspeech.serving.engine import BusyError, Engine, NotReadyError
from mdmspeech.serving.job import ROOM

CONFIG = SessionConfig(**small_session.SETTINGS)


class Nothing:
    """An assistant's place, for jobs that need no model."""

    def __init__(self):
        from mdmspeech.inference.session_loop import SessionLoop

        self.sessions = SessionLoop(self)


def engine(**limits):
    made = Engine(Nothing(), **limits)
    made._warm = True
    return made


def test_items_come_in_order_and_the_last_one_too():
    """Trap 5: the last partial block is not dropped."""

    async def main():
        for count in (0, 1, 2, ROOM, 5 * ROOM + 3):
            async with engine().run(lambda count=count: iter(range(count))) as job:
                assert [item async for item in job] == list(range(count))

    asyncio.run(main())


def test_units_run_in_one_thread_and_not_in_the_event_loop():
    async def main():
        one, where = engine(), set()

        def units():
            for _ in range(5):
                where.add(threading.current_thread().name)
                yield None
            yield "done"

        async def ask():
            async with one.run(units) as job:
                return [item async for item in job]

        assert await asyncio.gather(*(ask() for _ in range(4))) == [["done"]] * 4
        assert where == {"sessions"}

    asyncio.run(main())
