"""``smtp explain``: what a reply is taken for, in words and in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker.cli.command_line import app
from trio_worker.cli.smtp_explain import consequence
from trio_worker.smtp.reply import Stage, reply_from
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.reply_classes import classify


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "worker.toml"
    path.write_text('[[replies]]\ntext = "come back tomorrow"\nclass = "standing"\n', "utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["550 5.4.5 Daily user sending limit exceeded"],
            ["FINAL", "standing: it speaks of", "after 1h00m"],
        ),
        (["550-5.4.5 Quota, try again in 20 minutes"], ["standing", "probes after 20m00s"]),
        (["454 Throttling failure: Maximum sending rate exceeded."], ["rate", "Amazon SES", "pauses for 1.0s"]),
        (["432 4.3.2 Concurrent connections limit exceeded"], ["concurrency", "stays empty for 30s"]),
        (
            ["454 4.7.1 <ann@example.org>: Relay access denied", "--at", "rcpt"],
            ["RCPT", "us", "3 mails", "pays"],
        ),
        (["554 5.7.1 <ann@example.org>: Relay access denied", "--at", "rcpt"], ["the mail is dead"]),
        (["530 5.7.0 Authentication required", "--at", "mail"], ["MAIL", "us", "after 1m00s", "up to 15m00s"]),
        (["550 5.1.1 user unknown", "--at", "rcpt"], ["recipient", "The mail is dead."]),
        (["550 Computer says no"], ["mail", "its code and stage", "After 10 mails in a row"]),
        (["451 4.3.0 lookup failure"], ["mail", "tried again later, up to 30 times"]),
        (["451 4.3.0 lookup failure", "--at", "mail"], ["session", "after 1.0s, later after 1m00s"]),
        (["550 Come back tomorrow"], ["standing", "[[replies]] number 1"]),
        (["421"], ["421", "The relay closes the connection"]),
    ],
)
def test_a_reply_is_explained(
    words: list[str], expected: list[str], config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its class, where that is from, and what becomes of the mail and of the others; no address in clear."""
    assert app(["smtp", "explain", *words, "--config", config]) == 0

    shown = capsys.readouterr().out
    assert all(text in shown for text in expected), shown
    assert "ann@" not in shown


def test_it_needs_no_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever has a reply in hand may be on any machine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIO_WORKER_CONFIG", raising=False)
    assert app(["smtp", "explain", "550 5.4.5 Daily limit"]) == 0
    assert "standing" in capsys.readouterr().out


def test_as_json(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """For a program."""
    assert app(["smtp", "explain", "550 5.4.5 Daily limit", "--json", "--config", config]) == 0

    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "trio-worker/reply/1"
    assert (document["code"], document["enhanced"], document["class"]) == (550, "5.4.5", "standing")


@pytest.mark.parametrize("text", ["", "250 ok", "hello", "55 no", "5500 no", "354 go on"])
def test_what_is_no_refusal_is_refused(text: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason."""
    with pytest.raises(SystemExit) as ended:
        app(["smtp", "explain", text, "--config", config])

    assert ended.value.code == 2
    assert "a refusal begins with its code" in capsys.readouterr().err


@given(st.integers(400, 599), st.text(max_size=80), st.sampled_from([Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.FINAL]))
def test_every_reply_has_a_consequence(code: int, text: str, stage: Stage) -> None:
    """One or more whole sentences."""
    reply = reply_from(code, text, stage)
    sentence = consequence(reply, classify(reply), RetryPolicy())

    assert sentence[0].isupper()
    assert sentence.endswith(".")
