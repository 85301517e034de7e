"""Errors of Redis in an operator's words: replies as Redis 6.2, Redis 7.0 and Valkey 9.1 gave them."""

from __future__ import annotations

import pytest

from trio_worker.redis.errors import denied_in_script, refused, unreachable

IN_62 = "ERR Error running script (call to f_2b6e): @user_script:5: @user_script: 5: "
IN_70 = " script: f20a8f603ce79edfe39db5741fb4c9eaaa5ec170, on @user_script:1."
IN_91 = " script: on @user_script:1."


@pytest.mark.parametrize(
    ("reply", "command", "was_nothing_done"),
    [
        ("NOPERM this user has no permissions to run the 'blmove' command", "BLMOVE", True),
        ("NOPERM User m has no permissions to run the 'script|load' command", "SCRIPT LOAD", True),
        (f"{IN_62}The user executing the script can't run this command or subcommand", "", False),
        (f"ERR The user executing the script can't run this command or subcommand{IN_70}", "", False),
        (f"ERR ACL failure in script: User m has no permissions to run the 'hincrby' command{IN_91}", "HINCRBY", False),
        ("NOPERM No permissions to access a key", "", True),
        ("NOPERM this user has no permissions to access one of the keys used as arguments", "", True),
        (f"ERR ACL failure in script: No permissions to access a key{IN_91}", "", False),
        ("ERR unknown command 'EVALSHA', with args beginning with: 'ab' ", "EVALSHA", True),
        ("ERR unknown command `EVALSHA`, with args beginning with: `ab` ", "EVALSHA", True),
        (f"ERR Unknown Redis command called from script{IN_70}", "", False),
        (f"ERR Unknown command called from script{IN_91}", "", False),
    ],
)
def test_a_missing_permission_is_named_with_the_page_that_lists_them(
    reply: str, command: str, *, was_nothing_done: bool
) -> None:
    """A script may have been refused in its middle: then it is not known what was done."""
    failure = refused(reply)

    assert (failure.is_denied, failure.denied) == (True, command)
    assert failure.is_misconfigured
    assert failure.is_refusal is was_nothing_done
    assert failure.reason.endswith("docs/operations.md#permissions-in-redis")
    assert command in failure.reason


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("ERR The user executing the script can't run this command or subcommand", "no permission for HINCRBY"),
        ("ERR ACL failure in script: User m has no permissions to run the 'hincrby' command", "permission for HINCRBY"),
        ("ERR Unknown Redis command called from script", "does not know HINCRBY"),
    ],
)
def test_a_command_that_a_script_tried_is_named_where_redis_does_not(reply: str, words: str) -> None:
    """Redis up to 7.0 names neither the command nor the need."""
    failure = denied_in_script("HINCRBY", reply)

    assert failure is not None
    assert words in failure.reason
    assert failure.denied == "HINCRBY"


def test_another_error_of_a_script_is_no_refusal_by_permissions() -> None:
    """A full Redis, for example, refuses for another reason."""
    assert denied_in_script("HSET", "OOM command not allowed when used memory > 'maxmemory'.") is None


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("NOREPLICAS Not enough good replicas to write." + IN_91, "NOREPLICAS Not enough good replicas to write"),
        (f"{IN_62}-OOM command not allowed when used memory > 'maxmemory'.",
         "OOM command not allowed when used memory > 'maxmemory'."),
        ("READONLY You can't write here.", "READONLY You can't write here."),
        ("WRONGTYPE jobs holds a string, not a list", "WRONGTYPE jobs holds a string, not a list"),
        ("ERR something else", "something else"),
    ],
)  # fmt: skip
def test_a_refusal_keeps_its_code_and_loses_the_place_in_the_script(reply: str, reason: str) -> None:
    """The code is the word to look up; the number of a line in our script helps no operator."""
    failure = refused(reply)

    assert failure.reason == reason
    assert failure.is_refusal
    assert not failure.is_denied


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("MOVED 866 10.0.0.2:6379", "MOVED 866 10.0.0.2:6379: the queue's keys belong to another node of the cluster"),
        ("ERR DB index is out of range", "the database in redis.url does not exist"),
        ("ERR SELECT is not allowed in cluster mode", "node of a cluster, which has database 0 only"),
        ("ERR max number of clients reached", "as many clients as it allows"),
    ],
)
def test_a_refusal_says_what_to_look_at(reply: str, words: str) -> None:
    """What Redis says of itself is said of the configuration."""
    assert words in refused(reply).reason


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ("NOAUTH HELLO must be called with the client already authenticated, otherwise", "needs a password"),
        ("NOAUTH Authentication required.", "needs a password"),
        ("ERR Protocol error: unauthenticated multibulk length", "needs a password"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "login refused"),
        ("ERR AUTH <password> called without any password configured for the default user.", "has none"),
    ],
)
def test_a_login_that_is_refused_or_missing_is_told_as_that(reply: str, words: str) -> None:
    """In words, and for the exit code."""
    failure = refused(reply)

    assert failure.is_login
    assert words in failure.reason


def test_a_connection_that_was_closed_may_have_been_closed_by_a_proxy() -> None:
    """redis-py says that the server closed it, which it cannot know."""
    failure = unreachable("Connection closed by server.")

    assert not failure.is_refusal
    assert "proxy" in failure.reason
