"""Edge. A client of Redis whose calls block: for commands that read or change something, print it and end.

It needs neither trio nor redis-py, whose imports take longer than all such a command does. Its calls are coroutines, so
that the same functions of queue/ and fleet/ run with this client and with the other one; but they never wait for an
event loop, so `run_blocking` runs such a function to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TypeVar

import hiredis
from attrs import evolve, field

from trio_worker.records import define
from trio_worker.redis.blocking_connection import BlockingConnection, Command
from trio_worker.redis.calls import RedisAnswer, ScriptCall, Unavailable, UnavailableError
from trio_worker.redis.deadlines import ASK_SECONDS, CALL_ELSEWHERE_SECONDS, CALL_SECONDS
from trio_worker.redis.endpoint import Endpoint, endpoint_of
from trio_worker.redis.errors import redis_secrets, refused, shown, unreachable
from trio_worker.redis.options import RedisOptions
from trio_worker.redis.scripts import TRIAL, Script, read_script, run_scripts
from trio_worker.redis.tls import redis_tls_context
from trio_worker.redis.trial import commands_of, read_trial, tried_with
from trio_worker.redis.url import RedisUrl, RedisUrlError, RedisUrlFault, Way, parse_redis_url
from trio_worker.secret_mask import SecretMask

_T = TypeVar("_T")

# Opens a connection to the server that takes our writes; raises OSError or hiredis.ReplyError.
OpenConnection = Callable[[], BlockingConnection]


def run_blocking(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end, in which nothing may wait but the calls of a `BlockingClient`."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    coroutine.close()
    raise RuntimeError("something other than a blocking call was awaited")


@define
class BlockingClient:
    """Calls to one Redis over one connection, which is opened by the first call and again after a failure.

    A failure of Redis or the network is returned as `Unavailable`, not raised. Ctrl-C breaks a call off; its outcome is
    then unknown.
    """

    _open: OpenConnection
    _seconds: float
    _secrets: SecretMask  # masked in what Redis says of a failure
    _look_elsewhere: Callable[[], object] = lambda: None
    _connection: BlockingConnection | None = None
    _scripts: dict[str, Script] = field(factory=dict)
    _tried: set[tuple[str, str]] = field(factory=set)  # scripts and queues whose commands are known to be allowed

    async def run_script(self, name: str, keys: Sequence[str], *args: bytes | str | int) -> RedisAnswer | Unavailable:
        """Run a script of the queue; after NOSCRIPT (a restart, SCRIPT FLUSH) its text is sent, not its digest."""
        script = self._script(name)
        if script.writes and (name, keys[0]) not in self._tried and (denial := await self._try(name, keys)) is not None:
            return denial
        answer = await self.command("EVALSHA", script.digest, len(keys), *keys, *args)
        if isinstance(answer, Unavailable) and answer.reason.startswith("NOSCRIPT"):
            return await self.command("EVAL", script.text, len(keys), *keys, *args)
        return answer

    async def _try(self, name: str, keys: Sequence[str]) -> Unavailable | None:
        """Before a script that writes runs for the first time, try all commands that it may need.

        Returns why it must not run.
        """
        names = tried_with(name)
        commands = commands_of({each: self._script(each) for each in names}, names)
        answer = await self.command("EVAL", self._script(TRIAL).text, len(keys), *keys, *commands)
        denial = answer if isinstance(answer, Unavailable) else read_trial(answer)
        if denial is None:
            self._tried |= {(each, keys[0]) for each in names}
        return denial

    async def command(self, *args: bytes | str | float) -> RedisAnswer | Unavailable:
        """Run one command that answers at once."""
        answers = await self.pipeline([args])
        return answers if isinstance(answers, Unavailable) else answers[0]

    async def pipeline(
        self,
        commands: Sequence[Command],
        doing: str = "",  # noqa: ARG002  for metrics, which this client does not keep
        may_fail: int = 0,
    ) -> list[RedisAnswer] | Unavailable:
        """Run commands in one round trip, not as a transaction; return all answers, or the first error.

        The last ``may_fail`` commands may be refused: their answer is then None.
        """
        answers = self._asked(commands)
        if isinstance(answers, Unavailable):
            return answers
        needed = len(answers) - may_fail
        for answer in answers[:needed]:
            if isinstance(answer, hiredis.ReplyError):
                return self._noted(refused(str(answer)))
        return [None if isinstance(each, hiredis.ReplyError) else each for each in answers]

    async def run_scripts(
        self,
        keys: Sequence[str],
        calls: Sequence[ScriptCall],
        commands: Sequence[Command] = (),
        may_fail: int = 0,
    ) -> list[RedisAnswer] | Unavailable:
        """Run scripts, each with its arguments, and then commands, all in one round trip; see `pipeline`."""
        named = {name: self._script(name) for name, _ in calls}
        return await run_scripts(self.pipeline, named, keys, calls, commands, may_fail)

    def close(self) -> None:
        """Close the connection, if one is open; a later call would open another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _script(self, name: str) -> Script:
        if name not in self._scripts:
            self._scripts[name] = read_script(name)
        return self._scripts[name]

    def _open_connection(self) -> BlockingConnection:
        """Return the connection, or a new one if it was closed meanwhile, by a server that closes idle ones."""
        if self._connection is not None and not self._connection.is_silent:
            self.close()
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _asked(self, commands: Sequence[Command]) -> list[Any] | Unavailable:
        connection = None
        try:
            connection = self._open_connection()
            return connection.ask(commands, self._seconds)
        except hiredis.ReplyError as refusal:
            return self._noted(refused(str(refusal)))
        except (OSError, hiredis.ProtocolError) as error:
            self.close()
            self._look_elsewhere()
            failure = self._login_trouble() or _understand(error)
            return shown(evolve(failure, is_unsent=connection is None), self._secrets)
        except BaseException:
            self.close()
            raise

    def _login_trouble(self) -> Unavailable | None:
        """After a failure, return what Redis says to somebody who has not logged in, if that is what it says.

        Redis closes the connection at a long command before a login, and what it said may be lost with it.
        """
        try:
            connection = self._open()
        except (OSError, hiredis.ReplyError):
            return None
        try:
            (answer,) = connection.ask([("PING",)], self._seconds)
        except (OSError, hiredis.ProtocolError):
            return None
        finally:
            connection.close()
        trouble = refused(str(answer)) if isinstance(answer, hiredis.ReplyError) else None
        return trouble if trouble is not None and trouble.is_login else None

    def _noted(self, unavailable: Unavailable) -> Unavailable:
        if unavailable.is_elsewhere:
            self.close()
            self._look_elsewhere()
        return shown(unavailable, self._secrets)


@contextmanager
def open_blocking_client(options: RedisOptions, queue_name: str = "jobs") -> Iterator[BlockingClient]:
    """Open a client for a URL that is not ``embedded:``; its connection is closed at the end.

    ``queue_name`` decides which node of a cluster is used. Raises `RedisUrlError` for a URL that cannot be used.
    """
    url = parse_redis_url(options.url)
    if isinstance(url, RedisUrlFault):
        raise RedisUrlError(f"redis.url: {url.reason}")
    endpoint = endpoint_of(url, options)
    if endpoint.is_tls:
        redis_tls_context(options.ca_file, options.cert_file, options.key_file)
    if url.way is Way.DIRECT:
        client = BlockingClient(partial(BlockingConnection.open, endpoint), CALL_SECONDS, redis_secrets(options))
    else:
        opener, forget = _finding(url, endpoint, options, queue_name)
        client = BlockingClient(opener, CALL_ELSEWHERE_SECONDS, redis_secrets(options), forget)
    try:
        yield client
    finally:
        client.close()


def _finding(
    url: RedisUrl, endpoint: Endpoint, options: RedisOptions, queue_name: str
) -> tuple[OpenConnection, Callable[[], object]]:
    """Return what opens connections to the primary, and what makes it be looked for again."""
    # Imported here, because it needs redis-py; other URLs do not.
    from redis.exceptions import RedisError  # noqa: PLC0415

    from trio_worker.redis.primary import ClusterPrimary, SentinelPrimary, slot_of  # noqa: PLC0415

    is_sentinel = url.way is Way.SENTINEL
    nodes = list(url.nodes)
    primary = SentinelPrimary(nodes, url.service) if is_sentinel else ClusterPrimary(nodes, slot_of(queue_name))
    asked = evolve(endpoint, database=0)
    if is_sentinel:
        asked = evolve(asked, username=options.sentinel_username, password=options.sentinel_password)

    async def ask(node: tuple[str, int], command: Sequence[str]) -> Any:
        at = evolve(asked, host=node[0], port=node[1])
        return _ask_once(partial(BlockingConnection.open, at, ASK_SECONDS), command, is_sentinel=is_sentinel)

    def opener() -> BlockingConnection:
        host, port = run_blocking(primary.locate(ask))
        connection = BlockingConnection.open(evolve(endpoint, host=host, port=port))

        async def command(name: str) -> Any:
            return connection.ask([(name,)], ASK_SECONDS)[0]

        try:
            run_blocking(primary.check(command))
        except RedisError as error:
            connection.close()
            raise OSError(str(error)) from error
        return connection

    return opener, primary.forget


def _ask_once(opener: OpenConnection, command: Sequence[str], *, is_sentinel: bool) -> Any:
    """Send one command over a connection that is closed afterwards; a failure is `Unavailable`."""
    try:
        with closing(opener()) as connection:
            (answer,) = connection.ask([command], ASK_SECONDS)
    except hiredis.ReplyError as refusal:
        return refused(str(refusal), is_sentinel=is_sentinel)
    except (OSError, hiredis.ProtocolError) as error:
        return _understand(error)
    return refused(str(answer), is_sentinel=is_sentinel) if isinstance(answer, hiredis.ReplyError) else answer


def _understand(error: BaseException) -> Unavailable:
    return error.failure if isinstance(error, UnavailableError) else unreachable(str(error) or type(error).__name__)
