"""``audit`` as a person types it, on a real Valkey."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.commands import Ask, push
from tests.support.jobs import job_bytes
from trio_worker.queue.keys import keys_of


def test_the_keys_of_an_audit_stay(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts read them: a field of ours may get another name, a key of the schema may not."""
    push(ask, job_bytes(1))
    ask(lambda client: client.command("ZADD", keys_of("jobs").dead, 1, "planted"))
    assert run("audit", "--deep", "--json") == 5
    document = json.loads(capsys.readouterr().out)

    assert sorted(document) == ["balances", "counts", "deep", "schema", "strays"]
    assert document["strays"] == [{"job_id": "planted", "what": "without its bytes, without a lease entry"}]
    assert sorted(document["counts"]) == sorted(
        [
            *("at", "bodies", "dead", "deaths", "delayed", "delays", "due", "held", "holds", "leased", "leases"),
            *("next_due_at", "pause_seconds_left", "paused", "popped", "records", "run_out", "sent", "tallies"),
            *("uncertain", "waiting"),
        ]
    )
    assert sorted(document["counts"]["tallies"]) == ["acts", "drain_seconds", "drains", "removed"]
