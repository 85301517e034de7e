"""Inject random faults, from a seed, into several workers on one queue for minutes; then print the sums.

It kills and stops workers and Redis, cuts their connections, drops replies, and makes the relay misbehave. At the end
it repairs everything and waits until the queue is empty.
"""

from __future__ import annotations

import argparse
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio
from attrs import define, field
from redis import RedisError

from proving_ground import (
    LEASE_SECONDS,
    QUEUE,
    CountingStore,
    Sums,
    Valkey,
    add_up,
    email_of,
    ending,
    job_of,
    worker_command,
    worker_environment,
    write_config,
)
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.chaos import InjectedFaults, parse_faults
from trio_worker.capture.server import open_catcher

RELAY_FAULTS = (
    "rcpt=451:20%",
    "final=drop:10%",
    "final=accept-drop:10%",
    "mail=421:after5",
    "connect=421:50%",
    "body=drop:5%",
    "every=delay-20ms",
    "final=stall:3%",
    "data=451:10%",
)
# Limit of waits for a recovery.
HEALING_SECONDS = 120.0


@define
class Proxy:
    """A TCP proxy that can reset connections, drop replies, and add a delay like that of a distant server."""

    target: int
    port: int = 0
    one_way_seconds: float = 0.0  # delay of each chunk; the next one does not wait for it
    swallows: bool = False
    swallows_replies_to: bytes = b""  # after a request with these bytes, all replies on its connection are dropped
    has_swallowed: trio.Event = field(factory=trio.Event)
    _deaf: set[trio.SocketStream] = field(factory=set)
    _pairs: set[tuple[trio.SocketStream, trio.SocketStream]] = field(factory=set)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Forward connections until cancelled."""
        listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._forward, listeners, task_status=_started(task_status))

    def cut(self) -> None:
        """Reset every connection (RST), as if the host had crashed."""
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        pairs, self._pairs = self._pairs, set()  # these are not cut again
        for pair in pairs:
            for stream in pair:
                stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                stream.socket.close()

    async def _forward(self, inner: trio.SocketStream) -> None:
        try:
            outer = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            await inner.aclose()
            return
        pair = (inner, outer)
        self._pairs.add(pair)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, inner, outer, nursery, False)  # noqa: FBT003  is it replies
                nursery.start_soon(self._pump, outer, inner, nursery, True)  # noqa: FBT003  is it replies
        finally:
            self._pairs.discard(pair)
            with trio.CancelScope(shield=True):
                for stream in pair:
                    await trio.aclose_forcefully(stream)

    async def _pump(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        nursery: trio.Nursery,
        is_replies: bool,  # noqa: FBT001
    ) -> None:
        leaving, arriving = trio.open_memory_channel[tuple[float, bytes | bytearray]](float("inf"))
        try:
            async with trio.open_nursery() as delivering:
                delivering.start_soon(self._deliver, arriving, sink)
                async with leaving:
                    async for chunk in source:
                        if not is_replies and self.swallows_replies_to and self.swallows_replies_to in chunk:
                            self._deaf.add(sink)
                            self.has_swallowed.set()
                        if not (is_replies and (self.swallows or source in self._deaf)):
                            leaving.send_nowait((trio.current_time() + self.one_way_seconds, chunk))
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass
        nursery.cancel_scope.cancel()

    async def _deliver(
        self, arriving: trio.MemoryReceiveChannel[tuple[float, bytes | bytearray]], sink: trio.SocketStream
    ) -> None:
        async for at, chunk in arriving:
            if self.one_way_seconds:
                await trio.sleep_until(at)
            await sink.send_all(chunk)


def _started(status: trio.TaskStatus[None]) -> trio.TaskStatus[list[trio.SocketListener]]:
    class WithoutValue:
        def started(self, _value: object = None) -> None:
            status.started()

    return WithoutValue()


@define
class Ground:
    """The test bed: servers, proxies, workers, and the counts so far."""

    folder: Path
    config: Path
    valkey: Valkey
    relay: Catcher
    store: CountingStore
    redis_proxy: Proxy
    relay_proxy: Proxy
    dice: random.Random
    workers: list[subprocess.Popen[bytes]] = field(factory=list)
    stopped: set[int] = field(factory=set)
    accepted: set[str] = field(factory=set)
    maybe: set[str] = field(factory=set)
    faults: Counter[str] = field(factory=Counter)
    recoveries: list[float] = field(factory=list)

    def start_worker(self, place: int) -> None:
        with (self.folder / f"worker{place}.out").open("ab") as out:
            process = subprocess.Popen(
                worker_command(self.config), stdout=out, stderr=out, env=worker_environment(), start_new_session=True
            )
        if place < len(self.workers):
            self.workers[place] = process
        else:
            self.workers.append(process)

    def put_faults(self, text: str) -> None:
        parsed = parse_faults(text)
        if not isinstance(parsed, InjectedFaults):
            raise TypeError(text)
        self.relay.faults = parsed


async def kill_worker(ground: Ground) -> None:
    place = ground.dice.randrange(len(ground.workers))
    if place in ground.stopped:
        return
    ground.workers[place].kill()
    ground.workers[place].wait()
    await trio.sleep(ground.dice.uniform(0, 2))
    ground.start_worker(place)


async def stop_worker(ground: Ground) -> None:
    """Stop a worker for longer than the lease: another worker takes its jobs over, and then it continues with them."""
    place = ground.dice.randrange(len(ground.workers))
    process = ground.workers[place]
    ground.stopped.add(place)
    process.send_signal(signal.SIGSTOP)
    await trio.sleep(ground.dice.uniform(1.2, 2.5) * LEASE_SECONDS)
    process.send_signal(signal.SIGCONT)
    ground.stopped.discard(place)


async def drain_worker(ground: Ground) -> None:
    """Restart a worker as in a roll-out; an impatient operator may send up to three signals."""
    place = ground.dice.randrange(len(ground.workers))
    if place in ground.stopped:
        return
    process = ground.workers[place]
    for _ in range(ground.dice.choice((1, 1, 2, 3))):
        process.send_signal(signal.SIGTERM)
        await trio.sleep(0.05)
    await trio.to_thread.run_sync(process.wait)
    ground.start_worker(place)


async def kill_redis(ground: Ground) -> None:
    ground.valkey.kill()
    await trio.sleep(ground.dice.uniform(0.2, 3))
    await trio.to_thread.run_sync(ground.valkey.start)


async def stop_redis(ground: Ground) -> None:
    ground.valkey.signal(signal.SIGSTOP)
    await trio.sleep(ground.dice.uniform(0.5, 6))
    ground.valkey.signal(signal.SIGCONT)


async def cut_redis(ground: Ground) -> None:
    for _ in range(ground.dice.randrange(1, 20)):
        ground.redis_proxy.cut()
        await trio.sleep(ground.dice.uniform(0, 0.1))


async def swallow_redis_replies(ground: Ground) -> None:
    """Let Redis run commands and drop the replies, then reset the connections."""
    ground.redis_proxy.swallows = True
    await trio.sleep(ground.dice.uniform(0.01, 0.5))
    ground.redis_proxy.cut()
    ground.redis_proxy.swallows = False


async def cut_relay(ground: Ground) -> None:
    for _ in range(ground.dice.randrange(1, 10)):
        ground.relay_proxy.cut()
        await trio.sleep(ground.dice.uniform(0, 0.2))


async def spoil_relay(ground: Ground) -> None:
    ground.put_faults(" ".join(ground.dice.sample(RELAY_FAULTS, 2)))
    await trio.sleep(ground.dice.uniform(1, 5))
    ground.put_faults("")


NEMESIS: tuple[Callable[[Ground], Awaitable[None]], ...] = (
    kill_worker,
    kill_worker,
    stop_worker,
    drain_worker,
    kill_redis,
    stop_redis,
    cut_redis,
    swallow_redis_replies,
    cut_relay,
    spoil_relay,
    spoil_relay,
)


async def torment(ground: Ground, until: float) -> None:
    """Inject faults one after another until the time is over; the last one is ended too."""
    while trio.current_time() < until:
        await trio.sleep(ground.dice.uniform(0, 1.5))
        fault = ground.dice.choice(NEMESIS)
        ground.faults[fault.__name__] += 1
        await fault(ground)
        healed_at = trio.current_time()
        with trio.move_on_after(HEALING_SECONDS):
            # This polls, because other processes make no event to wait for.
            while ground.store.last_at < healed_at and len(ground.store.delivered) < len(ground.accepted):  # noqa: ASYNC110
                await trio.sleep(0.01)
            ground.recoveries.append(trio.current_time() - healed_at)


async def produce(ground: Ground, jobs: int, until: float) -> None:
    """Push jobs evenly over the time; a push without a reply is not repeated, as Redis may have it."""
    began = trio.current_time()
    pushed = 0
    while pushed < jobs:
        share = min(1.0, (trio.current_time() - began) / (until - began))
        batch = range(pushed, max(pushed, int(jobs * share) if share < 1.0 else jobs))
        if batch:
            emails = {email_of(number) for number in batch}
            try:
                await trio.to_thread.run_sync(partial(_push, ground.valkey, batch))
            except RedisError:
                ground.maybe |= emails
            else:
                ground.accepted |= emails
            pushed = batch.stop
        await trio.sleep(0.1)


def _push(valkey: Valkey, batch: range) -> None:
    with valkey.client() as client:
        client.rpush(QUEUE, *(job_of(number) for number in batch))


async def heal(ground: Ground) -> float:
    """End all faults and wait until the queue is empty; return the seconds that this took."""
    ground.put_faults("")
    began = trio.current_time()
    with trio.move_on_after(HEALING_SECONDS), ground.valkey.client() as client:
        while add_up(set(), set(), Counter(), client).left:  # noqa: ASYNC110  as above
            await trio.sleep(0.1)
    return trio.current_time() - began


async def run(options: argparse.Namespace, folder: Path) -> bool:
    dice = random.Random(options.seed)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        valkey = Valkey(folder / "valkey", taken.getsockname()[1])
    valkey.start()
    store = CountingStore()
    processes: list[subprocess.Popen[bytes]] = []
    async with open_catcher(store=store, seed=options.seed) as relay, trio.open_nursery() as nursery:
        ground = Ground(
            folder, folder / "worker.toml", valkey, relay, store, Proxy(valkey.port), Proxy(relay.port), dice, processes
        )
        await nursery.start(ground.redis_proxy.serve)
        await nursery.start(ground.relay_proxy.serve)
        write_config(ground.config, ground.redis_proxy.port, ground.relay_proxy.port, options.depth)
        with ending(processes):
            for place in range(options.workers):
                ground.start_worker(place)
            until = trio.current_time() + 60.0 * options.minutes
            async with trio.open_nursery() as working:
                working.start_soon(produce, ground, options.jobs, until)
                working.start_soon(torment, ground, until)
                working.start_soon(report, ground, until)
            emptied_seconds = await heal(ground)
            codes = await trio.to_thread.run_sync(partial(end_workers, processes))
            with valkey.client() as client:
                sums = add_up(ground.accepted, ground.maybe, store.delivered, client)
        valkey.kill()
        violations = relay.violations
        nursery.cancel_scope.cancel()
    tell(options, ground, sums, emptied_seconds, codes)
    for violation in violations[:5]:
        print(f"violation of SMTP seen by the relay: {violation}")
    return sums.holds and not violations and set(codes) == {0}


def end_workers(processes: list[subprocess.Popen[bytes]]) -> list[int]:
    for process in processes:
        process.terminate()
    return [process.wait(timeout=60) for process in processes]


async def report(ground: Ground, until: float) -> None:
    while trio.current_time() < until:
        left = until - trio.current_time()
        line = f"{left:5.0f} s left, {len(ground.accepted):,} accepted, {len(ground.store.delivered):,} delivered"
        print(f"{line}, {ground.faults.total()} faults", file=sys.stderr, flush=True)
        await trio.sleep(15)


def tell(options: argparse.Namespace, ground: Ground, sums: Sums, emptied: float, codes: list[int]) -> None:
    recoveries = sorted(ground.recoveries) or [0.0]
    print(f"seed         {options.seed}")
    print(f"workers      {options.workers}, depth {options.depth}, lease {LEASE_SECONDS:g} s; they ended with {codes}")
    print(f"faults       {ground.faults.total()}: " + ", ".join(f"{n} {w}" for w, n in sorted(ground.faults.items())))
    print(f"accepted     {sums.accepted:,} (and {len(ground.maybe):,} pushed without an answer)")
    print(f"delivered    {sums.delivered:,}")
    print(f"lost         {sums.lost}")
    print(f"unexpected   {sums.unexpected}")
    print(f"duplicated   {sums.duplicated}")
    print(f"uncertain    {sums.uncertain}")
    print(f"left         {sums.left}")
    print(f"recovered    median {statistics.median(recoveries):.2f} s, longest {recoveries[-1]:.2f} s to the next mail")
    print(f"emptied      {emptied:.1f} s after the last fault")
    print("holds" if sums.holds else "DOES NOT HOLD")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/crash nemesis", description="Random faults against several workers.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--depth", type=int, default=1, help="messages in flight on one connection (1)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--keep", type=Path, help="folder for logs; else they are deleted")
    options = parser.parse_args()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        return int(not trio.run(run, options, options.keep.resolve()))
    with tempfile.TemporaryDirectory(prefix="nemesis-") as folder:
        return int(not trio.run(run, options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
