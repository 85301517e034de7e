"""A real Exim as relay, unpacked next to the system's own mailer: with Postfix the most used mail server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trustme
from attrs import define

from tests.support.jobs import job_bytes
from tests.support.workers import WorkerMaker
from trio_worker.smtp.events import ConnectionClosed
from trio_worker.smtp.options import PoolOptions, RelayOptions, Timeouts
from trio_worker.smtp.relay import Relay, tls_context
from trio_worker.worker.options import RetryPolicy
from trio_worker.worker.phase import Disposition

# Exim, what it is linked with, and a library that lets it find its user without one on the system.
PACKAGES = (
    "exim4-daemon-light",
    "libidn12",
    "libgnutls-dane0",
    "libunbound8",
    "libevent-2.1-7",
    "libdb5.3",
    "libnsl2",
    "libtirpc3",
    "libnss-wrapper",
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.getuid() != 0 or shutil.which("apt-get") is None, reason="needs Debian's packages, and root to run Exim"
    ),
]
JOBS = 200
MANY_JOBS = 300
EXIM_ID = 101  # of a user that exists in no file but ours

# Mails are accepted and queued: the log has the accepted ones, and none is delivered.
SETTINGS = """
primary_hostname = relay.example.org
spool_directory = {folder}/spool
log_file_path = {folder}/logs/%slog
pid_file_path = {folder}/logs/exim.pid
local_interfaces = 127.0.0.1
tls_advertise_hosts = {tls}
tls_certificate = {folder}/server.pem
tls_privatekey = {folder}/server.pem
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
acl_smtp_rcpt = acl_rcpt
acl_smtp_data = acl_data
smtp_accept_max = 100
smtp_accept_max_per_connection = 0
smtp_accept_max_nonmail = {nonmail}
queue_only = true
never_users =
keep_environment =
add_environment =
log_selector = +received_recipients +smtp_protocol_error +smtp_syntax_error +smtp_connection
begin acl
acl_rcpt:
  deny message = nobody here
       local_parts = {refused}
  accept
acl_data:
  accept
begin routers
drop:
  driver = redirect
  data = :blackhole:
"""


@define
class Exim:
    """One running Exim."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return "".join(path.read_text("utf-8", "replace") for path in (self.folder / "logs").glob("*log"))

    def taken(self) -> Counter[str]:
        """Recipients of the mails that it took over."""
        return Counter(re.findall(r" <= .* for (\S+)", self.log))

    @property
    def complaints(self) -> list[str]:
        """What it said that a clean client gives no cause for."""
        bad = re.compile(r"protocol error|syntax error|synchronization|unexpected disconnection|rejected.*too many")
        return [line for line in self.log.splitlines() if bad.search(line)]


@pytest.fixture(scope="module")
def unpacked() -> Iterator[Path]:
    """Exim and its libraries in a folder of their own; installing it would remove another mailer."""
    folder = Path(tempfile.mkdtemp(prefix="exim-packages."))
    done = subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=folder, check=False)  # noqa: S607
    if done.returncode:
        shutil.rmtree(folder)
        pytest.skip("Debian's packages of Exim cannot be had")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder], check=True)  # noqa: S607  wherever it is
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def start_exim(unpacked: Path) -> Iterator[Callable[..., Exim]]:
    """Start an Exim; all are ended in the end."""
    started: list[Exim] = []

    def start(*, tls: str, refused: str = "nobody.at.all", nonmail: int = 10) -> Exim:
        # pytest's temporary folder is closed to Exim's user.
        folder = Path(tempfile.mkdtemp(prefix="exim."))
        folder.chmod(0o755)
        for name in ("spool", "logs"):
            (folder / name).mkdir()
            os.chown(folder / name, EXIM_ID, EXIM_ID)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "ca.pem")
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        (folder / "server.pem").chmod(0o644)
        hosts = "*" if tls == "starttls" else ""
        settings = SETTINGS.format(folder=folder, tls=hosts, refused=refused, nonmail=nonmail)
        (folder / "exim.conf").write_text(settings)
        (folder / "passwd").write_text(f"root:x:0:0:::\nDebian-exim:x:{EXIM_ID}:{EXIM_ID}:::\n")
        (folder / "group").write_text(f"root:x:0:\nDebian-exim:x:{EXIM_ID}:\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        (libraries,) = (unpacked / "usr" / "lib").glob("*-linux-gnu")
        environment = {
            "PATH": "/usr/bin:/bin",
            "LD_LIBRARY_PATH": str(libraries),
            "LD_PRELOAD": str(libraries / "libnss_wrapper.so"),
            "NSS_WRAPPER_PASSWD": str(folder / "passwd"),
            "NSS_WRAPPER_GROUP": str(folder / "group"),
        }
        program = unpacked / "usr" / "sbin" / "exim4"
        command = [str(program), "-C", str(folder / "exim.conf"), "-bdf", "-oX", f"127.0.0.1:{port}"]
        exim = Exim(folder, port, subprocess.Popen(command, env=environment))
        started.append(exim)
        wait_for_port(port)
        return exim

    yield start
    for exim in started:
        exim.process.kill()
        exim.process.wait()
        shutil.rmtree(exim.folder, ignore_errors=True)


def wait_for_port(port: int) -> None:
    for _ in range(100_000):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            continue
        return
    pytest.fail("Exim does not listen")


async def send(
    exim: Exim,
    workers: WorkerMaker,
    *,
    tls: str,
    depth: int,
    ignored: tuple[str, ...] = (),
    jobs: int = JOBS,
    max_size: int = 5,
    guard: int = 10,
) -> dict[Disposition, int]:
    """Push the jobs, send them all, and return what became of them."""
    options = RelayOptions(
        host="127.0.0.1",
        port=exim.port,
        tls=tls,
        ca_file=str(exim.folder / "ca.pem"),
        ignore_ehlo=ignored,
        ehlo_name="client.example.org",
    )
    relay = Relay(options, Timeouts(), tls_context(options))
    await workers.push(*(job_bytes(number) for number in range(jobs)))
    pool = PoolOptions(max_size=max_size, pipeline_depth=depth)
    retry = RetryPolicy(base_seconds=0.05, cap_seconds=0.2, guard=guard)
    reporter = workers.make(workers.options(exim.port, relay=relay, pool=pool, number_workers=12, retry=retry))
    with trio.fail_after(90):
        assert await reporter.run() == 0
    assert reporter.board.ledger.balances
    assert reporter.board.ledger.uncertain == 0
    return dict(reporter.board.ledger.settled)


@pytest.mark.parametrize("depth", [1, 16])
@pytest.mark.parametrize("tls", ["none", "starttls"])
@pytest.mark.parametrize("ignored", [(), ("CHUNKING",), ("PIPELINING",), ("CHUNKING", "PIPELINING")])
async def test_every_mail_is_taken_once_and_exim_has_no_complaint(
    start_exim: Callable[..., Exim], workers: WorkerMaker, tls: str, ignored: tuple[str, ...], depth: int
) -> None:
    """In every mode of the conversation, in clear and under TLS, one message on a connection and many."""
    exim = start_exim(tls=tls)

    assert await send(exim, workers, tls=tls, depth=depth, ignored=ignored) == {Disposition.SENT: JOBS}
    assert exim.taken() == Counter(f"user{number}@example.com" for number in range(JOBS))
    assert exim.complaints == []


@pytest.mark.parametrize("ignored", [(), ("CHUNKING",)])
async def test_a_refusal_among_many_in_flight_hits_nobody_else(
    start_exim: Callable[..., Exim], workers: WorkerMaker, ignored: tuple[str, ...]
) -> None:
    """Every seventh recipient is refused, and each of the others has one mail."""
    refused = range(0, JOBS, 7)
    exim = start_exim(tls="none", refused=" : ".join(f"user{number}" for number in refused))

    settled = await send(exim, workers, tls="none", depth=16, ignored=ignored)

    assert settled == {Disposition.SENT: JOBS - len(refused), Disposition.DEAD: len(refused)}
    assert exim.taken() == Counter(f"user{number}@example.com" for number in range(JOBS) if number % 7)
    assert exim.complaints == []


@pytest.mark.parametrize("depth", [1, 8, 64])
@pytest.mark.parametrize("tls", ["none", "starttls"])
@pytest.mark.parametrize("ignored", [(), ("CHUNKING",), ("CHUNKING", "PIPELINING")])
async def test_many_refusals_on_one_connection_leave_nothing_in_doubt(
    start_exim: Callable[..., Exim], workers: WorkerMaker, tls: str, ignored: tuple[str, ...], depth: int
) -> None:
    """Exim ends a session at the eleventh RSET that has no message before it; connections end before that."""
    refused = range(0, MANY_JOBS, 5)
    exim = start_exim(tls=tls, refused=" : ".join(f"user{number}" for number in refused))

    settled = await send(exim, workers, tls=tls, depth=depth, ignored=ignored, jobs=MANY_JOBS, max_size=1)

    assert settled == {Disposition.SENT: MANY_JOBS - len(refused), Disposition.DEAD: len(refused)}
    assert exim.taken() == Counter(f"user{number}@example.com" for number in range(MANY_JOBS) if number % 5)
    assert exim.complaints == []


@pytest.mark.parametrize(("tls", "depth"), [("none", 8), ("none", 64), ("starttls", 8)])
async def test_a_block_of_refusals_in_a_deep_window_leaves_nothing_in_doubt(
    start_exim: Callable[..., Exim], workers: WorkerMaker, tls: str, depth: int
) -> None:
    """Forty bad addresses in a row behind a window that has grown: Exim closes, and what followed was not sent.

    With more than ten in flight under TLS some would be uncertain: see the next test.
    """
    refused = range(150, 190)
    exim = start_exim(tls=tls, refused=" : ".join(f"user{number}" for number in refused))

    settled = await send(exim, workers, tls=tls, depth=depth, jobs=MANY_JOBS, max_size=1, guard=0)

    assert settled.get(Disposition.SENT) == MANY_JOBS - len(refused)
    assert settled.get(Disposition.DEAD) == len(refused)
    assert exim.taken() == Counter(f"user{number}@example.com" for number in range(MANY_JOBS) if number not in refused)


async def test_a_reason_to_close_that_is_written_without_tls_is_told_as_such(
    start_exim: Callable[..., Exim], workers: WorkerMaker
) -> None:
    """Exim says in clear that there are too many commands: the mails behind it are in doubt, and no mail is lost."""
    refused = range(0, MANY_JOBS, 5)
    exim = start_exim(tls="starttls", refused=" : ".join(f"user{number}" for number in refused), nonmail=1)
    options = RelayOptions(
        host="127.0.0.1", port=exim.port, tls="starttls", ca_file=str(exim.folder / "ca.pem"), ehlo_name="c.example.org"
    )
    await workers.push(*(job_bytes(number) for number in range(MANY_JOBS)))
    reporter = workers.make(
        workers.options(
            exim.port,
            relay=Relay(options, Timeouts(), tls_context(options)),
            pool=PoolOptions(max_size=1, pipeline_depth=16),
            retry=RetryPolicy(base_seconds=0.05, cap_seconds=0.2, guard=0),
        )
    )
    with trio.fail_after(90):
        assert await reporter.run() == 0

    whys = [event.why for event in workers.events if isinstance(event, ConnectionClosed)]
    assert any("the relay wrote without TLS" in why for why in whys)
    assert reporter.board.ledger.balances
    assert set(exim.taken()) == {f"user{number}@example.com" for number in range(MANY_JOBS) if number % 5}
    assert sum(exim.taken().values()) - (MANY_JOBS - len(refused)) <= reporter.board.ledger.uncertain
