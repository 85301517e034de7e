"""Pure. Errors of Redis, and of the way to it, in an operator's words: one text for every client of ours."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from attrs import evolve

from trio_worker.redis.calls import Unavailable
from trio_worker.redis.connection_words import connection_words
from trio_worker.redis.options import RedisOptions
from trio_worker.secret_mask import SecretMask, mask_of

# How much of an error's text is kept: a stranger in the place of Redis must not fill logs and records.
REASON_CHARS = 500

# Where docs/operations.md says which commands and keys a user of Redis needs.
PERMISSIONS_PAGE = "docs/operations.md#permissions-in-redis"

# Error codes of states that end by themselves.
_PASSING = frozenset(
    ("ASK", "BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOREPLICAS", "NOSCRIPT", "OOM")
) | {"READONLY", "TRYAGAIN", "UNBLOCKED"}
# Error codes of a server that is not, or no longer, the one that takes our writes. One that says NOREPLICAS may be cut
# off, and the Sentinels may have made another one the primary.
_ELSEWHERE = frozenset({"READONLY", "MOVED", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS"})
# Error codes that are told, before what the server says.
_TOLD = _PASSING - {"NOSCRIPT"} | {"WRONGTYPE", "CROSSSLOT"}

_CODE = re.compile(r"([A-Z]{2,}) ")
# Redis up to 6.2 puts the error of a script behind this, 7.0 and later put the place in the script after it.
_SCRIPT_BEFORE = re.compile(r"^ERR Error .*@user_script: ?[0-9]+: -?(?=[A-Z])")
_SCRIPT_AFTER = re.compile(r"\.? script: (?:[0-9a-f]{40}, )?on @user_script:[0-9]+\.?$")
_DENIED_COMMAND = re.compile(r"no permissions to run the '([^']+)' command")
_DENIED_UNNAMED = "can't run this command"
_DENIED_KEYS = ("permissions to access", "can't access at least one of the keys")
_UNKNOWN_COMMAND = re.compile(r"unknown command `?'?([^'`,]+)", re.IGNORECASE)
_UNKNOWN_UNNAMED = re.compile(r"Unknown (?:Redis )?command called from script")


def unreachable(reason: str) -> Unavailable:
    """Return a failure of the connection: what Redis did is not known."""
    return Unavailable(connection_words(reason))


def refused(reply: str, *, is_sentinel: bool = False) -> Unavailable:
    """Return what an error reply means; ``reply`` is all of it, with its code.

    A Sentinel has a login of its own, so its settings have other names.
    """
    text = _SCRIPT_AFTER.sub("", _SCRIPT_BEFORE.sub("", reply)).strip()
    found = _CODE.match(text)
    code, said = (found[1], text[found.end() :]) if found else ("ERR", text)
    login = _login_trouble(code, said, _OF_SENTINEL if is_sentinel else _OF_REDIS)
    if login:
        return Unavailable(login, is_refusal=True, is_login=True)
    # With this code our scripts end before their first write; Redis itself ends a script with ERR, anywhere in it.
    denial = _denial(said, is_from_script="@user_script" in reply and code != "NOPERM")
    if denial is not None:
        return denial
    words = _MEANINGS.get((code, said.rstrip(".")))
    if words is None:
        words = _moved(said) if code == "MOVED" else f"{code} {said}" if code in _TOLD or code == "NOSCRIPT" else said
    return Unavailable(
        words,
        is_refusal=True,
        is_misconfigured=code not in _PASSING and "max number of clients" not in said,
        is_full=code == "OOM",
        is_elsewhere=code in _ELSEWHERE,
    )


def denied_in_script(command: str, reply: str) -> Unavailable | None:
    """Return the refusal of a command that a script tried; None if ``reply`` speaks of something else."""
    denial = refused(reply)
    if not denial.is_denied:
        return None
    if any(words in reply for words in _DENIED_KEYS):
        return denial
    return _denied(command, is_unknown="nknown" in reply, is_from_script=False)


def redis_secrets(options: RedisOptions) -> SecretMask:
    """Return the mask of the passwords, also of one in the URL."""
    login = options.url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    in_url = login.partition(":")[2]
    in_query = [value for name, value in parse_qsl(options.url.partition("?")[2]) if name == "password"]
    return mask_of(options.password, options.sentinel_password, in_url, unquote(in_url), *in_query)


def shown(unavailable: Unavailable, secrets: SecretMask) -> Unavailable:
    """Return a failure as it may be shown: without our secrets, and not longer than `REASON_CHARS`."""
    return evolve(unavailable, reason=secrets.masked(unavailable.reason)[:REASON_CHARS])


# Who asks for a login, and the settings of its user name and password begin with what.
_OF_REDIS = ("Redis", "redis.")
_OF_SENTINEL = ("Sentinel", "redis.sentinel_")


def _login_trouble(code: str, said: str, asked_by: tuple[str, str]) -> str:
    who, key = asked_by
    # The second is said to a long command or word before a login, and then the connection is closed.
    if code == "NOAUTH" or said.startswith("Protocol error: unauthenticated"):
        return f"{who} needs a password (NOAUTH): set {key}password_file, and {key}username unless it is default"
    if code == "WRONGPASS":
        return f"login refused: {key}username or {key}password is wrong, or the user is disabled"
    if "without any password configured" in said or "no password is set" in said:
        return f"login refused: {key}password is set, but this {who} has none for the default user"
    if "invalid password" in said:
        return f"login refused: {key}password is wrong"
    return ""


def _denial(said: str, *, is_from_script: bool) -> Unavailable | None:
    named = _DENIED_COMMAND.search(said)
    if named:
        return _denied(named[1].upper().replace("|", " "), is_from_script=is_from_script)
    if any(words in said for words in _DENIED_KEYS):
        words = f"the user of Redis has no permission for a key that is needed: see {PERMISSIONS_PAGE}"
        return Unavailable(words, is_refusal=not is_from_script, is_misconfigured=True, is_denied=True)
    if _DENIED_UNNAMED in said:
        return _denied("", is_from_script=is_from_script)
    unknown = _UNKNOWN_COMMAND.match(said)
    if _UNKNOWN_UNNAMED.match(said):
        return _denied("", is_unknown=True, is_from_script=is_from_script)
    if unknown:
        return _denied(unknown[1].upper(), is_unknown=True, is_from_script=is_from_script)
    return None


def _denied(command: str, *, is_unknown: bool = False, is_from_script: bool) -> Unavailable:
    if is_unknown:
        words = f"this Redis does not know {command or 'a command that is needed'}: it is too old, or has renamed it"
    else:
        words = f"the user of Redis has no permission for {command or 'a command that is needed'}"
    return Unavailable(
        f"{words}: see {PERMISSIONS_PAGE}",
        is_refusal=not is_from_script,
        is_misconfigured=True,
        is_denied=True,
        denied=command,
    )


def _moved(said: str) -> str:
    words = "the queue's keys belong to another node of the cluster; redis+cluster:// in redis.url follows them"
    return f"MOVED {said}: {words}"


_NO_DATABASE = "the database in redis.url does not exist at this Redis"
_CLUSTER_DATABASE = "this Redis is a node of a cluster, which has database 0 only: name no other one in redis.url"
_MEANINGS = {
    ("ERR", "DB index is out of range"): _NO_DATABASE,
    ("ERR", "invalid DB index"): _NO_DATABASE,
    ("ERR", "SELECT is not allowed in cluster mode"): _CLUSTER_DATABASE,
    ("ERR", "max number of clients reached"): "Redis has as many clients as it allows (maxclients)",
}
