"""A real Postfix as relay, in a separate folder: how a strict and widely used relay answers our conversation."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import trio
import trustme
from attrs import define

from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.cli.status import Health, health_of, troubles_of
from trio_worker.fleet.polls import Polls
from trio_worker.fleet.report import Reporter
from trio_worker.queue.counts import Counts, count_jobs
from trio_worker.queue.dead_letters import read_shelf
from trio_worker.smtp.events import DepthLimited
from trio_worker.smtp.options import PoolOptions, RelayOptions, Timeouts
from trio_worker.smtp.relay import Relay, tls_context
from trio_worker.worker.events import BreakerChanged
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.phase import Disposition

POSTFIX = shutil.which("postfix", path="/usr/sbin:/usr/bin:/sbin:/bin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(POSTFIX is None, reason="needs Postfix: tools/test --slow installs it on Debian, as root"),
]

# The services that taking a mail and discarding it needs; none in a chroot.
MASTER = """
{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
proxymap unix - - n - - proxymap
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
discard unix - - n - - discard
error unix - - n - - error
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


@define
class Postfix:
    """One running Postfix."""

    folder: Path
    port: int
    ca_file: Path

    def control(self, verb: str) -> None:
        assert POSTFIX is not None
        done = subprocess.run(
            [POSTFIX, "-c", str(self.folder / "conf"), verb], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or verb == "stop", done.stderr + self.log

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    @property
    def complaints(self) -> list[str]:
        """What it said that a clean client gives no cause for."""
        bad = re.compile(r"improper command pipelining|warning|fatal|panic|lost connection|too many errors|non-SMTP")
        harmless = re.compile(r"symlink|permission|group|not owned|hostname|dict_|open database")
        return [line for line in self.log.splitlines() if bad.search(line) and not harmless.search(line)]

    def delivered(self) -> Counter[str]:
        return Counter(re.findall(r"to=<([^>]+)>.*status=sent", self.log))


@pytest.fixture
def start_postfix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Postfix]]:
    """Start a Postfix with some settings; all are stopped in the end."""
    started: list[Postfix] = []

    def start(**settings: str) -> Postfix:
        # A path of the temporary folder of pytest is too long for the sockets of Postfix, and closed to its user.
        folder = Path(tempfile.mkdtemp(prefix="postfix."))
        folder.chmod(0o755)
        postfix = Postfix(folder, _free_port(), folder / "ca.pem")
        _write_settings(postfix, settings)
        started.append(postfix)
        postfix.control("start")
        return postfix

    yield start
    for postfix in started:
        postfix.control("stop")
        shutil.rmtree(postfix.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _write_settings(postfix: Postfix, settings: dict[str, str]) -> None:
    folder = postfix.folder
    for name in ("conf", "queue", "data"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(postfix.ca_file)
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    own = {
        "compatibility_level": "3.6",
        "queue_directory": str(folder / "queue"),
        "data_directory": str(folder / "data"),
        "maillog_file": str(folder / "log"),
        "maillog_file_prefixes": str(folder),
        "myhostname": "relay.example.org",
        "mydestination": "",
        "inet_interfaces": "127.0.0.1",
        "inet_protocols": "ipv4",
        "mynetworks": "127.0.0.0/8",
        "default_transport": "discard:",
        "smtpd_tls_chain_files": str(folder / "server.pem"),
        "smtpd_tls_security_level": "may",
        "alias_maps": "",
        "alias_database": "",
    }
    text = "".join(f"{key} = {value}\n" for key, value in {**own, **settings}.items())
    (folder / "conf" / "main.cf").write_text(text)
    (folder / "conf" / "master.cf").write_text(MASTER.format(port=f"127.0.0.1:{postfix.port}").lstrip())


def relay_of(postfix: Postfix, tls: str = "none", **options: object) -> Relay:
    made = RelayOptions(
        host="127.0.0.1",
        port=postfix.port,
        tls=tls,
        ca_file=str(postfix.ca_file),
        ehlo_name="client.example.org",
        **options,  # type: ignore[arg-type]
    )
    return Relay(made, Timeouts(), tls_context(made))


async def run(reporter: Reporter) -> None:
    with trio.fail_after(90):
        assert await reporter.run() == 0
    assert reporter.board.ledger.balances


async def until_delivered(postfix: Postfix, count: int) -> None:
    with trio.fail_after(60):
        # The log of another program has no event.
        while sum(postfix.delivered().values()) < count:  # noqa: ASYNC110
            await trio.sleep(0.1)


@pytest.mark.parametrize("depth", [1, 16])
@pytest.mark.parametrize("tls", ["none", "starttls"])
@pytest.mark.parametrize("ignored", [(), ("CHUNKING",), ("PIPELINING",), ("CHUNKING", "PIPELINING")])
async def test_every_mail_is_taken_once_and_postfix_has_no_complaint(
    start_postfix: Callable[..., Postfix], workers: WorkerMaker, tls: str, ignored: tuple[str, ...], depth: int
) -> None:
    """In every mode of the conversation, in clear and under TLS, one message on a connection and many."""
    postfix = start_postfix()
    await workers.push(*(job_bytes(number) for number in range(200)))
    relay, pool = relay_of(postfix, tls, ignore_ehlo=ignored), PoolOptions(pipeline_depth=depth)
    reporter = workers.make(workers.options(postfix.port, relay=relay, pool=pool, number_workers=12))
    await run(reporter)
    await until_delivered(postfix, 200)

    assert postfix.delivered() == Counter(f"user{number}@example.com" for number in range(200))
    assert postfix.complaints == []
    assert reporter.board.ledger.opened <= 10
    assert reporter.board.ledger.settled == {Disposition.SENT: 200}


async def test_recipients_that_postfix_refuses_die_or_wait_and_nobody_else_does(
    start_postfix: Callable[..., Postfix], workers: WorkerMaker
) -> None:
    """550 is dead with Postfix's words, 450 is tried again, the others are sent."""
    postfix = start_postfix(
        smtpd_recipient_restrictions="check_recipient_access inline:{ {user1@example.com = 550 5.1.1 nobody here}, "
        "{user2@example.com = 450 4.2.0 come again} }, "
        "permit_mynetworks, reject"
    )
    await workers.push(*(job_bytes(number) for number in range(20)))
    retry = RetryPolicy(max_attempts=2, base_seconds=0, cap_seconds=0)
    await run(workers.make(workers.options(postfix.port, relay=relay_of(postfix), retry=retry)))
    await until_delivered(postfix, 18)

    dead = await read_shelf(workers.client, "jobs", "dead", 10, with_bodies=True)
    assert isinstance(dead, list)
    assert sorted((each.cause.codes.split()[0], each.record.attempts) for each in dead) == [("450", 2), ("550", 1)]
    assert len(postfix.delivered()) == 18


async def test_a_refusal_among_many_in_flight_hits_nobody_else(
    start_postfix: Callable[..., Postfix], workers: WorkerMaker
) -> None:
    """Every seventh recipient is refused; the sender that a refused BDAT may leave standing goes with RSET."""
    refused = ", ".join(f"{{user{number}@example.com = 550 5.1.1 nobody here}}" for number in range(0, 200, 7))
    postfix = start_postfix(
        smtpd_recipient_restrictions=f"check_recipient_access inline:{{ {refused} }}, permit_mynetworks, reject"
    )
    await workers.push(*(job_bytes(number) for number in range(200)))
    pool = PoolOptions(max_size=3, pipeline_depth=16)
    reporter = workers.make(workers.options(postfix.port, relay=relay_of(postfix), pool=pool, number_workers=12))
    await run(reporter)
    expected = Counter(f"user{number}@example.com" for number in range(200) if number % 7)
    await until_delivered(postfix, expected.total())

    assert postfix.delivered() == expected
    assert postfix.complaints == []
    assert reporter.board.ledger.settled == {
        Disposition.SENT: expected.total(),
        Disposition.DEAD: 200 - expected.total(),
    }


@pytest.mark.parametrize("depth", [8, 64])
@pytest.mark.parametrize("tls", ["none", "starttls"])
@pytest.mark.parametrize(("limit", "refused"), [
    (3, range(0, 300, 5)),
    (1, range(0, 300, 5)),
    (3, [*range(100, 110), *range(200, 210)]),
])  # fmt: skip
async def test_a_tight_limit_of_errors_leaves_little_in_doubt(
    start_postfix: Callable[..., Postfix],
    workers: WorkerMaker,
    tls: str,
    depth: int,
    limit: int,
    refused: Sequence[int],
) -> None:
    """Errors between accepted mails end nothing. Beyond the limit Postfix says 421 and closes with much unread.

    Mostly its words arrive. Its kernel drops those that stand behind others which are not confirmed yet: then what it
    took before is in doubt.
    """
    table = ", ".join(f"{{user{number}@example.com = 550 5.1.1 nobody here}}" for number in refused)
    postfix = start_postfix(
        smtpd_hard_error_limit=str(limit),
        smtpd_recipient_restrictions=f"check_recipient_access inline:{{ {table} }}, permit_mynetworks, reject",
    )
    await workers.push(*(job_bytes(number) for number in range(300)))
    pool = PoolOptions(max_size=1, pipeline_depth=depth)
    reporter = workers.make(
        workers.options(postfix.port, relay=relay_of(postfix, tls), pool=pool, number_workers=4), is_burst=False
    )
    accepted = {f"user{number}@example.com" for number in range(300) if number not in refused}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        with trio.fail_after(60):
            settled = reporter.board.ledger.settled
            await workers.wait_until(lambda: settled[Disposition.SENT] + settled[Disposition.DEAD] == 300)
        reporter.worker.drain("all sent")
    await until_delivered(postfix, len(accepted))

    ledger = reporter.board.ledger
    assert (settled[Disposition.SENT], settled[Disposition.DEAD]) == (len(accepted), len(refused))
    assert postfix.delivered().keys() == accepted
    assert postfix.delivered().total() - len(accepted) <= ledger.uncertain < depth
    assert not ledger.uncertain or (limit, len(refused)) != (3, 60)
    assert len([event for event in workers.events if isinstance(event, DepthLimited)]) <= bool(ledger.uncertain)
    assert not [event for event in workers.events if isinstance(event, BreakerChanged)]


async def test_a_mail_over_the_size_that_postfix_takes_is_dead_and_no_other(
    start_postfix: Callable[..., Postfix], workers: WorkerMaker
) -> None:
    """A limit of EHLO below that of the standard is not believed; MAIL names the size, and Postfix refuses the mail."""
    postfix = start_postfix(message_size_limit="2000", virtual_mailbox_limit="2000", mailbox_size_limit="2000")
    await workers.push(job_bytes(1))
    reporter = workers.make(workers.options(postfix.port, relay=relay_of(postfix)))
    await run(reporter)

    dead = await read_shelf(workers.client, "jobs", "dead", 10, with_bodies=True)
    assert isinstance(dead, list)
    assert [(each.cause.codes, each.cause.stage) for each in dead] == [("552 5.3.4", "mail")]
    assert not [event for event in workers.events if isinstance(event, BreakerChanged)]
    assert postfix.complaints == []


async def test_a_limit_on_connections_costs_no_attempt(
    start_postfix: Callable[..., Postfix], workers: WorkerMaker
) -> None:
    """Postfix lets three in at once and answers the others with 421: all mails are sent over the three."""
    postfix = start_postfix(smtpd_client_connection_count_limit="3", smtpd_client_event_limit_exceptions="")
    await workers.push(*(job_bytes(number) for number in range(100)))
    await run(workers.make(workers.options(postfix.port, relay=relay_of(postfix))))
    await until_delivered(postfix, 100)

    sent = [job for job in workers.jobs if job.disposition is Disposition.SENT]
    assert {job.attempt for job in sent} == {1}
    assert max(postfix.delivered().values()) == 1


async def test_a_postfix_that_restarts_in_the_middle_costs_nothing(
    start_postfix: Callable[..., Postfix], workers: WorkerMaker
) -> None:
    """Claiming stops while it is away and goes on by itself; each mail arrives, and what may be twice is counted."""
    postfix = start_postfix()
    await workers.push(*(job_bytes(number) for number in range(300)))
    reporter = workers.make(workers.options(postfix.port, relay=relay_of(postfix)), is_burst=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        with trio.fail_after(60):
            await workers.wait_until(lambda: reporter.board.ledger.settled[Disposition.SENT] > 50)
            await trio.to_thread.run_sync(postfix.control, "stop")
            await workers.wait_until(lambda: any(isinstance(event, BreakerChanged) for event in workers.events))
            await trio.to_thread.run_sync(postfix.control, "start")
            await workers.wait_until(lambda: reporter.board.ledger.settled[Disposition.SENT] == 300)
        reporter.worker.drain("all sent")
    await until_delivered(postfix, 300)

    counted = await count_jobs(workers.client, "jobs")
    assert isinstance(counted, Counts)
    assert counted.known == 0
    assert sum(postfix.delivered().values()) - 300 <= reporter.board.ledger.uncertain
    assert len(postfix.delivered()) == 300


async def test_one_recipient_that_postfix_does_not_relay_for_stops_nobody(
    start_postfix: Callable[..., Postfix], workers: WorkerMaker
) -> None:
    """Its default restrictions answer 454 to a domain that is not its own: the others arrive, the one dies alone."""
    postfix = start_postfix(
        mynetworks="10.0.0.0/8",  # so this client is a stranger
        mydestination="example.com",
        local_recipient_maps="",
        local_transport="discard:",
        smtpd_relay_restrictions="permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",
        smtpd_recipient_restrictions="",
    )
    await workers.push(job_bytes(0, "bad@elsewhere.example"), *(job_bytes(number) for number in range(1, 21)))
    retry = RetryPolicy(max_attempts=3, base_seconds=4, cap_seconds=4)
    reporter = workers.make(workers.options(postfix.port, relay=relay_of(postfix), retry=retry), is_burst=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, reporter)
        with trio.fail_after(10):
            await workers.wait_until(lambda: reporter.board.ledger.settled[Disposition.SENT] == 20)
            await workers.wait_until(lambda: reporter.board.ledger.settled[Disposition.DELAYED] > 0)
        polls = Polls(workers.client, "jobs", "here")
        with trio.fail_after(10):
            await polls.poll()
            while not polls.snapshot().workers:
                await trio.sleep(0.1)
                await polls.poll()
        seen, snapshot = polls.last, polls.snapshot()
        with trio.fail_after(30):
            await workers.wait_until(lambda: reporter.board.ledger.settled[Disposition.DEAD] == 1)
        reporter.worker.drain("all settled")
    await until_delivered(postfix, 20)

    dead = await read_shelf(workers.client, "jobs", "dead", 10, with_bodies=True)
    assert isinstance(dead, list)
    assert [(each.cause.codes, each.record.attempts) for each in dead] == [("454 4.7.1", 3)]
    assert seen is not None
    problems = troubles_of(seen.counts, snapshot, seen.minutes)
    assert health_of(seen.counts, snapshot, problems) is Health.HEALTHY, problems
    assert not any(isinstance(event, BreakerChanged) for event in workers.events)
