"""Kill a worker at its first, second, third ... system call that sends, and then at each one that receives.

strace counts the system calls of the worker and kills it on entry to the chosen one; another worker finishes the jobs.
The first run without a kill has passed every point.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import trio
from attrs import define, field

from proving_ground import (
    CountingStore,
    Sums,
    Valkey,
    add_up,
    email_of,
    ending,
    job_of,
    worker_command,
    worker_environment,
    write_config,
)
from trio_worker.capture.server import open_catcher

# The system calls that trio's streams and asyncio's transports use (sendmsg since Python 3.12).
SENDING, RECEIVING = ("sendto", "sendmsg"), ("recvfrom", "recvmsg")
PATIENCE_SECONDS = 60.0


@define
class Tally:
    """The results of all points of one system call."""

    call: str
    points: int = 0
    uncertain: int = 0
    duplicated: int = 0
    failed: list[tuple[int, Sums]] = field(factory=list)


async def run_to_end(command: list[str], folder: Path) -> int:
    with trio.fail_after(PATIENCE_SECONDS), (folder / "out").open("ab") as out:
        process = await trio.run_process(command, stdout=out, stderr=out, check=False, env=worker_environment())
    return process.returncode


async def try_point(call: str, number: int, jobs: int, folder: Path, valkey: Valkey) -> tuple[bool, Sums]:
    """Kill the worker at one point, or at none if it makes fewer calls; return whether it was killed, and the sums."""
    store = CountingStore()
    with valkey.client() as client:
        client.flushall()
        client.rpush("jobs", *(job_of(each) for each in range(jobs)))
        async with open_catcher(store=store) as catcher:
            config = folder / "worker.toml"
            write_config(config, valkey.port, catcher.port)
            strace = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", f"trace={call}"]
            inject = ["-e", f"inject={call}:signal=KILL:when={number}"]
            code = await run_to_end([*strace, *inject, *worker_command(config, "--burst")], folder)
            was_killed = code in {-signal.SIGKILL, 128 + signal.SIGKILL}
            if not was_killed and code:
                raise SystemExit(f"the worker ended with {code} at {call} {number}: see {folder}/out")
            if was_killed:
                code = await run_to_end(worker_command(config, "--burst"), folder)
                if code:
                    raise SystemExit(f"the worker after {call} {number} ended with {code}: see {folder}/out")
            sums = add_up({email_of(each) for each in range(jobs)}, set(), store.delivered, client)
            if catcher.violations:
                raise SystemExit(f"{call} {number}: {catcher.violations[0]}")
    return was_killed, sums


async def enumerate_points(calls: list[str], jobs: int, folder: Path) -> list[Tally]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        valkey = Valkey(folder / "valkey", taken.getsockname()[1])
    valkey.start()
    tallies = []
    with ending([valkey.process] if valkey.process else []):
        for call in calls:
            tally = Tally(call)
            tallies.append(tally)
            was_killed = True
            while was_killed:
                was_killed, sums = await try_point(call, tally.points + 1, jobs, folder, valkey)
                tally.points += was_killed
                tally.uncertain += sums.uncertain
                tally.duplicated += sums.duplicated
                if not sums.holds:
                    tally.failed.append((tally.points, sums))
                print(f"\r{call} {tally.points}", end="", file=sys.stderr, flush=True)
            print(file=sys.stderr)
    return tallies


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/crash points", description=__doc__.partition("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--jobs", type=int, default=1, help="jobs in each run (1)")
    parser.add_argument("--calls", nargs="*", default=[*SENDING, *RECEIVING], help="system calls to kill at")
    options = parser.parse_args()
    if shutil.which("strace") is None:
        print("strace is not installed", file=sys.stderr)
        return 69
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode:  # noqa: S607
        print("strace may not trace here (ptrace is forbidden)", file=sys.stderr)
        return 69
    with tempfile.TemporaryDirectory(prefix="crash-points-") as folder:
        tallies = trio.run(enumerate_points, options.calls, options.jobs, Path(folder))
    print(f"{'killed at':<10} {'points':>6} {'lost':>5} {'duplicated':>10} {'uncertain':>9}")
    for tally in tallies:
        lost = sum(sums.lost + sums.left for _, sums in tally.failed)
        print(f"{tally.call:<10} {tally.points:>6} {lost:>5} {tally.duplicated:>10} {tally.uncertain:>9}")
        for number, sums in tally.failed:
            print(f"  FAILED at {number}: {sums}")
    return int(any(tally.failed for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
