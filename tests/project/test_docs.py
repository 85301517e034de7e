"""The pages of docs/: commands that exist, settings that exist, snippets that run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import pytest
import trio
from cyclopts.exceptions import MissingArgumentError

from tests.support.paths import ROOT
from trio_worker.bridge import open_bridge
from trio_worker.cli.command_line import app
from trio_worker.jobs.email_type import KINDS, FieldSpec
from trio_worker.jobs.job import Job, decode
from trio_worker.redis.client import open_redis_client
from trio_worker.redis.options import RedisOptions
from trio_worker.settings.reader import KEYS, TYPE_KEYS

PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
DEFAULT_URL = "redis://127.0.0.1:6379/0"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Every call of trio-worker: lines of shell blocks, and calls in running text."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    lines += [call.replace("\n", " ") for call in re.findall(r"`(trio-worker [^`]*)`", text)]
    words = [shlex.split(line, comments=True) for line in lines]
    return [call[1:] for call in words if call[:1] == ["trio-worker"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_is_understood(page: Path) -> None:
    """Nouns, verbs and options as they are written; nothing is run."""
    for words in commands(page):
        try:
            app.parse_args(words, exit_on_error=False, print_error=False)
        except MissingArgumentError:
            continue  # in running text a command may be named without what it needs


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    """A key in code style is one of ours."""
    sections = {key.partition(".")[0] for key in KEYS if "." in key}
    known = set(KEYS) | {f"{key}_file" for key in KEYS} | {f"mail.types.<type>.{name}" for name in TYPE_KEYS}
    named = re.findall(r"`([a-z]+(?:\.[a-z_]+)+)(?: = [^`]*)?`", page.read_text("utf-8"))

    for key in named:
        if key.partition(".")[0] in sections and not key.endswith((".py", ".log", ".toml", ".json")):
            assert key in known, key


def test_jobs_page_has_jobs_that_are_taken(catalogue: Any) -> None:
    """The JSON that it shows decodes."""
    (shown, *_) = blocks(ROOT / "docs" / "jobs.md", "json")

    assert isinstance(decode(shown.strip().encode(), catalogue.types), Job)


def pushed(url: str) -> list[bytes]:
    async def take() -> list[bytes]:
        async with open_bridge(print), open_redis_client(RedisOptions(url=url), 5.0) as client:
            found = await client.command("LRANGE", "jobs", 0, -1)
            await client.command("FLUSHALL")
            assert isinstance(found, list)
            return found

    return trio.run(take)


def assert_pushes_the_job(url: str, command: list[str], folder: Path) -> None:
    pushed(url)
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    (job,) = pushed(url)
    shown = json.loads(blocks(ROOT / "docs" / "jobs.md", "json")[0])
    assert json.loads(job) == shown


def test_python_producer_runs(valkey_url: str, tmp_path: Path) -> None:
    """The snippet pushes the job of the page."""
    (snippet,) = blocks(ROOT / "docs" / "jobs.md", "python")
    assert DEFAULT_URL in snippet
    code = snippet.replace(DEFAULT_URL, valkey_url) + "queue.close()\n"

    assert_pushes_the_job(valkey_url, [sys.executable, "-c", code], tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js and npm")
def test_node_producer_runs(valkey_url: str, tmp_path: Path) -> None:
    """The snippet pushes the job of the page, with the package redis from npm."""
    (snippet,) = blocks(ROOT / "docs" / "jobs.md", "js")
    assert DEFAULT_URL in snippet
    (tmp_path / "push.mjs").write_text(snippet.replace(DEFAULT_URL, valkey_url))
    subprocess.run(["npm", "install", "--silent", "redis"], cwd=tmp_path, check=True)  # noqa: S607  wherever it is

    assert_pushes_the_job(valkey_url, ["node", "push.mjs"], tmp_path)


# The line of a snippet that holds its job, as a pattern, and what makes JSON of that language's literal.
LITERALS = {
    "python": (r"^job = (\{.*?^\})", ((r",(\s*\})", r"\1"),)),
    "js": (r"^const job = (\{.*?^\});", ((r"(\w+): ", r'"\1": '), (r",(\s*\})", r"\1"))),
    "rust": (r"json!\((\{.*?\})\);", ()),
    "go": (r"json\.Marshal\((map.*?\})\)\n", ((r"map\[string\]any\{", "{"), (r",(\s*\})", r"\1"))),
}


@pytest.mark.parametrize("language", LITERALS)
def test_every_producer_pushes_the_job_of_the_page(language: str, catalogue: Any) -> None:
    """Without the language at hand: the literal in the snippet, read as JSON, is the page's own, and is taken."""
    page = ROOT / "docs" / "jobs.md"
    (snippet,) = blocks(page, language)
    pattern, replacements = LITERALS[language]
    (literal,) = re.findall(pattern, snippet, re.DOTALL | re.MULTILINE)
    for found, by in replacements:
        literal = re.sub(found, by, literal)

    assert json.loads(literal) == json.loads(blocks(page, "json")[0])
    assert isinstance(decode(literal.encode(), catalogue.types), Job)


def fetch(command: list[str], folder: Path) -> None:
    """Have a package manager fetch what a snippet needs; where its registry cannot be reached the test is skipped."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{' '.join(command[1:])}: {done.stderr.strip().splitlines()[-1]}")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cargo") is None, reason="needs Rust's cargo")
def test_rust_producer_runs(valkey_url: str, tmp_path: Path) -> None:
    """The snippet pushes the job of the page, with the crates that the page names."""
    (snippet,) = blocks(ROOT / "docs" / "jobs.md", "rust")
    assert DEFAULT_URL in snippet
    cargo = shutil.which("cargo") or ""
    subprocess.run([cargo, "init", "--quiet", "--name", "push", "."], cwd=tmp_path, check=True)
    fetch([cargo, "add", "--quiet", "redis", "serde_json"], tmp_path)
    (tmp_path / "src" / "main.rs").write_text(snippet.replace(DEFAULT_URL, valkey_url))
    fetch([cargo, "fetch", "--quiet"], tmp_path)
    subprocess.run([cargo, "build", "--quiet"], cwd=tmp_path, check=True)

    assert_pushes_the_job(valkey_url, [str(tmp_path / "target" / "debug" / "push")], tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go")
def test_go_producer_runs(valkey_url: str, tmp_path: Path) -> None:
    """The snippet pushes the job of the page, with the module that the page names."""
    (snippet,) = blocks(ROOT / "docs" / "jobs.md", "go")
    address = "127.0.0.1:6379"
    assert address in snippet
    (tmp_path / "main.go").write_text(snippet.replace(address, urlsplit(valkey_url).netloc))
    go = shutil.which("go") or ""
    subprocess.run([go, "mod", "init", "push"], cwd=tmp_path, check=True)
    fetch([go, "mod", "tidy"], tmp_path)
    subprocess.run([go, "build", "-o", "push", "."], cwd=tmp_path, check=True)

    assert_pushes_the_job(valkey_url, [str(tmp_path / "push")], tmp_path)


def test_type_of_the_jobs_page_can_be_made(work_folder: Path) -> None:
    """Its fields.toml and two templates are a type; a preview shows it."""
    page = ROOT / "docs" / "jobs.md"
    folder = work_folder / "templates" / "OrderShipped"
    folder.mkdir(parents=True)
    (folder / "fields.toml").write_text(blocks(page, "toml")[0])
    (folder / "subject.j2").write_text("Order {{ order }}")
    (folder / "text.j2").write_text("Your order {{ order }} is on its way.")
    config = work_folder / "mine.toml"
    config.write_text('[mail]\ntemplate_dirs = ["templates"]\n')

    assert app(["config", "check", "--config", str(config)]) in (0, None)


def test_jobs_page_names_every_kind_and_key_of_a_field() -> None:
    """Each has a row, and no other kind is named."""
    section = (ROOT / "docs" / "jobs.md").read_text("utf-8").partition("## A type of your own")[2]
    keys, kinds = (
        re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
        for table in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    )

    assert kinds == list(KINDS)
    assert keys == ["says", "unsubscribe_path", "[fields.NAME]", *[each.name for each in attrs.fields(FieldSpec)][1:]]


def test_every_module_that_the_journey_names_is_there_in_its_order() -> None:
    """Links of the journey lead to code; the numbered steps are one list."""
    text = (ROOT / "docs" / "journey.md").read_text("utf-8")

    assert [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)] == list(range(1, 13))
    for target in re.findall(r"\]\(\.\./(trio_worker/[^)]+)\)", text):
        assert (ROOT / target).is_file(), target
