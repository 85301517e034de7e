"""Trio. The only door to asyncio: the loop under the foreign libraries, and calls that a cancel cannot tear.

A cancelled asyncio call has an unknown outcome, even when its result had already arrived. So a call here is shielded,
and whoever wants it to end early makes it end, by aborting the transport it waits on; only one whose reply may be lost
can be broken where it stands.
"""

from __future__ import annotations

import asyncio
import types
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio

with warnings.catch_warnings():
    # trio-asyncio 0.16 names asyncio.AbstractChildWatcher while it is imported on Python 3.12 and 3.13; an
    # application whose tests make every warning an error must be able to import us.
    warnings.filterwarnings("ignore", "'AbstractChildWatcher' is deprecated", DeprecationWarning)
    import trio_asyncio

ABORT_AGAIN_SECONDS = 0.05

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@asynccontextmanager
async def open_bridge(complain: Callable[[str], object]) -> AsyncIterator[None]:
    """Run the asyncio loop for the block.

    ``complain`` is told of every future that nobody awaited and every client that was never closed; without it
    trio-asyncio ends the process for any of them. Install the signal receiver before this: a KeyboardInterrupt raised
    inside asyncio code would hang.
    """

    def note(_loop: asyncio.AbstractEventLoop, report: dict[str, Any]) -> None:
        error = report.get("exception")
        complain(f"{report.get('message', 'unnamed')}: {type(error).__name__ if error else 'no exception'}")

    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(note)
        loop.create_future = lambda: _PromptFuture(loop=loop)
        loop._io_task = _follow  # noqa: SLF001  trio-asyncio has no other way; its minor version is fixed
        yield


class _PromptFuture(asyncio.Future[Any]):
    """A future whose end wakes the one trio task that waits for it at once.

    An asyncio future tells of its end by the loop's queue: a round of trio's scheduler for the loop's task, and only
    the next one for whoever waits. Redis is waited for twice between a push and the mail of an idle worker.
    """

    waiting: trio.lowlevel.Task | None = None

    def set_result(self, result: Any) -> None:
        super().set_result(result)
        self._wake()

    def set_exception(self, exception: type[BaseException] | BaseException) -> None:
        super().set_exception(exception)
        self._wake()

    def cancel(self, msg: Any | None = None) -> bool:
        is_cancelled = super().cancel(msg)
        self._wake()
        return is_cancelled

    async def wait(self) -> None:
        """Wait until it is done; a cancel of the trio scope cancels it, and is raised if it ended by that."""
        raise_cancel: Any = None

        def give_up(raise_it: Any) -> trio.lowlevel.Abort:
            nonlocal raise_cancel
            raise_cancel = raise_it
            self.cancel()
            return trio.lowlevel.Abort.FAILED

        self.waiting = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(give_up)
        if raise_cancel is not None and self.cancelled():
            raise_cancel()

    def _wake(self) -> None:
        task, self.waiting = self.waiting, None
        if task is not None:
            trio.lowlevel.reschedule(task)


async def _follow(fd: int, handle: Any, wait_until_ready: Callable[[int], Awaitable[None]]) -> None:
    """Have a transport read or write whenever its descriptor is ready.

    trio-asyncio does the same, and each time waits until the loop has come to the end of its queue: more than all else
    together that a small read costs. No transport needs that, for each reads or writes at once. What asks for a read by
    `loop.sock_recv` and the like is called once more than needed, and does nothing then.
    """
    with handle._scope:  # noqa: SLF001  trio-asyncio's own handle, made for this task
        while not handle.cancelled():
            try:
                await wait_until_ready(fd)
            except OSError:
                if handle.cancelled():  # closed meanwhile
                    return
                raise
            if not handle.cancelled():
                handle._run()  # noqa: SLF001  as asyncio's loop does


async def call(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await an asyncio function to its end, whatever is cancelled around it.

    What it returns is the truth even when a cancel is pending: the caller acts on it before its next checkpoint. The
    function must have a deadline of its own, or end when its transport is aborted.
    """
    with trio.CancelScope(shield=True):
        result: T = await trio_asyncio.aio_as_trio(function)(*args)
    return result


async def call_inline(function: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
    """Await an asyncio function as `call` does, as a part of the task that calls: a third of the cost.

    The function has no task of asyncio, so it must do without what wants one: `asyncio.timeout`, for example. Scopes of
    trio hold inside it.
    """
    with trio.CancelScope(shield=True):
        result: T = await _inline(function(*args))
    return result


async def call_breakable(function: Callable[[*Ts], Coroutine[Any, Any, T]], *args: *Ts) -> T:
    """Await an asyncio function as `call_inline` does; a cancel cancels what it waits for, and is raised there.

    So it must be a call whose reply may be lost, and leave nothing half done behind when it is broken anywhere. Where a
    cancel is there already it is not begun.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    return await _inline(function(*args))


@types.coroutine
def _inline(coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Drive a coroutine of asyncio, which waits for futures and yields None to let others go first."""
    go_on: Callable[[Any], Any] = coroutine.send
    word: Any = None
    has_waited = False
    while True:
        try:
            awaited = go_on(word)
        except StopIteration as end:
            result: T = end.value
            if not has_waited:
                # A fake server answers at once; whoever asks it again and again must not keep everybody waiting.
                yield from _over(None).__await__()
            return result
        has_waited = True
        try:
            word = yield from _over(awaited).__await__()
        except BaseException as error:  # noqa: BLE001  thrown where it would have been raised
            go_on, word = coroutine.throw, error
        else:
            go_on = coroutine.send


async def _over(awaited: asyncio.Future[T] | None) -> T | None:
    if awaited is None:
        await trio.lowlevel.checkpoint()
        return None
    if isinstance(awaited, _PromptFuture) and awaited.waiting is None:
        await awaited.wait()
        return None  # whoever awaits it asks for the result itself
    result: T = await trio_asyncio.run_aio_future(awaited)
    return result


async def call_abortable(abort: Callable[[], object], function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await an asyncio function; a cancel calls ``abort``, which must make the function end soon.

    Raises what the function raises. When it ended because of the cancel its result is dropped and Cancelled is raised,
    so it must be a call whose reply may be lost.
    """
    over = trio.Event()

    async def watch() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                # Again and again: the call may still be opening what the first abort found nothing of.
                while not over.is_set():
                    abort()
                    with trio.move_on_after(ABORT_AGAIN_SECONDS):
                        await over.wait()

    async def captured() -> T:
        return await call(function, *args)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        ended = await outcome.acapture(captured)
        over.set()
        nursery.cancel_scope.cancel()
    await trio.lowlevel.checkpoint_if_cancelled()
    return ended.unwrap()


async def call_trio(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Await a trio function from inside asyncio code that the bridge runs."""
    result: T = await trio_asyncio.trio_as_aio(function)(*args)
    return result


def waiting_bytes(transport: asyncio.WriteTransport) -> int:
    """Return how much of what was written waits in this process still; under TLS cipher text is counted as it is."""
    waiting = transport.get_write_buffer_size()
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return waiting + (0 if below is None else below.get_write_buffer_size())


def unsent_bytes(transport: asyncio.WriteTransport) -> int:
    """Return how much of what was written surely waits in this process still, and would be dropped by an abort.

    Under TLS that is one byte as soon as anything waits: the last record is then incomplete, but how much plain text
    the cipher text below stands for cannot be told, and a message must not be called unsent that may be out.
    """
    waiting = waiting_bytes(transport)
    return waiting if getattr(transport, "_ssl_protocol", None) is None else min(1, waiting)
