"""Pure. The average of a gauge over the last minute, such as that of busy consumers; apart because it needs no trio."""

from __future__ import annotations

from collections import deque

from attrs import field

from trio_worker.records import define

# The average is over this time.
LOAD_SECONDS = 60


@define
class Load:
    """The average of a count over the last minute."""

    count: int = 0
    _at: float | None = None
    _sum: float = 0.0  # of count times seconds
    _samples: deque[tuple[float, float]] = field(factory=deque)

    def add(self, now: float, more: int) -> None:
        """Add ``more`` to the count from ``now`` on; ``now`` is a clock in seconds that never goes back."""
        if self._at is not None:
            self._sum += self.count * (now - self._at)
        self.count += more
        self._at = now
        if not self._samples or now - self._samples[-1][0] >= 1:
            self._samples.append((now, self._sum))
            while len(self._samples) > 1 and self._samples[1][0] <= now - LOAD_SECONDS:
                self._samples.popleft()

    def mean(self, now: float) -> float | None:
        """Return the average of the last minute, or since the first note; None before that."""
        if self._at is None:
            return None
        self.add(now, 0)
        began, before = self._samples[0]
        return (self._sum - before) / (now - began) if now > began else None
