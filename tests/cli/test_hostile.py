"""What strangers write reaches no screen, no JSON, no picture and no log as more than text: from every source.

A stranger is who can push a job, has the password of Redis, is the Redis or the relay, or names a file on this machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.commands import Ask
from tests.support.fleet import beat
from tests.support.hostile import HOSTILE, assert_tame
from tests.support.peers import saying_server
from trio_worker.queue.keys import keys_of
from trio_worker.queue.record import Attempt, Cause, Failed, Record, Said, write_record
from trio_worker.redis.client import RedisClient
from trio_worker.smtp.trace import TraceLine
from trio_worker.telemetry.feed import FeedOutcome, FeedTrace, write_outcome, write_trace
from trio_worker.telemetry.heartbeat import DeathCount, Heartbeat, Suspended, write_heartbeat
from trio_worker.worker.events import SettledJob
from trio_worker.worker.phase import Disposition

Run = Callable[..., int]
KEYS = keys_of("jobs")
# All kinds at once, in any order and with ordinary text between them.
TEXTS = st.permutations(HOSTILE).map(lambda parts: "x".join(["begin", *parts, "end"]))
# Each example runs dozens of commands, so a text that fails is not made shorter.
SLOWLY = settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
READS = (
    ("status",),
    ("status", "--json"),
    ("why",),
    ("why", "--json"),
    ("top", "--once"),
    ("top", "--json"),
    ("worker", "list"),
    ("worker", "list", "--json"),
    ("queue", "list"),
    ("queue", "list", "--json"),
    ("queue", "peek", "--reveal"),
    ("queue", "peek", "--json", "--reveal"),
    ("queue", "age", "--by", "type"),
    ("queue", "age", "--by", "domain", "--json"),
    ("queue", "export"),
    ("dead", "list"),
    ("dead", "list", "--json"),
    ("dead", "groups"),
    ("dead", "groups", "--json"),
    ("dead", "export"),
    ("held", "list"),
    ("held", "list", "--json"),
    ("job", "find", "begin"),
    ("stats", "--count", "1", "--interval", "0.1"),
    ("audit", "--deep"),
    ("tail", "--for", "1s"),
    ("tail", "--for", "1s", "--json"),
)


def read_all(run: Run, capsys: pytest.CaptureFixture[str], *commands: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Run commands; give what each printed, on both streams, and hold that its JSON is JSON."""
    for words in commands:
        run(*words)
        printed = capsys.readouterr()
        if "--json" in words and printed.out:
            documents = [printed.out] if words[0] != "tail" else printed.out.splitlines()
            assert all(json.loads(each) is not None for each in documents)
        yield printed.out + printed.err, " ".join(words)


def record_of(text: str) -> Record:
    return Record(
        time.time(), text, 1, due=(text,), failed=(Failed(text, text, text),), cause=Cause(text, text, text, text),
        timeline=(Attempt(1.0, text, text, text),), said=(Said(1.0, text),),
    )  # fmt: skip


def heartbeat_of(text: str) -> Heartbeat:
    return evolve(
        beat(text), version=text, why=text, trouble=text, config=text, breaker=text, types=(text,),
        settled={text: 1, "sent": 1}, causes=(DeathCount(text, text, Disposition.DEAD, 1, time.time()),),
        suspended=Suspended(1, text, time.time() + 60, text),
    )  # fmt: skip


def outcome_of(text: str) -> FeedOutcome:
    job = SettledJob(text, Disposition.DEAD, email_type=text, cause=Cause(text, text, text, text), recipients=(text,))
    return FeedOutcome(time.time() + 60, job, text)


async def fill(client: RedisClient, text: str) -> None:
    """Write everything to Redis that another than a worker could have written there."""
    await client.command("FLUSHALL")
    await client.command("RPUSH", "jobs", text, json.dumps({"task_type": "Email", "data": {"email_type": text}}))
    fields = {"data": {"email": f"{text}@{text}"}}
    await client.command("RPUSH", "jobs", json.dumps({"data": fields}, ensure_ascii=False))
    for state in ("dead", "held", "delayed", "leased"):
        job_id = text if state == "delayed" else f"job{state}"
        await client.command("ZADD", KEYS.of_state(state), 1000, job_id)
        await client.command("HSET", KEYS.body, job_id, text)
        await client.command("HSET", KEYS.record, job_id, write_record(record_of(text)))
    beats = write_heartbeat(heartbeat_of(text))
    await client.run_script("beat", KEYS, text, beats, 60_000, 0)
    await client.command("XADD", KEYS.latest, "*", "outcome", write_outcome(outcome_of(text)))
    trace = FeedTrace(time.time(), text, TraceLine(text, text, 0.1))
    await client.command("XADD", KEYS.latest, "*", "exchange", write_trace(trace))
    await client.command("SET", KEYS.pause, text)
    await client.command("HSET", KEYS.totals, text, "1", "popped", text)
    await client.command("HSET", KEYS.minutes, text, text)


@given(text=TEXTS)
@SLOWLY
def test_nothing_in_redis_rules_a_screen(
    run: Run, ask: Ask, capsys: pytest.CaptureFixture[str], work_folder: Path, text: str
) -> None:
    """Jobs, records, outcomes, heartbeats, names of workers, the reason of a pause: each command that reads them."""
    ask(lambda client: fill(client, text))

    shows = [(noun, "show", f"job{state}") for noun, state in (("dead", "dead"), ("held", "held"), ("job", "dead"))]
    shown = [*shows, *((*words, "--reveal") for words in shows)]
    picture = work_folder / "top.svg"
    seen = [*read_all(run, capsys, *READS, *shown, ("top", "--svg", str(picture))), (picture.read_text("utf-8"), "svg")]
    log = work_folder / "worker.log"
    seen.append((log.read_text("utf-8"), "log"))

    assert sum("begin" in printed for printed, _ in seen) > 15, "nothing of it was shown at all"
    for printed, where in seen:
        assert_tame(printed, where)


# A command that exits within a walk leaves it to the end of its process, which here is none.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("url", ["redis://{}", "redis+sentinel://{}/primary", "redis+cluster://{}"])
@given(text=TEXTS)
@SLOWLY
def test_no_error_of_redis_rules_a_screen(
    url: str, work_folder: Path, run: Run, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """A server, a Sentinel or a node of a cluster that refuses everything with its own words."""
    with saying_server(f"-ERR {text}".replace("\r", "").encode() + b"\r\n") as port:
        config = work_folder / "worker.toml"
        config.write_text(
            f'profile = "dev"\n[redis]\nurl = "{url.format(f"127.0.0.1:{port}")}"\n[log]\nfile = "worker.log"\n'
        )
        commands = [words for words in READS if words[0] not in {"stats", "top"}]
        for printed, where in read_all(run, capsys, *commands, ("doctor",), ("doctor", "--json")):
            assert "begin" in printed, where
            assert_tame(printed, where)


@given(text=TEXTS)
@SLOWLY
def test_no_reply_of_a_relay_rules_a_screen(
    valkey_url: str, work_folder: Path, run: Run, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Its greeting, its EHLO keywords, and its refusals."""
    line = text.replace("\r", "").replace("\n", "")
    says = f"250-{line} at your service\r\n250-{line}\r\n250 PIPELINING\r\n".encode()
    with saying_server(says, first=f"220 {line}\r\n".encode()) as port:
        config = work_folder / "worker.toml"
        config.write_text(
            f'profile = "dev"\n[redis]\nurl = "{valkey_url}"\n'
            f'[smtp]\nhost = "127.0.0.1"\nport = {port}\ntls = "none"\n[smtp.timeouts]\ncommand_seconds = 2\n'
        )
        commands = [("smtp", "check"), ("smtp", "check", "--json"), ("doctor",), ("doctor", "--json")]
        for printed, where in read_all(run, capsys, *commands):
            assert "BEGIN" in printed or "begin" in printed, where
            assert_tame(printed, where)


@given(text=TEXTS)
@SLOWLY
def test_no_local_name_rules_a_screen(
    valkey_url: str, work_folder: Path, run: Run, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Keys and values of the configuration, folders of templates, faults of the catcher, and files of its Maildir."""
    name = text.replace("\0", "").replace("/", "")[:80]
    config = work_folder / "worker.toml"
    quoted = json.dumps(name)
    config.write_text(
        f"{quoted} = 1\nprofile = {quoted}\n[redis]\nurl = {quoted}\n[smtp]\nca_file = {quoted}\nhost = {quoted}\n"
        f"only_to = {quoted}\nignore_ehlo = [{quoted}]\n[mail]\ntemplate_dirs = [{quoted}]\nfrom = {quoted}\n"
        f"[mail.types.{quoted}]\nx = 1\n[capture]\nlisten = {quoted}\n"
    )
    commands: list[tuple[str, ...]] = [("config", "check"), ("config", "check", "--json"), ("status",), ("doctor",)]
    seen = list(read_all(run, capsys, *commands))

    templates = work_folder / "templates"
    (templates / name).mkdir(parents=True, exist_ok=True)
    (templates / name / "subject.j2").write_text("{{ nothing")
    caught = work_folder / "caught"
    for folder in ("new", "cur", "tmp"):
        (caught / folder).mkdir(parents=True, exist_ok=True)
    (caught / "new" / f"1.{name}").write_bytes(f"Subject: {name}\r\n\r\n{text}\r\n".encode())
    (caught / "chaos").write_text(name)
    config.write_text(
        f'[redis]\nurl = "{valkey_url}"\n[mail]\ntemplate_dirs = ["{templates}"]\n'
        f'[capture]\nlisten = "127.0.0.1:1025"\ndir = "{caught}"\n[log]\nfile = "local.log"\n'
    )
    commands = [
        ("config", "check"), ("doctor",), ("mail", "preview", name), ("capture", "ls", "--reveal"),
        ("capture", "ls", "--reveal", "--json"), ("capture", "chaos"), ("capture", "chaos", name),
        ("capture", "show", name), ("dead", "show", name), ("job", "show", name), (name,), ("status", f"--{name}"),
    ]  # fmt: skip
    seen += read_all(run, capsys, *commands)
    run("capture", "show", f"1.{name}")
    capsys.readouterr()
    seen.append(((work_folder / "local.log").read_text("utf-8"), "log"))

    assert sum("begin" in printed for printed, _ in seen) > 8
    for printed, where in seen:
        assert_tame(printed, where)
