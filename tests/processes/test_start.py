"""What a worker imports, and when: little, and all of it before its first claim."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap

import trio

from tests.support.faults import faults
from tests.support.jobs import job_bytes
from tests.support.paths import ROOT
from tests.support.processes import Program, Programs, patience
from trio_worker.capture.catcher import Catcher
from trio_worker.redis.client import RedisClient
from trio_worker.telemetry import probe

RECORDED = textwrap.dedent("""
    import sys
    from trio_worker.__main__ import main
    from trio_worker.cli import run

    looked_for = []

    class Recorder:
        @staticmethod
        def find_spec(name, *more):
            looked_for.append(name)

    work = run.Worker.run

    async def work_recorded(worker):
        sys.meta_path.insert(0, Recorder)
        return await work(worker)

    run.Worker.run = work_recorded
    sys.argv = ["trio-worker", *sys.argv[1:]]
    try:
        main()
    finally:
        print("late:", *looked_for, file=sys.stderr)
        print("loaded:", *sys.modules, file=sys.stderr)
""")


# The libraries of a worker with metrics. Each costs its part of every start.
LIBRARIES = {
    "aiosmtplib",
    "attr",
    "attrs",
    "cattrs",
    "cryptography",  # redis looks whether it is there
    "greenlet",
    "h11",
    "hiredis",
    "idna",
    "jinja2",
    "markupsafe",
    "outcome",
    "prometheus_client",
    "redis",
    "rich",
    "sniffio",
    "sortedcontainers",
    "trio",
    "trio_asyncio",
    "typing_extensions",
}


def told(program: Program, what: str) -> set[str]:
    line = re.search(rf"^{what}:(.*)$", program.complained, re.MULTILINE)
    assert line is not None, program.complained
    return set(line[1].split())


async def test_a_service_imports_nothing_after_its_first_claim_and_never_what_draws(
    programs: Programs, real_redis: RedisClient, relay: Catcher
) -> None:
    """An import needs a file descriptor, and there may be none; and it delays mails."""
    relay.faults = faults("rcpt=451:first2")
    listen = f"unix:{programs.folder}/w.sock"
    with programs.config.open("a") as config:
        config.write(f'[metrics]\nlisten = "{listen}"\n')
    program = await programs.start_python(RECORDED, "run", "--no-dashboard")
    with patience():
        await program.until_printed("running")
        jobs = [job_bytes(number) for number in range(20)]
        jobs += [b"{", job_bytes(20, email="x"), job_bytes(21).replace(b"Registration", b"Unheard")]
        jobs += [job_bytes(22).replace(b"user 22", "Zoë 中".encode())]
        await real_redis.command("RPUSH", "jobs", *jobs)
        await relay.wait_for_mails(21)
        for page in ("/metrics", "/livez", "/readyz"):
            await trio.to_thread.run_sync(probe.ask, listen, page)
        program.signal(signal.SIGUSR1)
        program.signal(signal.SIGHUP)
        await program.until_printed("settings read")
        program.signal(signal.SIGTERM)
        assert await program.end() == 0, program.complained

    assert program.ledger["sent"] == 21
    assert program.ledger["dead"] == 3
    assert told(program, "late") == set()
    drawing = {
        "rich.console",
        "rich.live",
        "trio_worker.dashboard.cells",
        "trio_worker.dashboard.live",
        "trio_worker.dashboard.screen",
    }
    loaded = told(program, "loaded")
    assert not loaded & {*drawing, "trio_worker.redis.embedded", "trio_worker.capture.server"}
    foreign = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names - {"__main__", "trio_worker"}
    assert {name for name in foreign if not name.startswith("_")} <= LIBRARIES


def test_a_line_with_words_beyond_ascii_opens_no_file() -> None:
    """The worker logs without a free file descriptor, and the text of a relay may have any characters."""
    code = textwrap.dedent("""
        import resource
        from trio_worker.dashboard.cell_text import printable_cells
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        print(printable_cells("Zoë 中"))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)

    assert (done.stdout, done.stderr) == ("Zoë 中\n", "")
