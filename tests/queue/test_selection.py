"""Dead letters and held jobs chosen, and grouped, by their cause."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trio_worker.queue.record import Cause, Record, ShelvedJob
from trio_worker.queue.selection import Grouping, Selection

shelved = st.builds(
    ShelvedJob,
    job_id=st.uuids().map(str),
    at=st.floats(0, 1e9),
    record=st.builds(Record, born=st.just(0.0), email_type=st.sampled_from(["Registration", "Message"])),
    cause=st.builds(Cause, st.sampled_from(["refused", "malformed"]), st.sampled_from(["550 5.1.1", "554 5.7.1", ""])),
    body=st.just(b""),
    body_bytes=st.just(9),
)


@given(st.lists(shelved, max_size=30), st.integers(1, 7))
def test_groups_count_every_job_once(jobs: list[ShelvedJob], page: int) -> None:
    """With any pages, each job is in one group, and the newest one is its example."""
    grouping = Grouping()
    for start in range(0, len(jobs), page):
        grouping.add(jobs[start : start + page])

    assert sum(group.count for group in grouping.groups) == len(jobs)
    for group in grouping.groups:
        alike = [
            job
            for job in jobs
            if (job.cause.codes, job.cause.word, job.record.email_type) == (group.codes, group.word, group.email_type)
        ]
        assert group.count == len(alike)
        assert (group.first_at, group.last_at) == (min(job.at for job in alike), max(job.at for job in alike))
        assert group.example in {job.job_id for job in alike if job.at == group.last_at}


@given(st.lists(shelved, max_size=20), st.sampled_from(["", "5", "55", "550", "550 5.1.1", "4"]), st.floats(0, 1e9))
def test_selection_takes_what_it_says(jobs: list[ShelvedJob], code: str, since: float) -> None:
    """A code is taken from its first digit on, a time with its end."""
    taken = [job for job in jobs if Selection(code=code, since=since).takes(job)]

    assert taken == [job for job in jobs if job.cause.codes.startswith(code) and job.at >= since]
    assert all(Selection().takes(job) for job in jobs)
