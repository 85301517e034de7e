"""The README and CONTRIBUTING: every command in them is run, here or by .ci/run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.jobs import job_bytes
from tests.support.paths import ROOT

README = ROOT / "README.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = [README, CONTRIBUTING, *sorted((ROOT / "docs").glob("*.md"))]
# Run by .ci/run itself, because they make environments.
RUN_BY_CI = {
    "tools/demo",
    "python -m venv .venv/use && .venv/use/bin/pip install .",
    "export PATH=$PWD/.venv/use/bin:$PATH",
    "tools/test",
    ".ci/run",
}
LEFT_OUT = (".git", ".venv", "__pycache__", ".*cache", ".hypothesis", ".fuzz", "var", "logs")
WAIT_SECONDS = 90


def commands(page: Path) -> list[str]:
    """Return the commands of all shell blocks of a page, without their comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    lines = [re.sub(r"\s{2,}#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A folder like a checkout, and the environment to run commands in: free ports, and the programs on PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    dev = tmp_path / "conf" / "dev.toml"
    # Not the usual port: a worker with the default URL, somewhere on this machine, would send these jobs.
    dev.write_text(dev.read_text("utf-8").replace("embedded:var/valkey", "embedded:var/valkey?port=0"), "utf-8")
    (tmp_path / "jobs.ndjson").write_bytes(job_bytes(1) + b"\n")
    trio_worker = programs / "trio-worker"
    trio_worker.write_text(f'#!/bin/sh\nexec {sys.executable} -m trio_worker "$@"\n')
    redis_cli = programs / "redis-cli"
    redis_cli.write_text(
        f"#!{sys.executable}\nimport json, sys\nfrom redis import Redis\n"
        "port = json.load(open('var/valkey/server.json'))['port']\n"
        "print(Redis(port=port).execute_command(*sys.argv[1:]))\n"
    )
    for program in (trio_worker, redis_cli):
        program.chmod(0o755)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TRIO_WORKER__SMTP__PORT": str(port),
        "TRIO_WORKER__CAPTURE__LISTEN": f"127.0.0.1:{port}",
        "PWD": str(tmp_path),
    }
    worker = subprocess.Popen(
        [trio_worker, "run"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    out = worker.stdout
    assert out is not None
    until_running(out)
    drained = threading.Thread(target=out.read, daemon=True)
    drained.start()
    yield environment
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(WAIT_SECONDS) == 0
    drained.join(WAIT_SECONDS)
    out.close()


def until_running(out: Iterator[str]) -> None:
    for line in out:
        if "running" in line:
            return


def run(command: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=environment["PWD"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_every_command_does_what_the_readme_says(shell: dict[str, str]) -> None:
    """In the order of the page, against a worker on conf/dev.toml; an ID is that of a job that died."""
    bad = '{"task_type":"Email","data":{"email_type":"Nope","data":{}}}'
    assert run(f"redis-cli RPUSH jobs '{bad}'", shell).returncode == 0
    job_id = ""
    for command in commands(README):
        if command in RUN_BY_CI or command == "trio-worker run":
            continue
        if command.startswith("trio-worker run --config"):
            continue  # the file that was just written needs a relay and a Redis
        if "show last" in command:
            wait_for_mail(shell)
        if " ID" in command and not job_id:
            listed = run("trio-worker dead list --json", shell).stdout
            job_id = re.findall(r'"job_id": "([^"]+)"', listed)[0]
        # The production file refuses the catcher that the others are given here.
        given = {name: value for name, value in shell.items() if "mine" not in command or "CAPTURE" not in name}
        done = run(command.replace(" ID", f" {job_id}"), given)
        if "config init" in command:
            put_in_own_values(shell)
        # There may be no dead letter of that code, and an ID may have been sent meanwhile.
        allowed = {0, 3} if "ID" in command or "--code" in command else {0}
        assert done.returncode in allowed, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


def put_in_own_values(shell: dict[str, str]) -> None:
    """Edit the file that was written, as the page says: config check refuses its placeholders."""
    path = Path(shell["PWD"]) / "conf" / "mine.toml"
    text = path.read_text("utf-8").replace("smtp.example.com", "smtp.shop.dev").replace("app.example.com", "shop.dev")
    path.write_text(text.replace("no-reply@example.com", "no-reply@shop.dev"), "utf-8")


def wait_for_mail(shell: dict[str, str]) -> None:
    for _ in range(100):
        if '"caught": 0' not in run("trio-worker capture ls --json", shell).stdout:
            return
    pytest.fail("no mail was caught")


def test_every_command_of_contributing_works_in_a_checkout(tmp_path: Path) -> None:
    """In the order of the page, in a copy of the checkout, with the environment that these tests run in."""
    environment = Path(sys.prefix)
    wanted = subprocess.run(
        ["cksum"],  # noqa: S607  wherever it is
        input=(ROOT / "pyproject.toml").read_bytes(),
        capture_output=True,
        check=True,
    )
    made_for = environment / "made-for"
    if not made_for.is_file() or made_for.read_bytes() != wanted.stdout:
        pytest.skip("needs the environment that tools/test makes: another one would be made here")
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / f"{sys.version_info.major}.{sys.version_info.minor}").symlink_to(environment)
    # Nothing of this run: pytest in another process must not think that it is a part of it.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    script = "\n".join(command for command in commands(CONTRIBUTING) if command not in RUN_BY_CI)

    done = subprocess.run(
        ["bash", "-e", "-c", script],  # noqa: S607  wherever it is
        cwd=checkout,
        env={**inherited, "TRIO_WORKER_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=2 * WAIT_SECONDS,
        check=False,
    )

    assert done.returncode == 0, (done.stdout, done.stderr)
    for name in ("conf/dev.toml", "docs/configuration.md", "docs/metrics.md", "trio_worker/option.py"):
        assert (checkout / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_every_file_that_contributing_names_is_there() -> None:
    """In code style, with a folder of the project before it; NAME stands for any name."""
    named = re.findall(r"`((?:trio_worker|tests|tools|conf|docs)/[^`*\s]*)`", CONTRIBUTING.read_text("utf-8"))

    assert len(named) > 10
    for name in named:
        assert "NAME" in name or (ROOT / name).exists(), name


def test_what_ci_runs_is_there() -> None:
    """The pages' own tools can be executed, and .ci/run runs them."""
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "tools/demo" in ci
    assert "tools/test" in ci
    assert "pip install" in ci
    for tool in ("tools/demo", "tools/test", "tools/crash", ".ci/run"):
        assert os.access(ROOT / tool, os.X_OK)


def test_every_link_leads_somewhere() -> None:
    """From the README, CONTRIBUTING and each page of docs/, to a file of the project."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text("utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), (page.name, target)


def anchors(page: str) -> set[str]:
    """The names that GitHub gives to the headings of a page: lower case, bare, - for a space, -1 for again."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


def lost_anchors(page: Path) -> list[str]:
    """Links of a page to a heading that is not there, on the page itself or on another."""
    lost = []
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text("utf-8")):
        other = page if not target else page.parent / target
        if not target.startswith("https://") and anchor not in anchors(other.read_text("utf-8")):
            lost.append(f"{target}#{anchor}")
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_anchor_is_a_heading(page: Path) -> None:
    """From the README, CONTRIBUTING and each page of docs/, to a heading of a page."""
    assert lost_anchors(page) == []


def test_a_lost_anchor_is_found_out(tmp_path: Path) -> None:
    """Headings with code, with punctuation and twice the same; one in a code block is none."""
    page = tmp_path / "page.md"
    page.write_text(
        "# A `queue`: how?\n## Two\n## Two\n```sh\n# no heading\n```\n"
        "[a](#a-queue-how) [b](#two) [c](page.md#two-1) [d](#two-2) [e](page.md#no-heading) [f](https://a.example/#g)\n"
    )

    assert lost_anchors(page) == ["#two-2", "page.md#no-heading"]
