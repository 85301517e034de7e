"""The client whose calls block: it answers as the other one does, and its failures are the same values."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import parse_url

from proving_ground import Valkey
from tests.redis.test_client import tls_before
from tests.support.bridge import Complaints
from tests.support.jobs import job_bytes
from trio_worker.fleet.overview import read_overview
from trio_worker.queue.audit import find_strays
from trio_worker.queue.broker import Broker
from trio_worker.queue.claim import Claims
from trio_worker.queue.counts import count_jobs
from trio_worker.queue.dead_letters import find_job, find_shelved, last_job_id, read_shelf
from trio_worker.queue.keys import keys_of
from trio_worker.queue.options import QueueOptions
from trio_worker.queue.record import Cause, Record
from trio_worker.queue.settlement import Bury, Delay, Settlement
from trio_worker.queue.waiting import peek, release, walk_bodies, walk_waiting
from trio_worker.redis.blocking import BlockingClient, open_blocking_client, run_blocking
from trio_worker.redis.calls import RedisCalls, Unavailable
from trio_worker.redis.client import RedisClient
from trio_worker.redis.endpoint import endpoint_of
from trio_worker.redis.options import RedisOptions
from trio_worker.redis.url import RedisUrl, RedisUrlError, parse_redis_url
from trio_worker.telemetry.heartbeat import Heartbeat, write_heartbeat
from trio_worker.worker.phase import Phase

NOBODY = "redis://127.0.0.1:1"
CAUSE = Cause("refused", "550 5.1.1", "rcpt", "no such user")


@contextmanager
def opened(url: str, **options: str) -> Iterator[BlockingClient]:
    with open_blocking_client(RedisOptions(url=url, **options)) as client:
        yield client


def asked(client: BlockingClient, *words: Any) -> Any:
    return run_blocking(client.command(*words))


async def all_of(pages: Any) -> list[Any]:
    return [page async for page in pages]


async def fill(client: RedisClient) -> list[str]:
    """Put jobs in every state and a worker beside them; return the ids of a dead and of a delayed job."""
    await client.command("RPUSH", "jobs", *map(job_bytes, range(6)))
    broker = Broker(client, QueueOptions())
    claims = await broker.claim(3)
    assert isinstance(claims, Claims)
    dead, delayed, _leased = claims.jobs
    record = Record(claims.at, "Registration", attempts=2, cause=CAUSE)
    await broker.settle([Settlement(dead, Bury(record, CAUSE)).stored])
    await broker.settle([Settlement(delayed, Delay(60.0, record, CAUSE)).stored])
    beat = Heartbeat("a:1", "0", claims.at, Phase.RUNNING, 10, 10)
    await client.run_script("beat", keys_of("jobs"), "a:1", write_heartbeat(beat), 60_000, 0)
    return [dead.job_id, delayed.job_id]


READS: dict[str, Callable[[RedisCalls, list[str]], Awaitable[Any]]] = {
    "count_jobs": lambda client, _ids: count_jobs(client, "jobs"),
    "read_overview": lambda client, _ids: read_overview(client, "jobs"),
    "read_shelf": lambda client, _ids: read_shelf(client, "jobs", "dead", 5, with_bodies=True),
    "read_delayed": lambda client, _ids: read_shelf(client, "jobs", "delayed", 5),
    "last_job_id": lambda client, _ids: last_job_id(client, "jobs", ["dead", "held", "delayed"]),
    "find_shelved": lambda client, ids: find_shelved(client, "jobs", "dead", ids),
    "find_job": lambda client, ids: find_job(client, "jobs", ids[1]),
    "find_no_job": lambda client, _ids: find_job(client, "jobs", "nothing"),
    "peek": lambda client, _ids: peek(client, "jobs", 0, 2),
    "walk_waiting": lambda client, _ids: all_of(walk_waiting(client, "jobs", 10)),
    "walk_bodies": lambda client, _ids: all_of(walk_bodies(client, "jobs")),
    "find_strays": lambda client, _ids: all_of(find_strays(client, "jobs")),
    "release": lambda client, _ids: release(client, "jobs", with_dead=True, only_counts=True),
}


def without_times(found: Any) -> str:
    """What was found, but for the moment of the look: Redis' clock goes on between two."""
    return re.sub(r"\b(at|seen_seconds|oldest_seconds)=[0-9.]+", "", repr(found))


@pytest.mark.parametrize("name", READS)
async def test_both_clients_give_the_same_answer(real_redis: RedisClient, valkey_url: str, name: str) -> None:
    """What redis-py asks in RESP3 this client asks in RESP2: numbers, pairs and maps come in other forms."""
    ids = await fill(real_redis)
    expected = await READS[name](real_redis, ids)
    with opened(valkey_url) as client:
        found = await READS[name](client, ids)

    assert not isinstance(expected, Unavailable)
    assert without_times(found) == without_times(expected)


async def test_a_script_that_redis_does_not_know_is_sent_to_it(real_redis: RedisClient, valkey_url: str) -> None:
    """After SCRIPT FLUSH, alone and together with others."""
    with opened(valkey_url) as client:
        await real_redis.command("SCRIPT FLUSH")
        assert not isinstance(await count_jobs(client, "jobs"), Unavailable)
        await real_redis.command("SCRIPT FLUSH")
        assert not isinstance(await read_overview(client, "jobs"), Unavailable)


async def test_a_connection_that_was_closed_meanwhile_costs_no_call(real_redis: RedisClient, valkey_url: str) -> None:
    """As a server or a proxy does with idle ones."""
    with opened(valkey_url) as client:
        number: Any = await client.command("CLIENT", "ID")
        assert await real_redis.command("CLIENT KILL", "ID", number) == 1
        assert await client.command("SET", "a", "1") == b"OK"
        assert await client.command("GET", "a") == b"1"


async def test_a_refusal_is_a_value_and_the_connection_stays(real_redis: RedisClient, valkey_url: str) -> None:
    """With the words of the server; of several commands the last may be refused."""
    await real_redis.command("SET", "text", "x")
    with opened(valkey_url) as client:
        number = await client.command("CLIENT", "ID")
        refused = await client.command("LPUSH", "text", "1")
        assert isinstance(refused, Unavailable)
        assert refused.is_misconfigured
        assert refused.reason.startswith("WRONGTYPE")
        assert await client.pipeline([("GET", "text"), ("NONSENSE",)], may_fail=1) == [b"x", None]
        assert isinstance(await client.pipeline([("NONSENSE",), ("GET", "text")]), Unavailable)
        assert await client.command("CLIENT", "ID") == number


@pytest.mark.parametrize(("url", "options"), [
    ("redis://localhost", {}),
    ("redis://[::1]:6380/3", {}),
    ("redis://ann:s%40cret@cache:7000/2?client_name=mail", {}),
    ("redis://:secret@cache?db=5", {}),
    ("redis://cache/1?username=ann&password=p%20w&protocol=3", {}),
    ("redis://ann:one@cache", {"username": "ben", "password": "two"}),
    ("rediss://cache:6390", {}),
    ("unix:///run/redis.sock?db=4", {}),
    ("unix://:secret@/run/a%20b.sock", {}),
])  # fmt: skip
def test_an_endpoint_is_read_from_the_url_as_redis_py_does(url: str, options: dict[str, str]) -> None:
    """The login of the options comes first, then that of the URL, then that of its query."""
    parsed = parse_redis_url(url)
    assert isinstance(parsed, RedisUrl)
    expected: dict[str, Any] = {**parse_url(parsed.plain), **options}
    found = endpoint_of(parsed, RedisOptions(url=url, **options))

    assert found.host == expected.get("host", "")
    assert found.port == (0 if found.path else expected.get("port", 6379))
    assert found.path == expected.get("path", "")
    assert (found.username, found.password) == (expected.get("username", ""), expected.get("password", ""))
    assert found.database == expected.get("db", 0)
    assert found.client_name == expected.get("client_name", "")


def test_a_url_that_cannot_be_used_names_its_key() -> None:
    with pytest.raises(RedisUrlError, match=r"redis\.url"), opened("http://:secret@127.0.0.1"):
        pass


def test_a_port_without_a_server_is_unavailable() -> None:
    """It is a value, and names address and reason."""
    with opened(NOBODY) as client:
        answer = asked(client, "PING")

    assert answer == Unavailable("cannot connect to 127.0.0.1:1: Connection refused", is_unsent=True)


@contextmanager
def server_of(replies: bytes, *, is_deaf: bool = False) -> Iterator[str]:
    """A server that answers the first bytes of a connection with these, and then closes it or reads nothing more."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            with connected:
                connected.recv(65_536)
                connected.sendall(replies)
                if is_deaf:
                    over.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize("word", [b"x", b"x" * 20_000_000])
def test_a_server_that_goes_deaf_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch, word: bytes) -> None:
    """Both if it does not answer, and if it does not even read."""
    monkeypatch.setattr("trio_worker.redis.blocking.CALL_SECONDS", 0.2)
    with server_of(b"", is_deaf=True) as url, opened(url) as client:
        answer = asked(client, "SET", "a", word)

    assert isinstance(answer, Unavailable)
    assert not answer.is_refusal
    assert "Timeout" in answer.reason


@pytest.mark.case("A20")
def test_a_reply_that_nobody_asked_for_is_no_answer_to_the_next_call() -> None:
    """The connection that has one is closed, and a new one opened."""
    with server_of(b"+one\r\n+surplus\r\n", is_deaf=True) as url, opened(url) as client:
        assert asked(client, "GET", "a") == b"one"
        held = client._connection
        assert held is not None
        assert not held.is_silent

    with server_of(b"+first\r\n+surplus\r\n") as url, opened(url) as client:
        assert [asked(client, "GET", name) for name in "abc"] == [b"first"] * 3


@pytest.mark.parametrize(("replies", "reason"), [
    (b"", "the connection was closed by Redis"),
    (b"$5\r\nab", "the connection was closed by Redis"),
    (b"!nonsense\r\n", "Protocol error"),
])  # fmt: skip
def test_a_connection_that_breaks_within_an_answer_is_unavailable(replies: bytes, reason: str) -> None:
    """It is unknown whether the command was done, and nothing of the answer is left for the next call."""
    with server_of(replies) as url, opened(url) as client:
        answer = asked(client, "GET", "a")
        assert client._connection is None

    assert isinstance(answer, Unavailable)
    assert not answer.is_refusal
    assert reason in answer.reason


@given(st.binary(max_size=200))
def test_whatever_a_server_answers_is_an_answer_or_unavailable(replies: bytes) -> None:
    """Never an exception, and never a wait beyond the end of the connection."""
    with server_of(replies) as url, opened(url) as client:
        asked(client, "GET", "a")


def test_a_wrong_login_and_a_missing_database_are_refusals(tmp_path: Path) -> None:
    """A password that the server does not take, one that it was not given, and a database that it has not."""
    server = Valkey(tmp_path / "v", _free_port())
    with _running(server), server.client() as owner:
        owner.config_set("requirepass", "secret")
        url = f"redis://127.0.0.1:{server.port}"
        with opened(url, password="secret") as client:
            assert asked(client, "PING") == b"PONG"
        for password in ("", "wrong"):
            with opened(url, password=password) as client:
                refused = asked(client, "PING")
                assert refused.is_login
                assert "password" in refused.reason
        with opened(url) as client:
            # Redis closes the connection at a command of more than ten words before a login.
            refused = run_blocking(client.pipeline([("DEL", *map(str, range(each))) for each in (1, 30, 1)]))
            assert isinstance(refused, Unavailable)
            assert refused.is_login
            assert "needs a password" in refused.reason
        with opened(f"{url}/99", password="secret") as client:
            refused = asked(client, "PING")
            assert refused.is_misconfigured
            assert "the database in redis.url does not exist" in refused.reason


def test_a_password_that_redis_does_not_ask_for_is_no_trouble(tmp_path: Path) -> None:
    """Neither for workers nor for commands: a default user without a password takes any."""
    server = Valkey(tmp_path / "v", _free_port())
    with _running(server), opened(f"redis://127.0.0.1:{server.port}", password="secret") as client:
        assert asked(client, "ECHO", "x") == b"x"


def test_a_unix_url_speaks_through_a_socket(tmp_path: Path) -> None:
    server = Valkey(tmp_path / "v", _free_port(), ("--unixsocket", "run.sock"))
    with _running(server), opened(f"unix://{tmp_path}/v/run.sock?db=2") as client:
        assert asked(client, "RPUSH", "jobs", "x") == 1
        assert b"db=2" in asked(client, "CLIENT", "INFO")

    with opened(f"unix://{tmp_path}/nothing.sock") as client:
        assert "No such file or directory" in asked(client, "PING").reason


@pytest.mark.parametrize(("name", "is_trusted", "words"), [
    ("localhost", True, ""),
    ("elsewhere.example", True, "another host name than that in redis.url (Hostname mismatch"),
    ("localhost", False, "not trusted (unable to get local issuer certificate): set redis.ca_file"),
])  # fmt: skip
async def test_a_rediss_url_speaks_tls_to_a_server_it_trusts(
    bridge: Complaints, valkey_url: str, tmp_path: Path, name: str, words: str, *, is_trusted: bool
) -> None:
    """redis.ca_file names the authority; another name or authority is refused, and the reason is given."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def ask(url: str) -> list[Any]:
        with opened(url, ca_file=str(tmp_path / "ca.pem") if is_trusted else "") as client:
            return [asked(client, "ECHO", "x"), asked(client, "ECHO", "y")]

    login = valkey_url.partition("//")[2].rpartition("@")[0]
    async with tls_before(valkey_url, authority.issue_cert(name)) as port:
        answers = await trio.to_thread.run_sync(partial(ask, f"rediss://{login}@localhost:{port}"))

    if words:
        assert all(words in answer.reason for answer in answers)
    else:
        assert answers == [b"x", b"y"]


def test_a_coroutine_that_waits_for_an_event_loop_is_a_bug() -> None:
    """It is named at once; nothing hangs."""

    class Waits:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def waiting() -> None:
        await Waits()

    with pytest.raises(RuntimeError, match="other than a blocking call"):
        run_blocking(waiting())


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@contextmanager
def _running(server: Valkey) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.kill()
