"""The gate in a running worker: which tasks wait, for how long, and what opens it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Accepted, Loss, NotSent, Outcome, Refused, Trouble, Uncertain, Unopened, Unsendable
from trio_worker.smtp.reply import Reply, Stage
from trio_worker.worker.breaker import Closed, HalfOpen, Open
from trio_worker.worker.events import BreakerChanged, Event, RateLimited, RateLimitLifted
from trio_worker.worker.gate import Gate

DOWN = Trouble(FailureKind.CONNECT, Stage.CONNECT, "refused")
GOOD = Accepted(Reply(250, "ok", Stage.FINAL, "2.0.0"))
REFUSED = Refused(Reply(550, "no", Stage.RCPT, "5.1.1"))


def make_gate() -> tuple[Gate, list[Event]]:
    events: list[Event] = []
    return Gate(events.append, dice=lambda: 0.0), events


async def test_claims_wait_until_the_probe_is_due(autojump_clock: trio.testing.MockClock) -> None:
    """After trouble nothing goes for a second, then one mail as a probe."""
    gate, events = make_gate()
    gate.note(Unopened(DOWN))
    began = trio.current_time()
    await gate.wait()

    assert trio.current_time() - began == pytest.approx(1.0)
    assert gate.is_probing
    assert [type(event.breaker) for event in events if isinstance(event, BreakerChanged)] == [Open, HalfOpen]


async def test_a_mail_that_goes_through_opens_the_gate_for_those_who_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A mail that was under way when the trouble came proves that the relay works."""
    gate, _ = make_gate()
    gate.note_opening(Trouble(FailureKind.LOGIN, Stage.AUTH, "535"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gate.wait)
        await trio.testing.wait_all_tasks_blocked()
        gate.note(GOOD)

    assert trio.current_time() < 1.0
    assert gate.breaker == Closed()
    assert gate.troubled_seconds == 0.0


@pytest.mark.parametrize("outcome", [GOOD, REFUSED])
async def test_any_mail_the_relay_answered_for_ends_the_trouble(
    outcome: Outcome, autojump_clock: trio.testing.MockClock
) -> None:
    """A refused mail says as much of the relay as an accepted one."""
    gate, _ = make_gate()
    gate.note(Unopened(DOWN))
    await gate.wait()
    gate.note(outcome)

    assert not gate.is_probing
    assert gate.breaker == Closed()


@pytest.mark.parametrize(
    "outcome",
    [
        Unsendable("too large"),
        Uncertain(Loss(FailureKind.EOF, Stage.FINAL, "", had_delivered=True, mail_accepted=True)),
        NotSent(Loss(FailureKind.CLOSING, Stage.MAIL, "421", had_delivered=True)),
    ],
)
async def test_what_is_no_evidence_changes_nothing(outcome: Outcome, autojump_clock: trio.testing.MockClock) -> None:
    """Neither a mail that does not fit nor a connection that worked before stops claiming."""
    gate, events = make_gate()
    gate.note(outcome)

    assert gate.breaker == Closed()
    assert events == []


async def test_trouble_is_counted_from_its_first_sign(autojump_clock: trio.testing.MockClock) -> None:
    """Probes that fail do not begin it anew: a burst measures its patience by it."""
    gate, _ = make_gate()
    for _ in range(3):
        gate.note(Unopened(DOWN))
        await gate.wait()

    assert gate.troubled_seconds == pytest.approx(1.0 + 2.0 + 4.0)


TOO_FAST = Refused(Reply(454, "Throttling failure: Maximum sending rate exceeded.", Stage.FINAL))
QUOTA = Refused(Reply(550, "Daily user sending limit exceeded", Stage.FINAL, "5.4.5"))


async def test_claims_follow_the_rate_that_the_relay_takes(autojump_clock: trio.testing.MockClock) -> None:
    """A pause of a second, then about as many as were taken before; the breaker stays closed."""
    gate, events = make_gate()
    await gate.wait()
    for _ in range(20):
        gate.note(GOOD)
    gate.note(TOO_FAST)
    gate.note(TOO_FAST)  # was under way
    began, claims = trio.current_time(), []
    for _ in range(39):
        await gate.wait()
        assert gate.limit == 1
        gate.spend(1)
        claims.append(trio.current_time() - began)

    assert gate.breaker == Closed()
    assert claims[0] == pytest.approx(1.0)
    assert claims[-1] == pytest.approx(1.0 + 38 / 23.75, rel=0.02)
    (limited,) = [event for event in events if isinstance(event, RateLimited)]
    assert limited.seconds == pytest.approx(1.0)
    assert limited.per_second == pytest.approx(23.75)


async def test_a_limit_that_is_gone_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    """After three minutes without a refusal claims are free again."""
    gate, events = make_gate()
    gate.note(TOO_FAST)
    await trio.sleep(190)
    await gate.wait()

    assert gate.pace is None
    assert gate.limit > 1000
    assert events[-1] == RateLimitLifted()


async def test_a_quota_is_probed_once_an_hour(autojump_clock: trio.testing.MockClock) -> None:
    """By one mail; it ends with the first one that is taken, not with an address that is refused for itself."""
    gate, _ = make_gate()
    gate.note(GOOD)
    began, probes = trio.current_time(), []
    for number in range(4):
        gate.note(QUOTA, f"job {number}")
        await gate.wait()
        probes.append(trio.current_time() - began)
    assert probes == [3600, 7200, 10800, 14400]
    assert gate.trouble is not None
    assert gate.trouble.how is FailureKind.STANDING

    gate.note(REFUSED)
    assert gate.is_probing
    gate.note(GOOD)
    assert gate.breaker == Closed()


async def test_the_guard_opens_the_breaker(autojump_clock: trio.testing.MockClock) -> None:
    """For a minute, then twice that; a mail that is taken ends it."""
    events: list[Event] = []
    gate = Gate(events.append, guard=3, dice=lambda: 0.0)
    for number in range(3):
        gate.note(Refused(Reply(554, f"number {number} is not welcome", Stage.FINAL)), f"job {number}")
    began = trio.current_time()
    assert isinstance(gate.breaker, Open)
    assert gate.breaker.trouble.how is FailureKind.GUARD
    await gate.wait()
    assert trio.current_time() - began == pytest.approx(60)
    gate.note(GOOD)
    assert not gate.is_probing
