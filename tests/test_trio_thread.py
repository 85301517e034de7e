"""Trio in a thread: calls, Ctrl-C, and every way in which it can end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from trio_worker.trio_thread import TrioThread, TrioThreadOverError, open_trio_thread

PATIENCE_SECONDS = 60


@asynccontextmanager
async def plain() -> AsyncIterator[str]:
    yield "entered"


async def add(one: int, two: int) -> int:
    await trio.lowlevel.checkpoint()
    return one + two


async def fail() -> None:
    await trio.lowlevel.checkpoint()
    raise ZeroDivisionError("of the call")


def test_a_call_returns_or_raises_what_its_function_does() -> None:
    """From this thread or any other; a failed call does not affect the others."""
    with open_trio_thread(plain) as (thread, entered):
        assert (entered, thread.call(add, 1, 2)) == ("entered", 3)
        with pytest.raises(ZeroDivisionError, match="of the call"):
            thread.call(fail)
        assert thread.call_soon(threading.current_thread) is not threading.current_thread()
        assert thread.call(add, 3, 4) == 7


def test_what_the_opening_raises_is_raised_as_it_is() -> None:
    """No group around it, and the thread has ended."""

    @asynccontextmanager
    async def refusing() -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        raise PermissionError("not today")
        yield

    with pytest.raises(PermissionError, match="not today"), open_trio_thread(refusing):
        pass


def test_what_breaks_in_the_thread_ends_its_calls_and_is_raised_at_the_end() -> None:
    """A waiting call ends; the next one is refused with the cause."""
    began = threading.Event()

    @asynccontextmanager
    async def breaking() -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:

            async def give_way() -> None:
                await trio.to_thread.run_sync(began.wait)
                raise KeyError("broken")

            nursery.start_soon(give_way)
            yield

    async def wait() -> None:
        began.set()
        await trio.sleep_forever()

    def use() -> None:
        with open_trio_thread(breaking) as (thread, _):
            with pytest.raises(TrioThreadOverError):
                thread.call(wait)
            with pytest.raises(TrioThreadOverError):
                thread.call(add, 1, 2)

    with pytest.RaisesGroup(pytest.RaisesExc(KeyError, match="broken"), flatten_subgroups=True):
        use()


def test_the_end_cancels_a_call_that_still_runs() -> None:
    """The caller in another thread gets an error: the run is over."""
    began, told = threading.Event(), []

    async def wait() -> None:
        began.set()
        await trio.sleep_forever()

    def other(thread: TrioThread[str]) -> None:
        try:
            thread.call(wait)
        except TrioThreadOverError as error:
            told.append(error)

    with open_trio_thread(plain) as (thread, _):
        waiter = threading.Thread(target=other, args=(thread,))
        waiter.start()
        assert began.wait(PATIENCE_SECONDS)
    waiter.join(PATIENCE_SECONDS)

    assert len(told) == 1


def test_ctrl_c_cancels_the_call_and_not_the_run() -> None:
    """The function sees its Cancelled before the caller sees its KeyboardInterrupt."""
    seen = []

    async def wait() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)  # to the process: the main thread, which waits, must hear it
            await trio.sleep_forever()
        except trio.Cancelled:
            seen.append("cancelled")
            raise

    with open_trio_thread(plain) as (thread, _):
        with pytest.raises(KeyboardInterrupt):
            thread.call(wait)
        assert seen == ["cancelled"]
        assert thread.call(add, 1, 2) == 3
