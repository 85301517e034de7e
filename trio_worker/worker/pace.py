"""Pure. How fast to send to a relay that has said that we send too fast: the highest rate without refusals, learned.

After a refusal nothing is claimed for the time that the relay names, or for a second; then mails go a little slower
than before. The rate rises as CUBIC's window does (RFC 9438): back to the rate of the refusal in half a minute, slowly
past it, then ever faster, so a limit that was lifted is found within three minutes.
"""

from __future__ import annotations

from attrs import evolve

from trio_worker.records import frozen
from trio_worker.smtp.outcome import Trouble

# The pause after a refusal that names no time; it doubles while no mail is taken in between.
FIRST_PAUSE_SECONDS = 1.0
DOUBLED_PAUSE_CAP_SECONDS = 60.0
# The longest pause that a relay can ask for: no limit on a rate is counted over more than an hour.
MAX_PAUSE_SECONDS = 3600.0
# After a refusal the rate is this part of the one that was refused, and the same again this much later.
SLOWED_SHARE = 0.95
RECOVERY_SECONDS = 30.0
# The first refusal comes before the last acceptances are known, so what was taken until then is too little.
FIRST_GUESS = 1.25
# The rate of accepted mails is measured over a second. A refusal before that says that the rate was guessed too high;
# and where few mails were due, what was accepted says little.
MEASURED_SECONDS = 1.0
EARLY_SHARE = 0.85
LEAST_SHARE = 0.5
# By then the rate is seven times the refused one: there is no such limit any more.
FORGOTTEN_SECONDS = 180.0
MIN_PER_SECOND = 1 / 60


@frozen
class RelayPace:
    """The limit on the rate of mails to a relay; times are of the local clock, in seconds.

    ``refused_per_second`` is the rate at which the relay refused last, ``since`` when mails go again after that.
    ``accepted`` counts mails accepted until then, ``failures`` refusals in a row with no mail accepted in between.
    """

    trouble: Trouble
    refused_per_second: float
    since: float
    accepted: int
    failures: int = 0

    def per_second(self, now: float) -> float:
        """Return the rate that is allowed at ``now``."""
        growth = ((max(0.0, now - self.since) - RECOVERY_SECONDS) / RECOVERY_SECONDS) ** 3
        return max(MIN_PER_SECOND, self.refused_per_second * (1 + (1 - SLOWED_SHARE) * growth))


def slowed(pace: RelayPace | None, trouble: Trouble, now: float, sent_per_second: float, accepted: int) -> RelayPace:
    """Return the pace after a refusal of a mail that was sent at the present rate.

    ``sent_per_second`` is the rate of mails accepted in the last `MEASURED_SECONDS`, ``accepted`` their number since
    the start. While a pause lasts, refusals of mails that were under way are no new evidence.
    """
    pause = FIRST_PAUSE_SECONDS if trouble.again_seconds is None else min(trouble.again_seconds, MAX_PAUSE_SECONDS)
    if pace is None:
        return RelayPace(trouble, max(MIN_PER_SECOND, FIRST_GUESS * sent_per_second), now + pause, accepted)
    if now < pace.since:
        return pace
    rate = pace.per_second(now)
    if accepted == pace.accepted:
        failures = pace.failures + 1
        pause = max(pause, min(DOUBLED_PAUSE_CAP_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 10)))
        return RelayPace(trouble, max(MIN_PER_SECOND, rate / 2), now + pause, accepted, failures)
    if now - pace.since < MEASURED_SECONDS:
        return RelayPace(trouble, max(MIN_PER_SECOND, rate * EARLY_SHARE), now + pause, accepted)
    # Nearly what was taken when the relay refused; never more than was tried.
    taken = min(rate, max(sent_per_second, rate * LEAST_SHARE))
    return RelayPace(trouble, max(MIN_PER_SECOND, taken), now + pause, accepted)


def is_forgotten(pace: RelayPace, now: float) -> bool:
    """Whether the relay has refused no mail for its rate for so long that there is no limit to keep."""
    return now - pace.since > FORGOTTEN_SECONDS


@frozen
class Credit:
    """Mails that may be sent now, as of ``at``: it grows with the pace, and little of it can be saved up."""

    mails: float
    at: float

    def grown(self, pace: RelayPace, now: float) -> Credit:
        """Return the credit at ``now``: at most a twentieth of a second's mails, but one."""
        per_second = pace.per_second(now)
        earned = per_second * max(0.0, now - max(self.at, pace.since))
        return Credit(min(max(1.0, per_second / 20), self.mails + earned), now)

    def spent(self, mails: int) -> Credit:
        """Return the credit after ``mails`` were claimed."""
        return evolve(self, mails=self.mails - mails)
