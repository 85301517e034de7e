"""Sharing one mail catcher between processes: who hosts it, who takes over, and the chaos file."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from trio_worker.capture.catcher import Catcher
from trio_worker.capture.chaos import NO_FAULTS, FaultSyntax
from trio_worker.capture.host import host_catcher, read_chaos, read_host, write_chaos
from trio_worker.capture.maildir import list_caught
from trio_worker.capture.options import CaptureOptions, split_listen
from trio_worker.capture.server import CatcherPortTaken

PATIENCE_SECONDS = 60
SESSION = (
    b"EHLO client.example\r\n",
    b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nBDAT 3 LAST\r\na\r\n",
    b"QUIT\r\n",
)


@contextmanager
def patience() -> Iterator[None]:
    with trio.fail_after(PATIENCE_SECONDS):
        yield


@pytest.fixture
async def options(tmp_path: Path) -> CaptureOptions:
    """Options with a port that was free a moment ago."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    return CaptureOptions(listen=f"127.0.0.1:{port}", dir=str(tmp_path / "capture"))


async def converse(options: CaptureOptions) -> str:
    """Send one mail as a client that waits, return all replies."""
    host, port = split_listen(options.listen)
    stream = await trio.open_tcp_stream(host, port)
    heard = bytes(await stream.receive_some())
    async with stream:
        for group in SESSION:
            await stream.send_all(group)
            heard += bytes(await stream.receive_some())
    return heard.decode()


async def test_the_first_hosts_and_keeps_mails_in_the_folder(options: CaptureOptions) -> None:
    """The first process hosts the catcher at once, and writes so in the folder."""
    folder = Path(options.dir)
    with patience():
        async with host_catcher(options) as hosting:
            await converse(options)
            hosted_by = read_host(folder)

            assert hosting.is_host
            assert hosted_by is not None
            assert (hosted_by.pid, hosted_by.port) == (os.getpid(), split_listen(options.listen)[1])
            assert [summary.sender for summary in list_caught(folder)] == ["a@example.com"]

    assert read_host(folder) is None


async def test_the_host_lets_the_login_in_that_it_is_told(options: CaptureOptions) -> None:
    """A worker that logs in to its relay can log in to its own catcher."""
    with patience():
        async with host_catcher(options, ("mailer", "sesame")):
            host, port = split_listen(options.listen)
            async with await trio.open_tcp_stream(host, port) as stream:
                await stream.receive_some()
                await stream.send_all(b"EHLO c\r\n")
                assert b"AUTH CRAM-MD5" in await stream.receive_some()


async def test_the_second_stands_by_and_takes_over(options: CaptureOptions) -> None:
    """While one hosts, another stands by; when the first leaves, the other hosts, on the same port and folder."""
    first_may_leave = trio.Event()

    async def host_first(task_status: trio.TaskStatus[Catcher | None]) -> None:
        async with host_catcher(options) as hosting:
            task_status.started(hosting.catcher)
            await first_may_leave.wait()

    with patience():
        async with trio.open_nursery() as first:
            await first.start(host_first)
            async with host_catcher(options) as second:
                await converse(options)
                stood_by = not second.is_host
                first_may_leave.set()
                catcher = await second.wait_until_host()
                await converse(options)

    assert stood_by
    assert catcher.total == 1
    assert len(list_caught(Path(options.dir))) == 2


async def test_standing_by_can_be_cancelled(options: CaptureOptions) -> None:
    """A process that stands by leaves at once."""
    with patience():
        async with host_catcher(options) as first:
            async with host_catcher(options) as second:
                assert not second.is_host
            await converse(options)

            assert first.catcher is not None
            assert first.catcher.total == 1


HOST_UNTIL_KILLED = """
import sys, trio
from trio_worker.capture.host import host_catcher
from trio_worker.capture.options import CaptureOptions

async def main():
    async with host_catcher(CaptureOptions(sys.argv[1], sys.argv[2])) as hosting:
        print(hosting.is_host, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_a_host_that_is_killed_is_replaced(options: CaptureOptions) -> None:
    """A host killed without warning frees the lock, and the one standing by takes over."""
    with patience():
        async with trio.open_nursery() as nursery:
            other = await nursery.start(run_another_host, options)
            assert await other.stdout.receive_some(1) == b"T"
            async with host_catcher(options) as hosting:
                stood_by = not hosting.is_host
                hosted_by = read_host(Path(options.dir))
                other.kill()
                catcher = await hosting.wait_until_host()
                await converse(options)

    assert stood_by
    assert hosted_by is not None
    assert hosted_by.pid == other.pid
    assert catcher.total == 1


async def run_another_host(options: CaptureOptions, task_status: trio.TaskStatus[trio.Process]) -> None:
    command = [sys.executable, "-c", HOST_UNTIL_KILLED, options.listen, options.dir]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])}
    await trio.run_process(command, stdout=subprocess.PIPE, env=environment, check=False, task_status=task_status)


async def test_a_foreign_program_on_the_port_is_named(options: CaptureOptions) -> None:
    """When the lock is free but the port is not, the error names the address, and the lock is freed."""
    host, port = split_listen(options.listen)
    (listener,) = await trio.open_tcp_listeners(port, host=host)
    with patience():
        with pytest.raises(CatcherPortTaken):
            async with host_catcher(options):
                pass
        await listener.aclose()
        async with host_catcher(options) as hosting:
            assert hosting.is_host


async def test_a_foreign_program_at_takeover_is_waited_for(options: CaptureOptions) -> None:
    """A port that another program grabbed between two hosts is a problem that is shown, and ends with the program."""
    host, port = split_listen(options.listen)
    (listener,) = await trio.open_tcp_listeners(port, host=host)
    write_chaos(Path(options.dir), "")
    with patience(), (Path(options.dir) / "host.lock").open("w") as lock_of_another_host:
        fcntl.flock(lock_of_another_host, fcntl.LOCK_EX)
        async with host_catcher(options) as second:
            fcntl.flock(lock_of_another_host, fcntl.LOCK_UN)
            while second.problem is None:
                await trio.lowlevel.checkpoint()
            problem = second.problem
            await listener.aclose()
            await second.wait_until_host()

            assert problem.port == port
            assert second.problem is None


async def test_chaos_is_in_force_with_the_next_input(options: CaptureOptions) -> None:
    """What write_chaos writes is obeyed from the next input on, by open connections and new ones, until it ends."""
    folder = Path(options.dir)
    with patience():
        async with host_catcher(options) as hosting:
            calm = await converse(options)
            problem = write_chaos(folder, "rcpt=451 every=delay-1ms")
            rough = await converse(options)
            in_words = read_chaos(folder)
            write_chaos(folder, "")
            calm_again = await converse(options)
            assert hosting.catcher is not None
            left = hosting.catcher.faults

    assert problem is None
    assert "451" not in calm
    assert "451" in rough
    assert "451" not in calm_again
    assert in_words == "rcpt=451 every=delay-1ms"
    assert left == NO_FAULTS


async def test_chaos_written_before_the_host_comes_counts(options: CaptureOptions) -> None:
    """A chaos file that is there already is in force from the first connection on; removing it ends it."""
    folder = Path(options.dir)
    write_chaos(folder, "rcpt=451")
    with patience():
        async with host_catcher(options) as hosting:
            assert hosting.catcher is not None
            assert "451" in await converse(options)
            (folder / "chaos").unlink()
            assert "451" not in await converse(options)
            assert hosting.catcher.faults == NO_FAULTS


async def test_a_chaos_file_that_makes_no_sense_changes_nothing(options: CaptureOptions) -> None:
    """A mistake made by hand in the chaos file leaves the faults in force."""
    with patience():
        async with host_catcher(options):
            write_chaos(Path(options.dir), "rcpt=451")
            await converse(options)
            (Path(options.dir) / "chaos").write_text("nonsense")

            assert "451" in await converse(options)


def test_chaos_that_makes_no_sense_is_not_written(tmp_path: Path) -> None:
    """write_chaos says what is wrong and writes nothing."""
    problem = write_chaos(tmp_path, "rcpt=drop nonsense")

    assert isinstance(problem, FaultSyntax)
    assert problem.place == 10
    assert read_chaos(tmp_path) == ""


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:1025", ("127.0.0.1", 1025)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:25", ("::1", 25)),
    ],
)
def test_listen_is_an_address_and_a_port(listen: str, expected: tuple[str, int]) -> None:
    """The forms of capture.listen."""
    assert split_listen(listen) == expected


@pytest.mark.parametrize("listen", ["", "1025", ":1025", "localhost", "localhost:smtp", "localhost:65536", "a:-1"])
def test_anything_else_is_bad_configuration(listen: str) -> None:
    """What is not address and port is refused, with an example."""
    with pytest.raises(ValueError, match=r"such as 127\.0\.0\.1:1025"):
        split_listen(listen)


def test_nobody_hosts_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    """read_host of a missing folder is None and makes no folder."""
    assert read_host(tmp_path / "missing") is None
    assert not (tmp_path / "missing").exists()
