"""``job``: found by whom it is for, sent now, cancelled."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.support.commands import CAUSES, SECRET, Ask, bury, counts, push
from tests.support.jobs import job_bytes
from trio_worker.mail.message_id import derived_mail_id
from trio_worker.queue.keys import keys_of
from trio_worker.queue.options import HistoryOptions
from trio_worker.queue.receipt import ReceiptWriter


def test_job_is_found_by_whom_it_is_for_and_nobody_is_named(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address is compared in memory; ids of producers and Message-IDs find their jobs as well."""
    ids = bury(ask, CAUSES)
    push(ask, job_bytes(9, id="order-9"))
    assert run("job", "find", "--to", SECRET.upper()) == 0
    told = capsys.readouterr()
    assert all(job_id in told.out for job_id in ids)
    assert SECRET not in (told.out + told.err).lower()
    assert run("job", "find", "--id", "order-9") == 0
    assert "waits at position 1" in capsys.readouterr().out
    assert run("job", "find", "--message-id", f"<{ids[0]}@example.com>") == 0
    found = capsys.readouterr()
    assert ids[0] in found.out
    assert "job show ID" in found.err
    assert run("job", "find", "--to", "nobody@example.net") == 3
    nothing = capsys.readouterr().err
    assert "\n0 found; " in nothing
    assert "job show ID" not in nothing
    assert run("job", "find") == 2


def test_a_domain_is_found_in_either_spelling(run: Callable[..., int], ask: Ask) -> None:
    """What a producer wrote, and what the one who asks writes, are one address."""
    push(ask, job_bytes(1, "ann@exämple.org"), job_bytes(2, "bob@xn--exmple-cua.org"))

    for address in ("ann@xn--exmple-cua.org", "ann@EXÄMPLE.org", "bob@exämple.org", "BOB@xn--exmple-cua.org"):
        assert run("job", "find", "--to", address) == 0
    assert run("job", "find", "--to", "ann@example.org") == 3


def test_where_nothing_is_found_no_command_shows_more_of_it(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hint how to show one job is printed with ids only."""
    bury(ask, CAUSES)
    for words in (("dead", "list"), ("job", "find"), ("dead", "list", "--type", "Nothing"), ("capture", "ls")):
        found = run(*words, *(("--type", "Registration") if words == ("job", "find") else ())) == 0
        told = "".join(capsys.readouterr())

        assert found
        assert (" show " in told) == (words[-1] in {"list", "find"}), words


def test_job_is_sent_now(run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """A dead one comes back with a new first attempt."""
    (job_id, *_) = bury(ask, CAUSES[:1])
    assert run("job", "retry", job_id) == 0
    assert "was dead, is due now, attempt 1" in capsys.readouterr().out
    assert counts(ask).due == 1
    assert run("job", "retry", job_id) == 0
    assert run("job", "retry", "nosuch") == 3


def test_delayed_job_is_cancelled_and_comes_back(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody sends it, it is a dead letter that says why, and retry undoes it; what is dead is not cancelled again."""
    (job_id, dead_id) = bury(ask, CAUSES[:2])
    run("job", "retry", job_id)
    assert run("job", "cancel", job_id, "--dry-run") == 0
    assert "would: cancel 1 job of jobs" in capsys.readouterr().out
    assert counts(ask).delayed == 1

    assert run("job", "cancel", job_id) == 0
    assert f"to undo: trio-worker job retry {job_id}" in capsys.readouterr().out
    assert (counts(ask).delayed, counts(ask).dead) == (0, 2)
    assert run("job", "show", job_id) == 0
    shown = capsys.readouterr().out
    assert "DEAD since" in shown
    assert "cancelled" in shown
    assert run("job", "cancel", job_id, dead_id) == 4
    assert run("job", "cancel", "nosuch") == 4
    assert run("job", "cancel") == 2
    assert run("job", "retry", job_id) == 0
    assert counts(ask).due == 1


def test_job_is_cancelled_by_the_producers_id_wherever_it_is(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that waits in the list leaves it, the others stay in their order, and what comes back is what was pushed."""
    raw = job_bytes(2, SECRET, id="order-9")
    push(ask, job_bytes(1), raw, job_bytes(3), raw)
    assert run("job", "cancel", "--id", "order-9", "--no-input") == 4
    assert run("job", "cancel", "--id", "order-9", "--expect", "1", "--yes") == 4
    assert counts(ask).waiting == 4

    assert run("job", "cancel", "--id", "order-9", "--yes", "--json") == 0
    told = capsys.readouterr().out
    cancelled = json.loads(told[told.index("{") :])["cancelled"]
    assert len(cancelled) == 2
    assert ask(lambda client: client.command("LRANGE", "jobs", 0, -1)) == [job_bytes(1), job_bytes(3)]
    assert counts(ask).balances
    assert ask(lambda client: client.command("HGET", "{jobs}:body", cancelled[0])) == raw
    assert run("dead", "groups") == 0
    assert "cancelled" in capsys.readouterr().out
    assert run("job", "cancel", "--id", "order-9") == 4
    capsys.readouterr()
    assert run("job", "cancel", "--id", "nosuch") == 3
    assert "no unfinished job has the id nosuch" in capsys.readouterr().err


def test_job_is_found_by_the_message_id_of_its_producers_id(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a Message-ID names no id of ours: jobs are read until one has it, and `job show` shows it."""
    job = job_bytes(9, id="order-9")
    push(ask, job_bytes(8, id="order-8"), job)
    message_id = f"<{derived_mail_id(job)}@example.com>"

    assert run("job", "find", "--message-id", message_id) == 0
    assert "waits at position 2" in capsys.readouterr().out
    assert run("job", "cancel", "--id", "order-9", "--yes") == 0
    capsys.readouterr()
    assert run("job", "find", "--message-id", message_id) == 0
    job_id = capsys.readouterr().out.split()[0]
    assert run("job", "show", job_id) == 0
    assert message_id.partition("@")[0] in capsys.readouterr().out


def test_a_sent_mail_is_found_by_its_address_and_by_the_producers_id(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With time, relay, reply and Message-ID; no address is printed, and capitals make no difference."""
    monkeypatch.setenv("TRIO_WORKER__HISTORY__DAYS", "3")
    monkeypatch.setenv("TRIO_WORKER__HISTORY__KEY", "a random text")
    writer = ReceiptWriter(HistoryOptions(days=3, key="a random text"), "mail.example:587")
    receipt = writer.receipt("01ab", [SECRET], "250 2.0.0 Ok: queued as 7F", "ORDER-17").partition(" ")[2]
    receipt = receipt.partition(" ")[2]
    ask(lambda client: client.command("XADD", keys_of("jobs").history, "*", "receipt", receipt))
    push(ask, job_bytes(1, SECRET))

    for words in (("--address", SECRET.upper()), ("--to", SECRET), ("--id", "ORDER-17"), ("--message-id", "<01ab@x>")):
        assert run("job", "find", *words) == 0
        told = capsys.readouterr()
        first, reply, message_id, *_ = told.out.splitlines()
        assert first.startswith("sent 20")
        assert first.endswith(" to mail.example:587: job 01ab, id ORDER-17")
        assert (reply, message_id) == ("  250 2.0.0 Ok: queued as 7F", "  Message-ID <01ab@example.com>")
        assert "1 sent; 1 receipt of the last 3 days read" in told.err
        assert "secret" not in (told.out + told.err).lower()
    assert run("job", "find", "--address", SECRET, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [each["reply"] for each in document["sent"]] == ["250 2.0.0 Ok: queued as 7F"]
    assert len(document["found"]) == 1
    assert run("job", "find", "--address", "nobody@example.org") == 3


def test_a_search_without_receipts_says_that_sent_mails_are_not_searched(
    run: Callable[..., int], ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody may take "0 found" for "it was not sent"."""
    assert run("job", "find", "--address", "nobody@example.org") == 3
    assert "mails that were sent are not searched: no receipts are kept (history.days)" in capsys.readouterr().err
