"""What commands print as JSON says what it is, under the names of one table, which docs/operations.md has too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import CAUSES, COMMANDS, Ask, bury, help_of, push
from tests.support.jobs import job_bytes
from tests.support.paths import ROOT
from trio_worker.cli.json_documents import Document, with_schema
from trio_worker.telemetry.snapshot_json import SCHEMA

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")
TABLE = dict(re.findall(r"^\| `(trio-worker/[a-z-]+/\d+)` \| (.*) \|$", PAGE, re.MULTILINE))
SAFE = (
    ("status",),
    ("why",),
    ("audit",),
    ("enqueue", "--dry-run", "jobs.ndjson"),
    ("stats", "--last", "5"),
    ("stats", "--count", "1", "--interval", "1"),
    ("queue", "list"),
    ("queue", "peek"),
    ("queue", "age"),
    ("dead", "list"),
    ("dead", "groups"),
    ("dead", "show", "ID"),
    ("job", "show", "ID"),
    ("job", "find", "--type", "Registration"),
    ("dead", "retry", "ID"),
    ("worker", "list"),
    ("config", "show"),
    ("config", "check"),
    ("capture", "ls"),
    ("capture", "chaos"),
    ("capture", "clear"),
    ("mail", "preview", "Registration"),
)


def test_the_page_has_the_table() -> None:
    """Every name, and no other."""
    assert set(TABLE) == set(Document)
    assert Document.SNAPSHOT == SCHEMA


def test_every_command_that_prints_json_is_in_the_table() -> None:
    """Those with --json, and export, which prints nothing else."""
    known = {word for row in TABLE.values() for word in re.findall(r"`([a-z -]+)`", row)}

    for words in COMMANDS:
        if (words[-1] == "export" and words[0] != "queue") or "--json" in help_of(*words):
            assert " ".join(words) in known, words


@pytest.mark.parametrize("words", SAFE, ids=" ".join)
def test_what_is_printed_says_what_it_is(
    words: tuple[str, ...], run: Callable[..., int], ask: Ask, work_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first key of a document, or of each of a list."""
    (job_id, *_) = bury(ask, CAUSES)
    push(ask, job_bytes(1))
    (work_folder / "jobs.ndjson").write_bytes(job_bytes(2))

    assert run(*(job_id if word == "ID" else word for word in words), "--json") in {0, 3}
    printed = json.loads(capsys.readouterr().out)

    documents = printed if isinstance(printed, list) else [printed]
    assert documents
    for document in documents:
        assert next(iter(document)) == "schema"
        assert f"`{' '.join(words[:2] if words[0] in NOUNS else words[:1])}" in TABLE[document["schema"]]


NOUNS = {"queue", "dead", "job", "worker", "config", "capture", "mail"}


def test_a_name_comes_first_and_hides_nothing() -> None:
    """The document follows as it is."""
    assert list(with_schema(Document.STATUS, {"queue": "jobs"}).items()) == [
        ("schema", "trio-worker/status/2"),
        ("queue", "jobs"),
    ]
