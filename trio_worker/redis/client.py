"""Trio. Redis clients without hidden retries or reused dirty connections, and with a time limit on every call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Any, TypeAlias, assert_never, cast

import trio
from attrs import field
from redis import __version__, exceptions
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.maint_notifications import MaintNotificationsConfig

from trio_worker.bridge import call, call_breakable, call_inline
from trio_worker.records import define
from trio_worker.redis.calls import RedisAnswer, ScriptCall, Unavailable
from trio_worker.redis.connection import (
    FindingTcpConnection,
    FindingTlsConnection,
    OpenFirstPool,
    Rostered,
    TcpConnection,
    TlsConnection,
    UnixConnection,
    ask_once,
)
from trio_worker.redis.deadlines import ASK_SECONDS, CALL_ELSEWHERE_SECONDS, CALL_SECONDS, CONNECT_SECONDS
from trio_worker.redis.errors import redis_secrets, shown
from trio_worker.redis.failures import FAILURES, understand
from trio_worker.redis.options import RedisOptions
from trio_worker.redis.primary import ClusterPrimary, Primary, SentinelPrimary, slot_of
from trio_worker.redis.scripts import TRIAL, Script, read_scripts, run_scripts
from trio_worker.redis.tls import redis_tls_context
from trio_worker.redis.trial import commands_of, read_trial, tried_with
from trio_worker.redis.url import RedisUrl, RedisUrlError, RedisUrlFault, Way, parse_redis_url
from trio_worker.secret_mask import NO_SECRETS, SecretMask

# How much longer than a blocking wait the socket's timeout is: a busy Redis wakes its clients late.
WAIT_MARGIN_SECONDS = 5.0
WAIT_MARGIN_ELSEWHERE_SECONDS = 2.0


# Called after each call with the script's name (or the command's first word), the seconds it took, and its failure.
OnCall: TypeAlias = Callable[[str, float, "Unavailable | None"], object]


@define
class RedisClient:
    """Calls to one Redis: ``client`` for commands that answer at once, ``waiter`` for the blocking wait.

    ``abort_calls`` aborts the connections of ``client``, so that all calls on them end. ``look_elsewhere`` aborts all
    connections and forgets the primary, because a server said that it does not take writes. ``follow_primary`` asks the
    Sentinels, and does the same if they name another server; None without Sentinels.

    All methods are shielded from cancellation, except `wait` and `run_script_breakably`, whose reply may be lost. A
    failure of Redis or the network is returned as `Unavailable`, not raised.
    """

    client: Redis
    waiter: Redis
    abort_calls: Callable[[], object] = lambda: None
    look_elsewhere: Callable[[], object] = lambda: None
    follow_primary: Callable[[], Awaitable[None]] | None = None
    scripts: dict[str, Script] = field(factory=read_scripts)
    calls: int = 0
    answered_at: float = -inf  # time of the last successful call (local clock, seconds)
    secrets: SecretMask = NO_SECRETS  # masked in what Redis says of a failure
    on_call: OnCall | None = None  # for metrics; not called for the blocking wait
    _tried: set[tuple[str, str]] = field(factory=set)  # scripts and queues whose commands are known to be allowed

    async def run_script(self, name: str, keys: Sequence[str], *args: bytes | str | int) -> RedisAnswer | Unavailable:
        """Run a script of the queue; after NOSCRIPT (a restart, SCRIPT FLUSH) its text is sent, not its digest."""
        return await self._run_script(call_inline, name, keys, args)

    async def run_script_breakably(
        self, name: str, keys: Sequence[str], *args: bytes | str | int
    ) -> RedisAnswer | Unavailable:
        """Run a script as `run_script` does, but end it on a cancel: only for a script whose reply may be lost."""
        return await self._run_script(call_breakable, name, keys, args)

    async def run_two_scripts(
        self, keys: Sequence[str], first: ScriptCall, second: ScriptCall
    ) -> tuple[RedisAnswer | Unavailable, RedisAnswer | Unavailable]:
        """Run two scripts one after the other in one round trip; return both answers."""
        for name, _ in (first, second):
            if (name, keys[0]) not in self._tried and (denial := await self._try(call_inline, name, keys)) is not None:
                return denial, denial
        self.calls += 1
        began, commands = trio.current_time(), []
        for name, args in (first, second):
            commands.append(("EVALSHA", self.scripts[name].digest, len(keys), *keys, *args))
        answers = await _caught(call_inline, _execute_all, self.client, commands)
        if isinstance(answers, Unavailable):
            answers = [answers, answers]
        found = []
        for (name, args), answer in zip((first, second), answers, strict=True):
            result = understand(answer) if isinstance(answer, Exception) else answer
            if isinstance(result, Unavailable) and result.reason.startswith("NOSCRIPT"):
                result = await self.run_script(name, keys, *args)
            found.append(self._noted(result, name, began))
        return found[0], found[1]

    async def command(self, *args: bytes | str | float) -> RedisAnswer | Unavailable:
        """Run one command that answers at once; redis-py converts some answers."""
        self.calls += 1
        began = trio.current_time()
        answer = await _caught(call_inline, self.client.execute_command, *args)
        return self._noted(answer, str(args[0]), began)

    async def _run_script(
        self, call_by: Callable[..., Awaitable[Any]], name: str, keys: Sequence[str], args: Sequence[bytes | str | int]
    ) -> RedisAnswer | Unavailable:
        script = self.scripts[name]
        if (name, keys[0]) not in self._tried and (denial := await self._try(call_by, name, keys)) is not None:
            return denial
        answer = await self._call(call_by, name, "EVALSHA", script.digest, len(keys), *keys, *args)
        if isinstance(answer, Unavailable) and answer.reason.startswith("NOSCRIPT"):
            return await self._call(call_by, name, "EVAL", script.text, len(keys), *keys, *args)
        return answer

    async def _try(self, call_by: Callable[..., Awaitable[Any]], name: str, keys: Sequence[str]) -> Unavailable | None:
        """Before a script that writes runs for the first time, or after a refusal, try all commands that it may need.

        Returns why it must not run.
        """
        if self.scripts[name].writes:
            names = tried_with(name)
            text, commands = self.scripts[TRIAL].text, commands_of(self.scripts, names)
            answer = await self._call(call_by, TRIAL, "EVAL", text, len(keys), *keys, *commands)
            denial = answer if isinstance(answer, Unavailable) else read_trial(answer)
            if denial is not None:
                return denial
            self._tried |= {(each, keys[0]) for each in names}
        else:
            self._tried.add((name, keys[0]))
        return None

    async def _call(
        self, call_by: Callable[..., Awaitable[Any]], doing: str, *args: bytes | str | float
    ) -> RedisAnswer | Unavailable:
        self.calls += 1
        began = trio.current_time()
        return self._noted(await _caught(call_by, _execute, self.client, *args), doing, began)

    async def pipeline(
        self, commands: Sequence[Sequence[bytes | str | float]], doing: str = "pipeline", may_fail: int = 0
    ) -> list[RedisAnswer] | Unavailable:
        """Run commands in one round trip, not as a transaction; return all answers, or the first error.

        The last ``may_fail`` commands may be refused: their answer is then None.
        """
        self.calls += 1
        batch = self.client.pipeline(transaction=False)
        for command in commands:
            batch.execute_command(*command)
        began = trio.current_time()
        # redis-py would put the whole command before the text of an error.
        answers = await _caught(call_inline, partial(batch.execute, raise_on_error=False))
        if not isinstance(answers, Unavailable):
            answers = _without_errors(answers, may_fail)
        noted: list[RedisAnswer] | Unavailable = self._noted(answers, doing, began)
        return noted

    async def run_scripts(
        self,
        keys: Sequence[str],
        calls: Sequence[ScriptCall],
        commands: Sequence[Sequence[bytes | str | float]] = (),
        may_fail: int = 0,
    ) -> list[RedisAnswer] | Unavailable:
        """Run scripts, each with its arguments, and then commands, all in one round trip; see `pipeline`."""
        return await run_scripts(self.pipeline, self.scripts, keys, calls, commands, may_fail)

    async def wait(self, key: str, seconds: float) -> bool | Unavailable:
        """Wait until the list has an element, at most ``seconds`` (more than 0), without changing the list.

        ``BLMOVE key key LEFT LEFT`` is a blocking peek: a lost reply loses nothing, so a cancel just drops the
        connection.
        """
        self.calls += 1
        command = ("BLMOVE", key, key, "LEFT", "LEFT", f"{seconds:.3f}")
        head = self._noted(await _caught(call_breakable, _execute, self.waiter, *command))
        return head if isinstance(head, Unavailable) else head is not None

    def _noted(
        self, answer: RedisAnswer | Unavailable, doing: str = "", began: float = 0.0
    ) -> RedisAnswer | Unavailable:
        unavailable = answer if isinstance(answer, Unavailable) else None
        now = trio.current_time()
        if unavailable is None:
            self.answered_at = now
        else:
            answer = unavailable = shown(unavailable, self.secrets)
            if unavailable.is_elsewhere:
                self.look_elsewhere()
            if unavailable.is_denied or not unavailable.is_refusal:
                # Permissions have changed, or the next connection may lead to another server.
                self._tried.clear()
        if self.on_call is not None and doing:
            self.on_call(doing, now - began, unavailable)
        return answer


@asynccontextmanager
async def open_redis_client(
    options: RedisOptions, longest_wait_seconds: float, queue_name: str = "jobs"
) -> AsyncIterator[RedisClient]:
    """Open clients for a URL that is not ``embedded:``; connections are opened when first used, closed at the end.

    ``queue_name`` decides which node of a cluster is used. Raises `RedisUrlError` for a URL that cannot be used.
    """
    url = parse_redis_url(options.url)
    if isinstance(url, RedisUrlFault):
        raise RedisUrlError(f"redis.url: {url.reason}")
    primary = _primary_of(url, queue_name)
    callers: set[Any] = set()
    waiters: set[Any] = set()
    call_seconds = CALL_SECONDS if primary is None else CALL_ELSEWHERE_SECONDS
    margin_seconds = WAIT_MARGIN_SECONDS if primary is None else WAIT_MARGIN_ELSEWHERE_SECONDS
    rosters = (callers, waiters)
    client = _client(options, url, primary, call_seconds, callers, rosters)
    waiter = _client(options, url, primary, longest_wait_seconds + margin_seconds, waiters, rosters)

    def look_elsewhere() -> None:
        if primary is not None:
            primary.forget()
        _abort(callers | waiters)

    async def follow_primary() -> None:
        node = await _caught(call, cast("Primary", primary).locate, client.connection_pool.connection_kwargs["ask"])
        if isinstance(node, Unavailable):
            return
        if any(each.is_open and (each.host, each.port) != node for each in callers | waiters):
            look_elsewhere()

    try:
        yield RedisClient(
            client,
            waiter,
            lambda: _abort(callers),
            look_elsewhere,
            follow_primary if url.way is Way.SENTINEL else None,
            secrets=redis_secrets(options),
        )
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CONNECT_SECONDS):
            for each in (waiter, client):
                await _caught(call, each.aclose)


def _abort(roster: set[Any]) -> None:
    for connection in roster:
        connection.abort()


def _primary_of(url: RedisUrl, queue_name: str) -> Primary | None:
    match url.way:
        case Way.DIRECT:
            return None
        case Way.SENTINEL:
            return SentinelPrimary(list(url.nodes), url.service)
        case Way.CLUSTER:
            return ClusterPrimary(list(url.nodes), slot_of(queue_name))
        case _:
            assert_never(url.way)


def _client(
    options: RedisOptions,
    url: RedisUrl,
    primary: Primary | None,
    seconds: float,
    roster: set[Any],
    rosters: Sequence[set[Any]],
) -> Redis:
    try:
        settings = cast("dict[str, Any]", parse_url(url.plain))
    except ValueError as error:
        raise RedisUrlError(f"redis.url: {error}") from None
    settings.pop("connection_class", None)
    if options.username:
        settings["username"] = options.username
    if options.password:
        settings["password"] = options.password
    settings.update(
        roster=roster,
        socket_timeout=seconds,
        socket_connect_timeout=CONNECT_SECONDS,
        # redis-py would repeat commands by itself, even MULTI and LMOVE; we repeat only what is idempotent.
        retry=Retry(NoBackoff(), 0),
        # If enabled (the default since 8.1), the pool hands out connections with an unread reply.
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        # redis-py would read its version from a file for each connection; there may be no file descriptor free.
        driver_info=DriverInfo(lib_version=__version__),
    )
    connection: type[Any] = TcpConnection if primary is None else FindingTcpConnection
    asking: type[Any] = TcpConnection
    if url.plain.startswith("rediss:"):
        connection, asking = (TlsConnection if primary is None else FindingTlsConnection), TlsConnection
        redis_tls_context(options.ca_file, options.cert_file, options.key_file)
        if options.ca_file:
            settings["ssl_ca_certs"] = options.ca_file
        if options.cert_file:
            settings.update(ssl_certfile=options.cert_file, ssl_keyfile=options.key_file or options.cert_file)
    elif url.plain.startswith("unix:"):
        connection = UnixConnection
    if primary is not None:
        ask = partial(ask_once, asking, _settings_for_asking(settings, url.way, options), url.way is Way.SENTINEL)
        settings.update(primary=primary, ask=ask, rosters=rosters)
    return Redis.from_pool(OpenFirstPool(connection_class=connection, max_connections=32, **settings))


def _settings_for_asking(settings: dict[str, Any], way: Way, options: RedisOptions) -> dict[str, Any]:
    """Return the settings for a short connection to a Sentinel or a cluster node."""
    without = {"host", "port", "db"} | ({"username", "password"} if way is Way.SENTINEL else set())
    kept = {key: value for key, value in settings.items() if key not in without}
    if way is Way.SENTINEL and options.sentinel_password:
        kept.update(username=options.sentinel_username or None, password=options.sentinel_password)
    return {**kept, "socket_timeout": ASK_SECONDS, "socket_connect_timeout": ASK_SECONDS}


async def _execute(client: Redis, *args: bytes | str | float) -> Any:
    """Run a command as `Redis.execute_command` does, but without its retries and conversions: half of the time."""
    (answer,) = await _execute_all(client, (args,))
    if isinstance(answer, Exception):
        raise answer
    return answer


async def _execute_all(client: Redis, commands: Sequence[Sequence[bytes | str | float]]) -> list[Any]:
    """Run commands in one round trip; a refusal of the server is an exception in the list.

    After an error or a cancel in the middle of an answer the connection disconnects itself.
    """
    pool: Any = client.connection_pool
    connection = await pool.get_connection()
    try:
        return list(
            await (connection.ask(commands) if isinstance(connection, Rostered) else _ask(connection, commands))
        )
    finally:
        await pool.release(connection)


async def _ask(connection: Any, commands: Sequence[Sequence[bytes | str | float]]) -> list[Any]:
    """Do what `Rostered.ask` does over a connection of another class: one to a fake server in tests."""
    answers: list[Any] = []
    for command in commands:
        await connection.send_command(*command)
        try:
            answers.append(await connection.read_response())
        except exceptions.ResponseError as refusal:
            answers.append(refusal)
    return answers


async def _caught(function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Await a call and return a failure of Redis or the network as `Unavailable`."""
    try:
        return await function(*args)
    except (*FAILURES, trio.TooSlowError) as error:
        return understand(error)


def _without_errors(answers: list[RedisAnswer], may_fail: int) -> list[RedisAnswer] | Unavailable:
    """Return the answers, with None for errors among the last ``may_fail``; or else the first other error."""
    needed = len(answers) - may_fail
    for answer in answers[:needed]:
        if isinstance(answer, Exception):
            return understand(answer)
    return [*answers[:needed], *(None if isinstance(each, Exception) else each for each in answers[needed:])]
