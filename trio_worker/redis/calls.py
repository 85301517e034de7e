"""Pure. Calls to Redis as its readers see them, whichever client runs them, and their failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from trio_worker.records import frozen

# The answer of a script: numbers, bytes and lists of them.
RedisAnswer: TypeAlias = Any

# A script's name and its arguments.
ScriptCall: TypeAlias = tuple[str, Sequence[bytes | str | int]]


@frozen
class Unavailable:
    """A call to Redis failed. Unless ``is_refusal``, it is unknown whether Redis did what was asked.

    ``is_misconfigured``: only an operator can correct it (a wrong key type, a missing permission). ``is_login``: the
    password was refused. ``is_elsewhere``: this server does not take our writes, another one may. ``is_denied``: our
    user may not use a command or a key, or the server does not have the command; ``denied`` is its name if it was said.
    ``is_unsent``: no connection could be opened, so nothing was asked.
    """

    reason: str
    is_refusal: bool = False
    is_misconfigured: bool = False
    is_login: bool = False
    is_full: bool = False
    is_elsewhere: bool = False
    is_denied: bool = False
    denied: str = ""
    is_unsent: bool = False


class UnavailableError(ConnectionError):
    """Carries a failure out of the opening of a connection, through code that knows only exceptions."""

    def __init__(self, failure: Unavailable) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class RedisCalls(Protocol):
    """Calls to one Redis; a failure of Redis or the network is returned as `Unavailable`, not raised."""

    async def run_script(self, name: str, keys: Sequence[str], *args: bytes | str | int) -> RedisAnswer | Unavailable:
        """Run a script of the queue."""

    async def command(self, *args: bytes | str | float) -> RedisAnswer | Unavailable:
        """Run one command that answers at once."""

    async def pipeline(
        self, commands: Sequence[Sequence[bytes | str | float]], doing: str = "pipeline", may_fail: int = 0
    ) -> list[RedisAnswer] | Unavailable:
        """Run commands in one round trip, not as a transaction; return all answers, or the first error.

        The last ``may_fail`` commands may be refused: their answer is then None.
        """

    async def run_scripts(
        self,
        keys: Sequence[str],
        calls: Sequence[ScriptCall],
        commands: Sequence[Sequence[bytes | str | float]] = (),
        may_fail: int = 0,
    ) -> list[RedisAnswer] | Unavailable:
        """Run scripts, each with its arguments, and then commands, all in one round trip; see `pipeline`.

        If Redis does not know a script, the texts are sent and everything is run again: pass only what may be repeated.
        """
