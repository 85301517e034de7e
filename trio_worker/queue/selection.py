"""Pure. Which jobs of a shelf somebody means, and which of them died of the same cause."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, evolve, field, frozen

from trio_worker.queue.record import ShelvedJob


@frozen
class Selection:
    """What a job must be like; what is None or empty lets all through. Times are epoch seconds, ends included.

    ``code`` is compared from its first digit on: 5 means all 5xx, 550 all of 550, "550 5.1.1" that one.
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
        """Whether the job is meant."""
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
        words = [f"{name} {value}" for name, value in named.items() if value]
        return ", ".join(words) or "all"


@frozen
class Group:
    """Jobs of one cause and one email type; times of the first and the last, and the newest one as an example."""

    codes: str
    word: str
    email_type: str
    count: int
    first_at: float
    last_at: float
    example: str


@define
class Grouping:
    """Jobs come in page by page, groups go out."""

    _groups: dict[tuple[str, str, str], Group] = field(factory=dict)

    def add(self, jobs: Iterable[ShelvedJob]) -> None:
        """Add jobs; only counts and one id of each group are kept."""
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
