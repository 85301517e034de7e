"""Trio. Runs trio in a separate thread, for blocking calls from threads without trio."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, Generic, TypeVar, TypeVarTuple

import trio
from attrs import field

from trio_worker.records import define

_T = TypeVar("_T")
Entered = TypeVar("Entered")
_Ts = TypeVarTuple("_Ts")


class TrioThreadOverError(RuntimeError):
    """Trio's run in the thread has ended, so calls are refused; ``__cause__`` is the error that ended it, if any."""


@define(eq=False)
class _Call:
    function: Callable[..., Awaitable[Any]]
    args: tuple[Any, ...]
    answer: Future[Any] = field(factory=Future)
    scope: trio.CancelScope = field(factory=trio.CancelScope)

    def refuse(self, error: BaseException | None) -> None:
        """End the call with `TrioThreadOverError`, unless it has a result."""
        if not self.answer.done():
            over = TrioThreadOverError("the worker's thread has ended")
            over.__cause__ = error
            self.answer.set_exception(over)


@define(eq=False)
class TrioThread(Generic[Entered]):
    """The run of trio in the thread; made by `open_trio_thread`, which also ends it."""

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

    def call(self, function: Callable[[*_Ts], Awaitable[_T]], *args: *_Ts) -> _T:
        """Run an async function in the thread and return what it returns, or raise what it raises.

        Ctrl-C cancels the function, waits for its end and is then raised; a second Ctrl-C ends the wait. Raises
        `TrioThreadOverError` if the run has ended, or ends during the call.
        """
        call = _Call(function, args)
        try:
            self._submit(call)
            answer: _T = call.answer.result()
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
                    # Trio has ended, and the thread will set `_is_over` next.
                    self._pending.discard(call)
                    call.refuse(error)

    def call_soon(self, function: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        """Run a function that does not await in the thread, between the steps of its tasks; otherwise like `call`."""

        async def soon() -> _T:
            await trio.lowlevel.checkpoint()
            return function(*args)

        return self.call(soon)

    def end(self) -> None:
        """Leave the context in the thread, and cancel calls that still run. Does not wait for it."""
        with suppress(trio.RunFinishedError):
            self._token.result().run_sync_soon(self._leave)

    def run(self) -> None:
        """Run trio until `end`, as the thread's function; every call gets a result or an error."""
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
        # No nursery around the opening, so that its exceptions are raised without a group.
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
        # Not directly from run_sync_soon: a call must run in the context of the opening, which has asyncio's loop.
        async for call in self._take:
            calls.start_soon(self._serve, call)

    async def _serve(self, call: _Call) -> None:
        try:
            with call.scope:
                call.answer.set_result(await call.function(*call.args))
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001  raised by `call`
            call.answer.set_exception(error)
        finally:
            call.refuse(None)
            self._pending.discard(call)


@contextmanager
def open_trio_thread(
    opening: Callable[[], AbstractAsyncContextManager[Entered]],
) -> Iterator[tuple[TrioThread[Entered], Entered]]:
    """Run trio in a thread for the block, inside the async context of ``opening``; blocks until it is entered.

    An exception on entering the context is raised here. The end of the block leaves the context, ends the thread, and
    raises the error that ended it, if any.
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
