"""Pure. Filters for dead and held jobs, and groups of jobs with the same cause."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import evolve, field

from trio_worker.queue.record import ShelvedJob
from trio_worker.records import define, frozen


@frozen
class Selection:
    """A filter for jobs; a field that is None or empty matches all. Times are epoch seconds, both ends included.

    ``code`` is a prefix: 5 matches all 5xx, 550 all replies with 550, "550 5.1.1" that one.
    """

    code: str = ""
    word: str = ""
    email_type: str = ""
    text: str = ""
    since: float | None = None
    until: float | None = None

    @property
    def is_everything(self) -> bool:
        return self == Selection()

    def takes(self, job: ShelvedJob) -> bool:
        """Whether the job matches."""
        cause = job.cause
        return (
            cause.codes.startswith(self.code)
            and self.word in ("", cause.word)
            and self.email_type in ("", job.record.email_type)
            and self.text.casefold() in cause.text.casefold()
            and (self.since is None or job.at >= self.since)
            and (self.until is None or job.at <= self.until)
        )

    def __str__(self) -> str:
        named = {"code": self.code, "cause": self.word, "type": self.email_type, "match": self.text}
        return ", ".join(f"{name} {value}" for name, value in named.items() if value) or "all"


@frozen
class Group:
    """Jobs of one cause and one email type: their number, the first and the last time, and the newest job's id."""

    codes: str
    word: str
    email_type: str
    count: int
    first_at: float
    last_at: float
    example: str


@define
class Grouping:
    """Groups jobs, which are added page by page."""

    _groups: dict[tuple[str, str, str], Group] = field(factory=dict)

    def add(self, jobs: Iterable[ShelvedJob]) -> None:
        """Add jobs; of each group only the count, two times and one id are kept."""
        for job in jobs:
            key = (job.cause.codes, job.cause.word, job.record.email_type)
            known = self._groups.get(key)
            if known is None:
                self._groups[key] = Group(*key, 1, job.at, job.at, job.job_id)
                continue
            is_newest = job.at > known.last_at
            self._groups[key] = evolve(
                known,
                count=known.count + 1,
                first_at=min(known.first_at, job.at),
                last_at=max(known.last_at, job.at),
                example=job.job_id if is_newest else known.example,
            )

    @property
    def groups(self) -> list[Group]:
        """The groups, the largest first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.codes, group.word))
