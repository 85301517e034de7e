"""Pure. Which connections to do without when the relay says that there are too many of them."""

from __future__ import annotations

import math

from attrs import field

from trio_worker.records import define


@define(eq=False)
class Withdrawals:
    """The connections that are one too many, by their ids, until each is closed; every time is the local clock."""

    _chosen: set[int] = field(factory=set)
    _closed_at: float = -math.inf  # when the last of them was closed
    _left: int = 0  # how many more may be chosen before those that are being closed are gone

    def __contains__(self, connection_id: int) -> bool:
        return connection_id in self._chosen

    def __bool__(self) -> bool:
        return bool(self._chosen)

    def is_news(self, refused_id: int, began: float) -> bool:
        """Whether a refusal says anything new: of a mail that ``began`` after the last of them was closed."""
        return refused_id not in self._chosen and began >= self._closed_at

    def choose(self, refused_id: int, staying: int) -> bool:
        """Choose a connection of the ``staying`` ones, unless enough are being closed; return whether it was chosen."""
        if not self._chosen:
            # Many connections above a small limit go in a few rounds; near the limit one at a time finds it exactly.
            self._left = max(1, staying // 4)
        if self._left <= 0:
            return False
        self._left -= 1
        self._chosen.add(refused_id)
        return True

    def note_closed(self, connection_id: int, now: float) -> None:
        """Note the end of a connection, whether it was chosen or not."""
        if connection_id in self._chosen:
            self._chosen.remove(connection_id)
            self._closed_at = now
