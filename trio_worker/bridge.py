"""Trio. Bridge to asyncio, for libraries that need it: runs its loop, and makes calls that a cancel does not break.

A cancelled asyncio call has an unknown outcome, even if its result has already arrived. So the calls here are shielded.
A caller that needs a call to end early aborts the transport that the call waits for; only a call whose reply may be
lost can be cancelled directly.
"""

from __future__ import annotations

import asyncio
import types
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, TypeVarTuple

import outcome
import trio

with warnings.catch_warnings():
    # On Python 3.12 and 3.13 trio-asyncio 0.16 uses asyncio.AbstractChildWatcher when it is imported; an application
    # whose tests turn warnings into errors must be able to import this package.
    warnings.filterwarnings("ignore", "'AbstractChildWatcher' is deprecated", DeprecationWarning)
    import trio_asyncio

ABORT_AGAIN_SECONDS = 0.05
LAST_WORDS_BYTES = 65_536

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


@asynccontextmanager
async def open_bridge(complain: Callable[[str], object]) -> AsyncIterator[None]:
    """Run the asyncio loop for the block.

    ``complain`` is called for each future that was not awaited and each client that was not closed; without it
    trio-asyncio would end the process. Install the signal handlers before this: a KeyboardInterrupt raised inside
    asyncio code would hang.
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
    """A future that, when done, wakes the trio task that waits for it at once.

    An asyncio future uses the loop's queue for that: one round of trio's scheduler for the loop's task, and another one
    for the waiting task. An idle worker waits for Redis twice between a push and the mail.
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
        """Wait until it is done; a cancel of the trio scope cancels it, and is raised if that ended it."""
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
    """Call a transport's handler each time its file descriptor is ready.

    trio-asyncio does the same, but each time it then waits for the end of the loop's queue, which costs more than all
    the rest of a small read. No transport needs that, since each reads or writes at once. Calls like `loop.sock_recv`
    get one call more than needed, which does nothing.
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


async def call(function: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts) -> _T:
    """Await an asyncio function to its end, shielded from cancellation.

    The result is valid even if a cancel is pending: the caller must use it before its next checkpoint. The function
    must have a timeout, or end when its transport is aborted.
    """
    with trio.CancelScope(shield=True):
        result: _T = await trio_asyncio.aio_as_trio(function)(*args)
    return result


async def call_inline(function: Callable[[*_Ts], Coroutine[Any, Any, _T]], *args: *_Ts) -> _T:
    """Await an asyncio function as `call` does, but inside the calling task: a third of the cost.

    The function has no asyncio task, so it must not use what needs one, such as `asyncio.timeout`. Trio's cancel scopes
    work inside it.
    """
    with trio.CancelScope(shield=True):
        result: _T = await _inline(function(*args))
    return result


async def call_breakable(function: Callable[[*_Ts], Coroutine[Any, Any, _T]], *args: *_Ts) -> _T:
    """Await an asyncio function as `call_inline` does, but not shielded: a cancel is raised where it waits.

    Only for a call whose reply may be lost, and which leaves nothing half done wherever it is cancelled. If a cancel is
    pending the call does not begin.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    return await _inline(function(*args))


@types.coroutine
def _inline(coroutine: Coroutine[Any, Any, _T]) -> Generator[Any, Any, _T]:
    """Run an asyncio coroutine, which yields futures to wait for, or None to let other tasks run."""
    go_on: Callable[[Any], Any] = coroutine.send
    word: Any = None
    has_waited = False
    while True:
        try:
            awaited = go_on(word)
        except StopIteration as end:
            result: _T = end.value
            if not has_waited:
                # Without a wait, as with a fake server in tests, a loop of calls would block all other tasks.
                yield from _over(None).__await__()
            return result
        has_waited = True
        try:
            word = yield from _over(awaited).__await__()
        except BaseException as error:  # noqa: BLE001  raised again inside the coroutine
            go_on, word = coroutine.throw, error
        else:
            go_on = coroutine.send


async def _over(awaited: asyncio.Future[_T] | None) -> _T | None:
    if awaited is None:
        await trio.lowlevel.checkpoint()
        return None
    if isinstance(awaited, _PromptFuture) and awaited.waiting is None:
        await awaited.wait()
        return None  # the coroutine gets the result from the future
    result: _T = await trio_asyncio.run_aio_future(awaited)
    return result


async def call_abortable(abort: Callable[[], object], function: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts) -> _T:
    """Await an asyncio function; on a cancel call ``abort``, which must make the function end soon.

    Raises what the function raises. After a cancel its result is dropped and Cancelled is raised, so it must be a call
    whose reply may be lost.
    """
    over = trio.Event()

    async def watch() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                # Repeat it: the first abort may have come before the call had a transport.
                while not over.is_set():
                    abort()
                    with trio.move_on_after(ABORT_AGAIN_SECONDS):
                        await over.wait()

    async def captured() -> _T:
        return await call(function, *args)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        ended = await outcome.acapture(captured)
        over.set()
        nursery.cancel_scope.cancel()
    await trio.lowlevel.checkpoint_if_cancelled()
    return ended.unwrap()


async def call_trio(function: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts) -> _T:
    """Await a trio function from inside asyncio code that the bridge runs."""
    result: _T = await trio_asyncio.trio_as_aio(function)(*args)
    return result


def waiting_bytes(transport: asyncio.WriteTransport) -> int:
    """Return how many bytes that were written are still in this process's buffers; with TLS, of cipher text."""
    waiting = transport.get_write_buffer_size()
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return waiting + (0 if below is None else below.get_write_buffer_size())


def unsent_bytes(transport: asyncio.WriteTransport) -> int:
    """Return how many bytes that were written are surely still in this process, and would be dropped by an abort.

    With TLS it is one byte if any are: the last record is then incomplete, but how much plain text is in the waiting
    cipher text is unknown, and a message that may have been sent must not count as unsent.
    """
    waiting = waiting_bytes(transport)
    return waiting if getattr(transport, "_ssl_protocol", None) is None else min(1, waiting)


def hear_last_words(transport: asyncio.WriteTransport, on_break: Callable[[], object]) -> None:
    """Have the protocol of a transport receive what its peer sent before it broke the connection.

    A peer that closes with our bytes unread sends its last words and then a reset. Linux keeps the words for us, but
    asyncio ends the transport at the first write that fails, with the words unread. From now on they are read after
    ``on_break`` was called and before `connection_lost` is: nothing that the protocol writes then leaves.
    """
    secured = getattr(transport, "_ssl_protocol", None)
    below: Any = transport if secured is None else secured._transport  # noqa: SLF001  asyncio's own, in 3.11 to 3.13
    tell_end = getattr(below, "_call_connection_lost", None)
    if tell_end is None:
        return

    def read_and_tell(error: Exception | None) -> None:
        if isinstance(error, ConnectionError):
            on_break()
            _receive_rest(below)
        tell_end(error)

    below._call_connection_lost = read_and_tell  # noqa: SLF001


def read_at_most(transport: asyncio.BaseTransport, size_bytes: int) -> None:
    """Have a transport read at most so much at once, for an `asyncio.Protocol`; with TLS it changes nothing.

    asyncio asks for 256 KB of memory for each read and gives back what was not received. That much comes from the
    kernel and goes back to it, which takes longer (12 microseconds) than the read; and where it comes from the
    allocator's own memory, what is allocated in between cuts that into pieces that are too small for the next read.
    """
    if hasattr(transport, "max_size"):
        transport.max_size = size_bytes  # asyncio's own, in 3.11 to 3.13


def _receive_rest(transport: Any) -> None:
    """Give the protocol of a socket transport what the kernel has received; the transport is at its end."""
    protocol: Any = transport.get_protocol()
    with suppress(OSError):  # nothing more, or the error that ended it
        while received := transport._sock.recv(LAST_WORDS_BYTES):  # noqa: SLF001
            if isinstance(protocol, asyncio.Protocol):
                protocol.data_received(received)
                continue
            while received:  # of a `BufferedProtocol`, as that of TLS is
                room = memoryview(protocol.get_buffer(len(received)))
                part, received = received[: len(room)], received[len(room) :]
                room[: len(part)] = part
                protocol.buffer_updated(len(part))
