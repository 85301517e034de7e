"""Asyncio. What the exceptions of redis-py, and of the way to Redis, mean."""

from __future__ import annotations

from attrs import evolve
from redis import exceptions

from trio_worker.redis.calls import Unavailable, UnavailableError
from trio_worker.redis.errors import refused, unreachable

# What a call to redis-py raises when Redis or the network fails.
FAILURES = (exceptions.RedisError, OSError, TimeoutError)


class OpeningError(exceptions.ConnectionError):
    """A connection could not be opened; its cause says why."""


def understand(error: BaseException, *, is_sentinel: bool = False) -> Unavailable:
    """Return what an error of redis-py means. It takes a known code off the text, and keeps it beside."""
    if isinstance(error, OpeningError) and error.__cause__ is not None:
        return evolve(understand(error.__cause__, is_sentinel=is_sentinel), is_unsent=True)
    if type(error) is exceptions.ConnectionError:
        # redis-py raises these again as this one: a failed greeting (HELLO), and what came out of `Primary.locate`.
        if isinstance(error.__context__, UnavailableError):
            return error.__context__.failure
        if isinstance(error.__context__, exceptions.AuthenticationError):
            return understand(error.__context__, is_sentinel=is_sentinel)
    text, code = str(error) or type(error).__name__, getattr(error, "status_code", None)
    if code is not None:
        return refused(f"{code} {text}", is_sentinel=is_sentinel)
    match error:
        case exceptions.AuthenticationError() | exceptions.AuthorizationError():
            return Unavailable(f"login refused: {text}", is_refusal=True, is_login=True)
        case exceptions.ResponseError():
            return refused(text, is_sentinel=is_sentinel)
        case _:
            return unreachable(text)
