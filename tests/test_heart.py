"""The heart by itself: one mail over a fake transport, while Redis takes its time."""

from __future__ import annotations

from typing import Any, cast

import pytest
import trio
import trio.testing
from attrs import define, field, frozen
from fake_relay import FakeTransport, opened_on

from trio_worker.age import PushHistory
from trio_worker.broker import Claim, QueueOptions, Settlement
from trio_worker.connection import Connection
from trio_worker.events import Source
from trio_worker.gate import Gate
from trio_worker.hands import Hands
from trio_worker.heart import Heart, Parcel, Told
from trio_worker.mail import MailOptions
from trio_worker.opening import Opened, Timeouts
from trio_worker.pool import RESTED_SECONDS, PoolOptions, open_pool
from trio_worker.record import Record
from trio_worker.smtp import Envelope
from trio_worker.verdict import DONE, RetryPolicy, Verdict

RECORD = Record(1.0, "Registration")
CLAIM = Claim("job1", b"", RECORD, "run.1", Source.FRESH, 1, 0.0, 0.0)
MAIL = Envelope("us@example.com", ("a@example.org",), b"x\r\n")


@frozen
class SlowBroker:
    """Confirms that a job is ours, after a while."""

    seconds: float
    options: QueueOptions = field(factory=QueueOptions)

    async def confirm(self, *_: object, **__: object) -> bool:
        await trio.sleep(self.seconds)
        return True


@define
class Verdicts:
    """Stands for the settler."""

    found: list[Verdict] = field(factory=list)
    can_keep: bool = True

    def settle_nowait(self, settlement: Settlement, _tell: object) -> None:
        self.found.append(settlement.verdict)


@frozen
class Written:
    """Stands for a composed mail."""

    sender: str = MAIL.sender
    needs_smtputf8: bool = False

    def content(self, **_: object) -> bytes:
        return MAIL.content


@pytest.mark.parametrize("rested_seconds", [1.0, RESTED_SECONDS + 1])
async def test_a_connection_that_rests_while_redis_is_asked_may_have_died(
    autojump_clock: trio.testing.MockClock, rested_seconds: float
) -> None:
    """Then the content waits for the replies to RCPT, so that a loss before them proves that nothing was accepted."""
    transport, settler, hands = FakeTransport(), Verdicts(), Hands(1)

    async def open_fake() -> Opened:
        return opened_on(transport)

    async with open_pool(PoolOptions(max_size=1, min_idle=0), Timeouts(), open_fake, lambda _: None) as pool:
        async with pool.borrow() as lane:
            assert isinstance(lane, Connection)
            await lane.deliver(MAIL)
        del transport.written[:]
        heart = Heart(
            types={},
            composer=cast("Any", None),
            mail_options=MailOptions(),
            retry=RetryPolicy(),
            only_to="",
            broker=cast("Any", SlowBroker(rested_seconds)),
            hands=hands,
            settler=cast("Any", settler),
            gate=Gate(lambda _: None),
            pool=pool,
            history=PushHistory(),
            publish=lambda _: None,
        )
        hands.take(CLAIM)
        hands.held(CLAIM).is_lost = True  # so that Redis has to be asked
        await heart.see_off(Parcel(CLAIM, Told(RECORD), cast("Any", Written()), MAIL.recipients, "retry", 0.0))
        await trio.sleep(3)

    assert settler.found == [DONE]
    is_cautious = b"BDAT" not in transport.written[0]
    assert is_cautious == (rested_seconds > RESTED_SECONDS)
