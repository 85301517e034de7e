"""Trio. A run of trio in a thread of its own, and blocking calls into it from threads that know no trio."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, Generic, TypeVar, TypeVarTuple

import trio
from attrs import define, field

T = TypeVar("T")
Entered = TypeVar("Entered")
Ts = TypeVarTuple("Ts")


class TrioThreadOverError(RuntimeError):
    """The run in the thread has ended, so it answers no call; its cause says why, if it did not end in order."""


@define(eq=False)
class _Call:
    function: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...]
    answer: Future[Any] = field(factory=Future)
    scope: trio.CancelScope = field(factory=trio.CancelScope)

    def refuse(self, error: BaseException | None) -> None:
        """Answer that the run is over, unless there is an answer."""
        if not self.answer.done():
            over = TrioThreadOverError("the worker's thread has ended")
            over.__cause__ = error
            self.answer.set_exception(over)


@define(eq=False)
class TrioThread(Generic[Entered]):
    """What runs in the thread; made by `open_trio_thread`, which also ends it."""

    opening: Callable[[], AbstractAsyncContextManager[Entered]]
    entered: Future[Entered] = field(factory=Future)
    error: BaseException | None = None
    _token: Future[trio.lowlevel.TrioToken] = field(factory=Future)
    _end: trio.Event = field(factory=trio.Event)
    _opening_scope: trio.CancelScope = field(factory=trio.CancelScope)
    _give: trio.MemorySendChannel[_Call] = field(init=False)
    _take: trio.MemoryReceiveChannel[_Call] = field(init=False)
    _pending: set[_Call] = field(factory=set)
    _lock: threading.Lock = field(factory=threading.Lock)
    _is_over: bool = False

    def __attrs_post_init__(self) -> None:
        self._give, self._take = trio.open_memory_channel[_Call](float("inf"))

    def call(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run an async function in the thread and return what it returns, or raise what it raises.

        A Ctrl-C cancels the function and waits for its end, then is raised; a second one stops waiting. Raises
        `TrioThreadOverError` when the run has ended, or ends meanwhile.
        """
        call = _Call(function, args)
        try:
            self._submit(call)
            answer: T = call.answer.result()
        except KeyboardInterrupt:
            with suppress(trio.RunFinishedError):
                self._token.result().run_sync_soon(call.scope.cancel)
            if call in self._pending:
                wait([call.answer])
            raise
        return answer

    def _submit(self, call: _Call) -> None:
        with self._lock:
            if self._is_over:
                call.refuse(self.error)
            else:
                self._pending.add(call)
                try:
                    self._token.result().run_sync_soon(self._give.send_nowait, call)
                except trio.RunFinishedError as error:
                    # Trio has ended, and the thread is about to say so.
                    self._pending.discard(call)
                    call.refuse(error)

    def call_soon(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run a function that does not await between the steps of the tasks in the thread; else as `call`."""

        async def soon() -> T:
            await trio.lowlevel.checkpoint()
            return function(*args)

        return self.call(soon)

    def end(self) -> None:
        """Leave the context in the thread; a call that still runs is cancelled. Does not wait for it."""
        with suppress(trio.RunFinishedError):
            self._token.result().run_sync_soon(self._leave)

    def run(self) -> None:
        """Be the thread: run trio until `end`, and answer every call whatever happens."""
        try:
            trio.run(self._main)
        except BaseException as error:  # noqa: BLE001  raised again by open_trio_thread, in the thread that waits
            self.error = error
        with self._lock:
            self._is_over = True
        for call in self._pending:
            call.refuse(self.error)
        if not self.entered.done():
            self.entered.set_exception(self.error or TrioThreadOverError("ended before it was ready"))

    async def _main(self) -> None:
        self._token.set_result(trio.lowlevel.current_trio_token())
        # No nursery around the opening: what it raises is to be raised as it is.
        with self._opening_scope:
            async with self.opening() as entered, trio.open_nursery() as calls:
                calls.start_soon(self._serve_all, calls)
                self.entered.set_result(entered)
                await self._end.wait()
                calls.cancel_scope.cancel()

    def _leave(self) -> None:
        self._end.set()
        if not self.entered.done():
            self._opening_scope.cancel()

    async def _serve_all(self, calls: trio.Nursery) -> None:
        # Not straight from run_sync_soon: a call must run in the context of the opening, which knows asyncio's loop.
        async for call in self._take:
            calls.start_soon(self._serve, call)

    async def _serve(self, call: _Call) -> None:
        try:
            with call.scope:
                call.answer.set_result(await call.function(*call.args))
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  raised by `call`, who asked for it
            call.answer.set_exception(error)
        finally:
            call.refuse(None)
            self._pending.discard(call)


@contextmanager
def open_trio_thread(
    opening: Callable[[], AbstractAsyncContextManager[Entered]],
) -> Iterator[tuple[TrioThread[Entered], Entered]]:
    """Run trio in a thread for the block, inside the async context that ``opening`` gives; blocks until it is entered.

    Leaving the block leaves that context, ends the thread, and raises what went wrong there. What raises while the
    context is entered is raised here.
    """
    run = TrioThread(opening)
    thread = threading.Thread(target=run.run, name="trio-worker", daemon=True)
    thread.start()
    try:
        entered = run.entered.result()
        yield run, entered
    finally:
        run.end()
        thread.join()
    if run.error is not None:
        raise run.error
