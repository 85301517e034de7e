"""Pure. How many mails may be in flight on each connection: the depth of the options, or one for a while."""

from __future__ import annotations

from trio_worker.records import define
from trio_worker.smtp.events import DepthLimited, DepthRestored, OneAtATime, PublishConnectionEvent
from trio_worker.smtp.failure_kind import FailureKind
from trio_worker.smtp.outcome import Loss

# How long a relay that drops what is written ahead of its answer gets one mail at a time. Each further try costs a mail
# on each connection a detour, of `connection.AHEAD_SECONDS` if the relay drops it without a word.
ONE_AT_A_TIME_SECONDS = 3600.0
# The same for a relay that broke a connection with several mails in flight and left some in doubt, doubling each time:
# it may have been restarted, or may be one that several mails break (Dovecot 2.3), or that ends after many refusals.
AFTER_BREAK_SECONDS = 300.0


@define(eq=False)
class Depth:
    """The pipeline depth of one pool's connections; every ``now`` is the local clock."""

    wanted: int  # that of the options
    publish: PublishConnectionEvent
    one_at_a_time: OneAtATime | None = None  # why it is 1 for now; None while it is as wanted
    _breaks: int = 0  # connections that broke with several mails in flight

    @property
    def current(self) -> int:
        return self.wanted if self.one_at_a_time is None else 1

    def limit(self, loss: Loss, now: float) -> None:
        """Allow one mail at a time for a while: what was behind it was lost with it."""
        if self.current == 1:
            return
        seconds = ONE_AT_A_TIME_SECONDS
        if loss.how is not FailureKind.AHEAD:
            seconds = min(seconds, AFTER_BREAK_SECONDS * 2.0 ** min(self._breaks, 10))
            self._breaks += 1
        self.one_at_a_time = OneAtATime(loss, now + seconds)
        self.publish(DepthLimited(loss, seconds))

    def restore_if_due(self, now: float) -> None:
        """End a limit whose time is over."""
        if self.one_at_a_time is not None and now >= self.one_at_a_time.until:
            self._restore()

    def change(self, wanted: int) -> None:
        """Use another depth from now on; what the relay did is forgotten, since the settings are another attempt."""
        self.wanted, self._breaks = wanted, 0
        self._restore()

    def _restore(self) -> None:
        if self.one_at_a_time is not None:
            self.one_at_a_time = None
            self.publish(DepthRestored(self.wanted))
