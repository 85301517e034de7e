"""The queue's scripts against a plain model of them, on a real Valkey: any order of operations, an audit after each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import outcome
import pytest
import trio
from attrs import define, field
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from trio_worker.bridge import open_bridge
from trio_worker.queue.audit import Stray, find_strays
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claim, Claims, Source
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.dead_letters import (
    RetryBatch,
    Shelf,
    WaitingJob,
    cancel,
    drop,
    find_job,
    find_shelved,
    retry_shelved,
)
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Cause
from trio_worker.queue.settlement import Bury, Delay, Done, Hold, Release, Settlement, SettleResult, Verdict
from trio_worker.redis.calls import Unavailable
from trio_worker.redis.client import RedisClient, open_redis_client
from trio_worker.redis.options import RedisOptions

T = TypeVar("T")
MAX_DELIVERIES = 4
SUSPECT_AT = 2
MAX_BYTES = 50
CAUSE = Cause("tested")


@define(eq=False)
class Portal:
    """The asyncio bridge and a client of the real server in a thread, for a machine that knows no async."""

    url: str
    client: RedisClient = field(init=False)
    _calls: queue.SimpleQueue[Callable[[], Awaitable[Any]] | None] = field(factory=queue.SimpleQueue)
    _answers: queue.SimpleQueue[outcome.Maybe[Any]] = field(factory=queue.SimpleQueue)
    _thread: threading.Thread = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._thread = threading.Thread(target=trio.run, args=(self._main,))
        self._thread.start()
        self._answers.get().unwrap()

    def run(self, function: Callable[..., Awaitable[T | Unavailable]], *args: Any) -> T:
        """Await a function in the thread; what is unavailable fails the test."""
        self._calls.put(partial(function, *args))
        answer: T | Unavailable = self._answers.get().unwrap()
        assert not isinstance(answer, Unavailable), answer
        return answer

    def close(self) -> None:
        self._calls.put(None)
        self._thread.join()

    async def _main(self) -> None:
        async with open_bridge(print), open_redis_client(RedisOptions(url=self.url), 5.0) as self.client:
            self._answers.put(outcome.Value(None))
            while (call := await trio.to_thread.run_sync(self._calls.get)) is not None:
                self._answers.put(await outcome.acapture(call))


@define
class Known:
    """What the model knows of one job; ``order`` is its place among those whose time has come, 0 before that."""

    body: bytes
    state: str
    token: str = ""
    deliveries: int = 0
    is_started: bool = False
    is_settled: bool = False
    order: int = 0


@define
class Given:
    """What one claim must return: known jobs, then bytes of new ones, in this order; and its other figures."""

    known: list[tuple[str, Source]] = field(factory=list)
    fresh: list[bytes] = field(factory=list)
    suspects: int = 0

    def __len__(self) -> int:
        return len(self.known) + len(self.fresh)


@define
class Model:
    """The queue as its documentation describes it, with lists and dictionaries."""

    jobs: dict[str, Known] = field(factory=dict)
    waiting: list[bytes] = field(factory=list)
    too_large: list[bytes] = field(factory=list)  # dead by now, under ids that are not known yet
    popped: int = 0
    uncertain: int = 0
    sent: int = 0
    paused: str = ""
    turns: int = 0  # of due jobs and new ones at an odd place

    def names(self, state: str) -> list[str]:
        return [job_id for job_id, job in self.jobs.items() if job.state == state]

    def come(self, state: str) -> list[str]:
        """Jobs of a state whose time has come, the earliest first."""
        return sorted((name for name in self.names(state) if self.jobs[name].order), key=lambda n: self.jobs[n].order)

    def later(self, state: str) -> list[str]:
        """Jobs of a state whose time has not come."""
        return [name for name in self.names(state) if not self.jobs[name].order]

    @property
    def has_claimable(self) -> bool:
        return bool(self.waiting or self.come("leased") or self.come("delayed"))

    def claim(self, limit: int, *, is_idle: bool) -> Given:
        given = Given()
        if self.paused:
            return given
        for name in self.come("leased")[:limit]:
            job = self.jobs[name]
            is_suspect = SUSPECT_AT <= job.deliveries < MAX_DELIVERIES and not job.is_started
            if is_suspect and (given.known or not is_idle):
                given.suspects += 1
                continue
            self.uncertain += 1
            if self._is_set_aside(job):
                continue
            given.known.append((name, Source.RECOVERED))
            if is_suspect:
                given.suspects = 1
                return given
        if given.suspects:
            return given
        due, room = self.come("delayed"), limit - len(given)
        given.known += [(name, Source.DUE) for name in due[: self._share_of_due(due, room)]]
        taken = 0
        while len(given) < limit and taken < 2 * limit and self.waiting:
            body = self.waiting.pop(0)
            taken += 1
            (given.fresh if len(body) <= MAX_BYTES else self.too_large).append(body)
        self.popped += taken
        return given

    def _share_of_due(self, due: list[str], room: int) -> int:
        """Half of the places while jobs wait as well; the odd one in turns; all that the list cannot fill."""
        if not due or not self.waiting or not room:
            return room
        self.turns += room % 2
        return max(room // 2 + (room % 2 and self.turns % 2), room - len(self.waiting))

    def _is_set_aside(self, job: Known) -> bool:
        """Whether an expired lease is the last one: held if the mail may be sent, dead if it crashed too often."""
        if job.is_started:
            job.state = "held"
        elif job.deliveries >= MAX_DELIVERIES:
            job.state = "dead"
        else:
            return False
        job.token, job.order = "", 0
        return True

    def settle(self, name: str, token: str, what: str) -> SettleResult:
        job = self.jobs.get(name)
        if job is None:
            return SettleResult.GONE
        if job.token != token:
            return SettleResult.FENCED
        if job.is_settled:
            return SettleResult.REPEATED
        self.sent += what == "done"
        if what == "done":
            del self.jobs[name]
        else:
            job.state = {"delay": "delayed", "release": "delayed", "hold": "held", "bury": "dead"}[what]
            job.deliveries, job.order, job.is_settled, job.is_started = 0, 0, True, False
        return SettleResult.SETTLED


class QueueMachine(RuleBasedStateMachine):
    """Producers, workers, operators and the clock, in any order; after each step the audit."""

    portal: Portal
    claims: Bundle[Claim] = Bundle("claims")

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.moments = 0
        self.do("FLUSHALL")
        options = QueueOptions(lease_seconds=3600, max_deliveries=MAX_DELIVERIES, max_job_bytes=MAX_BYTES)
        self.brokers = [Broker(self.portal.client, options) for _ in range(2)]

    def do(self, *words: Any) -> Any:
        return self.portal.run(self.portal.client.command, *words)

    @rule(bodies=st.lists(st.binary(max_size=MAX_BYTES + 10), min_size=1, max_size=4))
    def push(self, bodies: list[bytes]) -> None:
        """A producer pushes any bytes."""
        self.do("RPUSH", "jobs", *bodies)
        self.model.waiting += bodies

    @precondition(lambda self: self.model.has_claimable)
    @rule(target=claims, worker=st.integers(0, 1), limit=st.integers(1, 4), is_idle=st.booleans())
    def claim_some(self, worker: int, limit: int, is_idle: bool) -> Any:  # noqa: FBT001  passed by name
        """A worker claims."""
        return self.claim(worker, limit, is_idle=is_idle)

    def claim(self, worker: int, limit: int, *, is_idle: bool) -> Any:
        """The jobs that a claim returns, their order, their sources, and its other figures."""
        expected = self.model.claim(limit, is_idle=is_idle)
        found = self.portal.run(partial(self.brokers[worker].claim, limit, is_idle=is_idle))
        assert isinstance(found, Claims)
        assert found.paused == self.model.paused
        assert found.suspects == expected.suspects
        known, fresh = found.jobs[: len(expected.known)], found.jobs[len(expected.known) :]
        assert [(job.job_id, job.source) for job in known] == expected.known
        assert [job.body for job in fresh] == expected.fresh
        for job in found.jobs:
            of_model = self.model.jobs.setdefault(job.job_id, Known(job.body, "leased"))
            of_model.state, of_model.token, of_model.order, of_model.is_settled = "leased", job.token, 0, False
            of_model.is_started = False
            of_model.deliveries += 1
            assert (job.body, job.deliveries) == (of_model.body, of_model.deliveries)
        self._learn_too_large()
        return multiple(*found.jobs)

    def _learn_too_large(self) -> None:
        for name in map(bytes.decode, self.do("ZRANGE", "{jobs}:dead", 0, -1) if self.model.too_large else ()):
            if name not in self.model.jobs:
                body = self.do("HGET", "{jobs}:body", name)
                self.model.too_large.remove(body)
                self.model.jobs[name] = Known(body, "dead")
        assert self.model.too_large == []

    @rule(claim=claims, what=st.sampled_from(["done", "delay", "release", "hold", "bury"]))
    def settle(self, claim: Claim, what: str) -> None:
        """Any claim that was ever made is settled, late and repeatedly too."""
        verdicts: dict[str, Verdict] = {
            "done": Done(),
            "delay": Delay(3600.0, claim.record, CAUSE),
            "release": Release(claim.record, CAUSE),
            "hold": Hold(claim.record, CAUSE),
            "bury": Bury(claim.record, CAUSE),
        }
        answers = self.portal.run(self.brokers[0].settle, [Settlement(claim, verdicts[what]).stored])
        expected = self.model.settle(claim.job_id, claim.token, what)
        assert answers == [expected]
        if what == "release" and expected is SettleResult.SETTLED:
            self._let_come("delayed", claim.job_id)

    @rule(claim=claims, marks_started=st.booleans())
    def confirm(self, claim: Claim, marks_started: bool) -> None:  # noqa: FBT001  passed by name
        """A worker asks whether the job is still its own; a lease that ran out unseen lives again."""
        is_ours = not self.portal.run(partial(self.brokers[0].confirm, [claim], marks_started=marks_started))
        job = self.model.jobs.get(claim.job_id)
        assert is_ours == (job is not None and job.state == "leased" and job.token == claim.token)
        if is_ours and job is not None:
            job.order = 0
            job.is_started = job.is_started or marks_started

    @precondition(lambda self: self.model.later("leased"))
    @rule(target=claims, place=st.integers(0, 9), worker=st.integers(0, 1), is_taken_over=st.booleans())
    def lose_a_worker(self, place: int, worker: int, is_taken_over: bool) -> Any:  # noqa: FBT001  passed by name
        """A lease runs out; often another worker is there at once."""
        names = self.model.later("leased")
        self._let_come("leased", names[place % len(names)])
        return self.claim(worker, 4, is_idle=True) if is_taken_over else multiple()

    @precondition(lambda self: self.model.later("delayed"))
    @rule(place=st.integers(0, 9))
    def let_time_pass(self, place: int) -> None:
        """A delayed job falls due."""
        names = self.model.later("delayed")
        self._let_come("delayed", names[place % len(names)])

    def _let_come(self, state: str, name: str) -> None:
        """Give a job a time in the past, later than that of any other: jobs with equal times would be ordered by id."""
        self.moments += 1
        assert self.do("ZADD", f"{{jobs}}:{state}", "XX", "CH", self.moments, name) == 1
        self.model.jobs[name].order = self.moments

    @precondition(lambda self: self.model.names("dead") or self.model.names("held"))
    @rule(place=st.integers(0, 9), is_dropped=st.booleans())
    def take_from_a_shelf(self, place: int, is_dropped: bool) -> None:  # noqa: FBT001  passed by name
        """An operator retries or drops a dead or held job."""
        shelf: Shelf = "dead" if self.model.names("dead") else "held"
        names = self.model.names(shelf)
        name = names[place % len(names)]
        client = self.portal.client
        if is_dropped:
            assert self.portal.run(drop, client, "jobs", shelf, [name]) == frozenset({name})
            del self.model.jobs[name]
        else:
            found = self.portal.run(partial(find_shelved, with_bodies=True), client, "jobs", shelf, [name])
            assert isinstance(found, list)
            assert [job.body for job in found] == [self.model.jobs[name].body]
            batch = self.portal.run(retry_shelved, client, "jobs", shelf, [name], 1.0)
            assert isinstance(batch, RetryBatch)
            assert batch.job_ids == frozenset({name})
            self.model.jobs[name] = Known(self.model.jobs[name].body, "delayed", is_settled=True)
            self._let_come("delayed", name)

    @precondition(lambda self: self.model.names("delayed") or self.model.waiting)
    @rule(place=st.integers(0, 9), is_waiting=st.booleans())
    def cancel(self, place: int, is_waiting: bool) -> None:  # noqa: FBT001  passed by name
        """An operator cancels a job that no worker has claimed; of equal ones in the list the first."""
        client, waiting, names = self.portal.client, self.model.waiting, self.model.names("delayed")
        if waiting and (is_waiting or not names):
            body = waiting[place % len(waiting)]
            (name,) = self.portal.run(cancel, client, "jobs", [], [WaitingJob(body, "Registration")], "ann", 1.0)
            waiting.remove(body)
            self.model.popped += 1
            self.model.jobs[name] = Known(body, "dead", is_settled=True)
        else:
            name = names[place % len(names)]
            found = self.portal.run(find_job, client, "jobs", name)
            assert found is not None
            assert self.portal.run(cancel, client, "jobs", [found[1]], [], "ann", 1.0) == frozenset({name})
            self.model.jobs[name] = Known(self.model.jobs[name].body, "dead", is_settled=True)

    @precondition(lambda self: self.model.names("leased") or self.model.names("dead"))
    @rule(place=st.integers(0, 9))
    def cancel_too_late(self, place: int) -> None:
        """What a worker has, or what is dead, is not cancelled."""
        names = self.model.names("leased") + self.model.names("dead")
        name = names[place % len(names)]
        found = self.portal.run(find_job, self.portal.client, "jobs", name)
        assert found is not None
        gone = WaitingJob(b"never pushed" * 9, "")
        assert self.portal.run(cancel, self.portal.client, "jobs", [found[1]], [gone], "ann", 1.0) == frozenset()

    @precondition(lambda self: self.model.has_claimable)
    @rule()
    def claim_while_paused(self) -> None:
        """A pause gives nothing and changes nothing."""
        self.model.paused = "maintenance"
        self.do("SET", "{jobs}:pause", self.model.paused)
        self.claim(0, 4, is_idle=True)
        self.do("DEL", "{jobs}:pause")
        self.model.paused = ""

    def teardown(self) -> None:
        """Every id is in one state with its bytes."""
        assert self.portal.run(_strays, self.portal.client) == []

    @invariant()
    def the_counts_are_the_models(self) -> None:
        """Nothing was lost on the way, and nothing came twice."""
        counted = self.portal.run(count_jobs, self.portal.client, "jobs")
        assert isinstance(counted, Counts)
        assert counted.balances
        model = self.model
        states = ("leased", "delayed", "held", "dead")
        assert [getattr(counted, state) for state in states] == [len(model.names(state)) for state in states]
        assert (counted.waiting, counted.popped) == (len(model.waiting), model.popped)
        assert (counted.sent, counted.uncertain) == (model.sent, model.uncertain)


async def _strays(client: RedisClient) -> list[Stray | Unavailable]:
    return [stray async for stray in find_strays(client, "jobs")]


@pytest.fixture
def portal(valkey_url: str) -> Iterator[Portal]:
    """A way from synchronous code to the real server."""
    opened = Portal(valkey_url)
    yield opened
    opened.close()


def _check(portal: Portal, examples: int, steps: int) -> None:
    machine = type("BoundQueueMachine", (QueueMachine,), {"portal": portal})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_the_scripts_do_what_the_model_says(portal: Portal) -> None:
    """Some dozens of histories."""
    _check(portal, 60, 40)


@pytest.mark.slow
def test_the_scripts_do_what_the_model_says_for_long(portal: Portal) -> None:
    """Many more, and longer ones."""
    _check(portal, 600, 80)
