"""The bridge: asyncio calls that a cancel cannot interrupt, and complaints that are reported."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
import trio

from tests.support.bridge import Complaints
from trio_worker.bridge import call, call_abortable, call_breakable, call_inline, call_trio, open_bridge, read_at_most


@pytest.mark.case("B5")
@pytest.mark.parametrize("call_it", [call, call_inline])
async def test_a_cancel_does_not_tear_a_call(bridge: Complaints, call_it: Any) -> None:
    """It runs to its end, its result is delivered, and the cancel is felt at the next checkpoint."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await may_end.wait()
        return "done"

    results: list[str] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def caller() -> None:
                results.append(await call_it(work))
                await trio.lowlevel.checkpoint()
                results.append("went on")

            nursery.start_soon(caller)
            await call(begun.wait)
            scope.cancel()
            may_end.set()

    assert results == ["done"]


@pytest.mark.case("B8")
async def test_a_cancel_aborts_an_abortable_call(bridge: Complaints) -> None:
    """The abort makes it end, its error is dropped, and the caller sees the cancel."""
    begun, broken = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        begun.set()
        await broken.wait()
        raise ConnectionResetError

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_abortable, broken.set, read)
            await call(begun.wait)
            scope.cancel()

    assert scope.cancelled_caught
    assert broken.is_set()


@pytest.mark.case("B8")
async def test_a_cancel_breaks_a_breakable_call_where_it_waits(bridge: Complaints) -> None:
    """What it waits for is cancelled, it may clean up, and the caller sees the cancel."""
    begun, never = asyncio.Event(), asyncio.Event()
    said: list[str] = []

    async def read() -> None:
        begun.set()
        try:
            await asyncio.create_task(never.wait())
        finally:
            said.append("cleaned up")

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call_breakable, read)
            await call(begun.wait)
            scope.cancel()

    assert scope.cancelled_caught
    assert said == ["cleaned up"]


async def test_a_call_inline_may_let_others_go_first(bridge: Complaints) -> None:
    """A bare yield, as asyncio's streams make one when the other side is gone."""

    async def give_way() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await call_inline(give_way) == "done"


async def test_a_call_inline_that_waits_for_nothing_lets_others_go_first(bridge: Complaints) -> None:
    """Who repeats it until something changes does not keep that from changing."""
    changed = trio.Event()

    async def change() -> None:
        changed.set()

    async def answer() -> None:
        pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        for _ in range(3):
            await call_inline(answer)
        assert changed.is_set()


async def test_a_deadline_of_trio_holds_in_a_call_inline(bridge: Complaints) -> None:
    """It ends what the asyncio function waits for, and the function goes on."""
    never = asyncio.Event()

    async def read() -> str:
        with trio.move_on_after(0.01):
            await never.wait()
        return "went on"

    assert await call_inline(read) == "went on"


async def test_a_deadline_aborts_an_abortable_call(bridge: Complaints) -> None:
    """TooSlowError is what the caller sees, and not the error of what was broken."""
    broken = asyncio.Event()

    async def read() -> None:
        await broken.wait()
        raise ConnectionResetError

    with pytest.raises(trio.TooSlowError), trio.fail_after(0.01):
        await call_abortable(broken.set, read)


async def test_the_error_of_a_call_is_raised_as_it_is(bridge: Complaints) -> None:
    """Not wrapped in a group, not turned into a cancel."""

    async def fail() -> None:
        raise ValueError("as it is")

    for call_it in (call, call_inline, call_breakable):
        with pytest.raises(ValueError, match="as it is"):
            await call_it(fail)
    with pytest.raises(ValueError, match="as it is"):
        await call_abortable(lambda: None, fail)


async def test_trio_can_be_called_from_asyncio(bridge: Complaints) -> None:
    """For the look-up of names, which asyncio would do in a thread without a timeout."""

    async def add(one: int, other: int) -> int:
        await trio.lowlevel.checkpoint()
        return one + other

    async def ask() -> int:
        return await call_trio(add, 2, 3)

    assert await call(ask) == 5


@pytest.mark.case("B10")
async def test_what_nobody_awaits_is_told_and_ends_nothing() -> None:
    """An error in a callback is reported by its class, without its message."""
    told: list[str] = []
    async with open_bridge(told.append):

        def fail() -> None:
            raise ValueError("ann@example.com")

        async def leave_behind() -> None:
            asyncio.get_running_loop().call_soon(fail)

        await call(leave_behind)
        await call(asyncio.sleep, 0)

    assert len(told) == 1
    assert "ValueError" in told[0]
    assert "ann@example.com" not in told[0]


async def test_a_transport_reads_at_most_what_it_is_told(bridge: Complaints) -> None:
    """In pieces, of which none is lost; asyncio's usual read asks for 256 KB of memory, for whatever comes."""
    sent = bytes(range(250)) * 20
    pieces: list[bytes] = []
    ended = asyncio.Event()

    class Receiver(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            read_at_most(transport, 1000)

        def data_received(self, data: bytes) -> None:
            pieces.append(data)

        def connection_lost(self, _exc: Exception | None) -> None:
            ended.set()

    async def receive(port: int) -> None:
        await asyncio.get_running_loop().create_connection(Receiver, "127.0.0.1", port)
        await ended.wait()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_tcp, lambda stream: stream.send_all(sent), 0, host="127.0.0.1")
        )
        await call(receive, listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()

    assert b"".join(pieces) == sent
    assert max(map(len, pieces)) <= 1000
