"""The engine: one thread, who gets in, who is paused, what becomes of those who go. Units are plain
functions here; what they do with a model is tested where that is.
"""

import asyncio
import threading

import pytest
import small_session

from mdmspeech.errors import TryAgainError, UserError
from mdmspeech.inference.session_config import SessionConfig
from mdmspeech.inference.session_events import ResponseEnded, SessionClosed, SessionOpened
from mdmspeech.inference.session_loop import SessionLoop
from mdmspeech.serving.engine import BusyError, Engine, NotReadyError
from mdmspeech.serving.job import ROOM

CONFIG = SessionConfig(**small_session.SETTINGS)


class Nothing:
    """An assistant's place, for units that need no model."""

    def __init__(self):
        self.sessions = SessionLoop(self)


def ready(**limits):
    engine = Engine(Nothing(), **limits)
    engine._warm = True
    return engine


def in_loop(main):
    asyncio.run(asyncio.wait_for(main(), 60))


class Steps:
    """Units that wait until they are let go, and know how many were done."""

    def __init__(self, count=10**9, free=True):
        self.done, self.closed, self._count = 0, threading.Event(), count
        self.may = threading.Event()
        if free:
            self.may.set()

    def __iter__(self):
        return self

    def __next__(self):
        assert self.may.wait(20)
        if self.done == self._count:
            raise StopIteration
        self.done += 1
        return self.done

    def close(self):
        self.closed.set()


async def soon(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("this never comes true")


def test_items_come_in_order_and_the_last_one_too():
    """Trap 5: the last partial block is not dropped."""

    async def main():
        for count in (0, 1, 2, ROOM, 5 * ROOM + 3):
            async with ready().run(lambda count=count: iter(range(count))) as job:
                assert [item async for item in job] == list(range(count))

    in_loop(main)


def test_units_run_in_one_thread_and_not_in_the_event_loop():
    async def main():
        engine, where = ready(), set()

        def units():
            for _ in range(5):
                where.add(threading.current_thread().name)
                yield None
            yield "done"

        async def ask():
            async with engine.run(units) as job:
                return [item async for item in job]

        assert await asyncio.gather(*(ask() for _ in range(4))) == [["done"]] * 4
        assert where == {"sessions"}

    in_loop(main)


def test_a_slow_reader_pauses_itself_alone():
    async def main():
        engine, slow, quick = ready(), Steps(), Steps(300)
        async with engine.run(lambda: slow) as unread, engine.run(lambda: quick) as read:
            assert len([item async for item in read]) == 300
            assert slow.done == ROOM
            assert [await anext(unread) for _ in range(3)] == [1, 2, 3]
            await soon(lambda: slow.done == ROOM + 3)
            await asyncio.sleep(0.05)
            assert slow.done == ROOM + 3

    in_loop(main)


def test_who_goes_is_forgotten_at_once():
    """Trap 4: in the middle of it; the others go on, and the place is free."""

    async def main():
        engine, left = ready(max_sessions=2, max_queue=0), Steps()
        async with engine.run(lambda: Steps(2000)) as stays:
            first = await anext(stays)
            async with engine.run(lambda: left) as job:
                await anext(job)
            assert engine.running == 1 and await asyncio.to_thread(left.closed.wait, 10)
            count = left.done
            async with engine.run(lambda: iter("ab")) as job:
                assert [item async for item in job] == ["a", "b"]
            assert first == 1 and [item async for item in stays] == list(range(2, 2001))
            assert left.done == count
        assert engine.running == engine.waiting == 0

    in_loop(main)


def test_an_error_comes_behind_what_was_before_it():
    async def main():
        def units(error):
            yield 1
            yield 2
            raise error

        for error in (UserError("no such voice"), ValueError("in the model")):
            engine, found = ready(), []
            with pytest.raises(type(error), match=str(error)):
                async with engine.run(lambda error=error: units(error)) as job:
                    found += [item async for item in job]
            # and the thread lives on
            async with engine.run(lambda: iter("a")) as job:
                assert [item async for item in job] == ["a"] and engine.running == 1

    in_loop(main)


def test_places_and_the_queue():
    async def main():
        engine = ready(max_sessions=2, max_queue=2)
        steps, order = [Steps(1, free=False) for _ in range(4)], []

        async def ask(number):
            async with engine.run(lambda: steps[number]) as job:
                order.append(number)
                return [item async for item in job]

        tasks = []
        for number in range(4):
            tasks.append(asyncio.create_task(ask(number)))
            await asyncio.sleep(0.01)
        assert (engine.running, engine.waiting, order) == (2, 2, [0, 1])
        with pytest.raises(
            BusyError, match="2 conversations and requests are served now, 2 wait"
        ) as told:
            await ask(0)
        assert 1 <= told.value.retry_after <= 60 and isinstance(told.value, TryAgainError)
        with pytest.raises(BusyError):  # a conversation does not wait
            await engine.open_session(CONFIG)
        # who waits and goes leaves the queue; the next in it has the place that comes free
        tasks[2].cancel()
        await asyncio.sleep(0.01)
        assert (engine.running, engine.waiting) == (2, 1)
        for step in steps:
            step.may.set()
        assert await asyncio.gather(tasks[0], tasks[1], tasks[3]) == [[1]] * 3
        assert order == [0, 1, 3] and (engine.running, engine.waiting) == (0, 0)

    in_loop(main)


def test_a_place_given_to_one_who_goes_in_that_moment_is_not_lost():
    async def main():
        engine = ready(max_sessions=1, max_queue=3)
        for _ in range(3):
            async with engine.run(lambda: iter("a")):
                waits = asyncio.create_task(engine._enter())
                await asyncio.sleep(0)
                assert engine.waiting == 1
            waits.cancel()  # the place is its own already
            await asyncio.gather(waits, return_exceptions=True)
            assert engine.running == 0

    in_loop(main)


def test_nobody_gets_in_before_it_is_warm_or_when_it_stops():
    async def main():
        engine = Engine(Nothing())
        for ask in (lambda: engine.run(list).__aenter__(), lambda: engine.open_session(CONFIG)):
            with pytest.raises(NotReadyError, match="still being compiled"):
                await ask()
        engine._warm = True
        assert engine.ready and await engine.drain(1.0) and not engine.ready
        for ask in (lambda: engine.run(list).__aenter__(), lambda: engine.open_session(CONFIG)):
            with pytest.raises(NotReadyError, match="about to stop"):
                await ask()

    in_loop(main)


def test_draining_waits_for_what_is_being_done():
    async def main():
        engine, steps = ready(max_sessions=1, max_queue=4), Steps(1, free=False)

        async def ask():
            async with engine.run(lambda: steps) as job:
                return [item async for item in job]

        runs = asyncio.create_task(ask())
        await asyncio.sleep(0.01)
        waits = asyncio.create_task(ask())
        await asyncio.sleep(0.01)
        assert not await engine.drain(0.05)  # it took too long
        with pytest.raises(NotReadyError):
            await waits
        drained = asyncio.create_task(engine.drain(20.0))
        await asyncio.sleep(0.01)
        assert not drained.done()
        steps.may.set()
        assert await drained and await runs == [1]

    in_loop(main)


def test_sessions_and_requests_share_thread_and_places(assistant):
    async def main():
        engine = Engine(assistant, max_sessions=2, max_queue=0)
        await engine.warm_up(CONFIG)
        session = await engine.open_session(CONFIG)
        threads = {assistant.sessions._thread}
        assert (engine.running, engine.sessions) == (1, 1)
        session.push_text("what is it ?")
        session.commit()
        names = []
        async with engine.run(lambda: iter([threading.current_thread()])) as job:
            with pytest.raises(BusyError):
                await engine.open_session(CONFIG)
            async for event in engine.events(session):
                names.append(type(event))
                if isinstance(event, ResponseEnded):
                    break
            assert {thread async for thread in job} == threads
        assert names[0] is SessionOpened and event.reason == "completed"
        # an open conversation in which nothing is said does not hold up the end, another does
        assert await engine.drain(5.0)
        session.push_text("what is it ?")
        session.commit()
        await soon(lambda: not session.idle)
        assert not await engine.drain(0.0)
        engine.close_session(session)
        engine.close_session(session)  # once more is no harm
        assert (engine.running, engine.sessions) == (0, 0) and await engine.drain(5.0)
        left = [event async for event in engine.events(session)]
        assert isinstance(left[-1], SessionClosed)

    in_loop(main)


def test_a_part_that_cannot_be_opened_is_told(assistant):
    async def main():
        for config in (SessionConfig(**small_session.SETTINGS | {"talker": "mtp"}),):
            with pytest.raises(UserError, match="no talker 'mtp'"):
                await Engine(assistant).warm_up(config)

    in_loop(main)
