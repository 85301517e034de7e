"""`metrics show`: what a worker at an address says, all of them with ports of their own, or the table."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen

from tests.support.snapshot import busy
from trio_worker.cli.command_line import app
from trio_worker.telemetry.http_server import (
    METRICS_TYPE,
    HttpResponse,
    Pages,
    page_of_text,
    serve_pages,
    write_address,
)
from trio_worker.telemetry.metric_table import TABLE
from trio_worker.telemetry.metrics import Metrics

PATIENCE_SECONDS = 60


def pages() -> Pages:
    made = Metrics(busy)
    return {"/metrics": lambda: HttpResponse(200, METRICS_TYPE, made.exposition())}


@frozen
class Shown:
    """How one command ended."""

    returncode: int
    stdout: str
    stderr: str


Show = Callable[..., Awaitable[Shown]]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Show:
    """Run the command while the server runs, with some environment variables."""

    async def run(*words: str, **variables: str) -> Shown:
        capsys.readouterr()
        with monkeypatch.context() as patched, trio.fail_after(PATIENCE_SECONDS):
            for name, value in variables.items():
                patched.setenv(name, value)
            code = await trio.to_thread.run_sync(code_of, "metrics", "show", *words)
        return Shown(code, *capsys.readouterr())

    return run


def code_of(*words: str) -> int:
    try:
        return int(app(words))
    except SystemExit as left:
        return int(left.code or 0)


@pytest.mark.parametrize("words", [("--list",), ()])
async def test_without_a_worker_to_ask_there_is_the_table(
    words: tuple[str, ...], work_folder: Path, show: Show
) -> None:
    """Every metric with its type, its labels and its meaning; as text and as JSON."""
    text = await show(*words, TRIO_WORKER__METRICS__LISTEN="")
    told = json.loads((await show(*words, "--json", TRIO_WORKER__METRICS__LISTEN="")).stdout)

    assert text.returncode == 0
    said = " ".join(text.stdout.split())
    for metric in TABLE:
        assert f"{metric.exported} {metric.kind.value} {metric.help_text}" in said
        assert metric.label_words in said
    assert [each["name"] for each in told] == [metric.exported for metric in TABLE]
    assert told[0].keys() == {"schema", "name", "type", "labels", "says"}
    assert ("metrics.listen is empty" in text.stderr) == (not words)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "unix:metrics.sock"])
async def test_a_worker_is_asked_what_it_says_now(listen: str, work_folder: Path, show: Show) -> None:
    """Over TCP and over a unix socket; buckets are in the JSON alone."""
    async with serve_pages(listen, pages()) as address:
        text = await show(TRIO_WORKER__METRICS__LISTEN=address)
        told = json.loads((await show("--json", "--address", address)).stdout)

    lines = text.stdout.splitlines()
    assert (text.returncode, lines[0]) == (0, f"# {address}")
    assert text.stderr == "environment and defaults: queue jobs, Redis embedded:var/valkey\n"
    assert 'trio_worker_queue_jobs{queue="jobs",state="waiting"} 12431' in lines
    assert not any("_bucket" in line for line in lines)
    (worker,) = told
    assert worker["address"] == address
    (latency,) = [each for each in worker["metrics"] if each["name"] == "trio_worker_job_latency_seconds"]
    assert latency["type"] == "histogram"
    assert any(each["labels"].get("le") == "+Inf" for each in latency["samples"])


async def test_all_workers_with_a_port_of_their_own_choice_are_asked(work_folder: Path, show: Show) -> None:
    """Each at the address that it has written; a worker that has ended has none."""
    variables = {"TRIO_WORKER__METRICS__LISTEN": "127.0.0.1:0", "TRIO_WORKER__QUEUE__JOURNAL_DIR": "journal"}
    nobody = await show(**variables)
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve_pages("127.0.0.1:0", pages()))
        stack.enter_context(write_address(work_folder / "journal", address))
        found = await show("--json", **variables)

    assert (nobody.returncode, nobody.stderr.splitlines()[1:]) == (69, ["no worker has written its address in journal"])
    assert [each["address"] for each in json.loads(found.stdout)] == [address]


STRANGE: dict[str, Any] = {
    "not metrics": {"/metrics": lambda: page_of_text(200, "<html>\n")},
    "nothing": {"/metrics": lambda: page_of_text(200, "\n")},
    "no such page": {"/": lambda: page_of_text(200, "hello\n")},
}


@pytest.mark.parametrize("strange", STRANGE)
async def test_who_is_no_worker_is_not_taken_for_one(strange: str, work_folder: Path, show: Show) -> None:
    """Its answer is not printed."""
    async with serve_pages("127.0.0.1:0", STRANGE[strange]) as address:
        done = await show("--address", address)

    assert (done.returncode, done.stdout) == (69, "")
    assert address in done.stderr


async def test_an_address_where_nobody_listens_is_told(work_folder: Path, show: Show) -> None:
    """With exit code 69, in either form."""
    for words in ([], ["--json"]):
        done = await show(*words, "--address", "unix:none.sock")

        assert done.returncode == 69
        assert "unix:none.sock" in done.stderr


async def test_nothing_that_a_terminal_would_obey_is_printed(work_folder: Path, show: Show) -> None:
    """Any program may listen there and answer anything."""
    hostile = {"/metrics": lambda: page_of_text(200, '# TYPE x gauge\nx{y="\x1b]0;z\x07"} 1\n')}
    async with serve_pages("127.0.0.1:0", hostile) as address:
        done = await show("--address", address)

    assert done.returncode == 0
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("address", ["foo", "127.0.0.1:99999", "127.0.0.1:http"])
async def test_what_is_no_address_is_wrong_usage(address: str, work_folder: Path, show: Show) -> None:
    """Nobody is asked, and it is said how an address is written."""
    told = await show("--address", address)

    assert told.returncode == 2
    assert told.stderr.startswith("--address: ")
