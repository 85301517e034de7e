"""Pure. How long a job has waited when its producer did not say: dated by how many were pushed by when."""

from __future__ import annotations

from bisect import bisect_left

from attrs import define, field

# One sample a second for an hour; older pushes are then dated by the oldest sample kept, so their age is a lower bound.
SAMPLE_SECONDS = 1.0
SAMPLES_KEPT = 3600


@define
class PushHistory:
    """Samples of how many jobs had been pushed in all (taken from the list, plus waiting in it) at which time.

    The n-th job pushed was there when a sample first counted n. Without a sample from before it, nothing dates it.
    """

    _times: list[float] = field(factory=list)
    _totals: list[int] = field(factory=list)

    def note(self, at: float, pushed: int) -> None:
        """Add a sample; ``at`` in epoch seconds of Redis' clock."""
        if self._totals and pushed < self._totals[-1]:
            # The list was deleted or jobs were put back: earlier counts mean nothing now.
            self._times.clear()
            self._totals.clear()
        if self._totals and pushed == self._totals[-1]:
            return
        if len(self._times) > 1 and at - self._times[-2] < SAMPLE_SECONDS:
            self._times[-1], self._totals[-1] = at, pushed
        else:
            self._times.append(at)
            self._totals.append(pushed)
        if len(self._times) > SAMPLES_KEPT:
            del self._times[0], self._totals[0]

    def pushed_at(self, place: int) -> float | None:
        """Return when the job at ``place`` (1 is the first ever pushed) was there at the latest, or None."""
        at = bisect_left(self._totals, place)
        if at == 0 or at == len(self._totals):
            return None
        return self._times[at]
