"""Pure. What an ``embedded:`` URL says; all settings are checked by it, and few start a server."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

SCHEME = "embedded:"
LAST_PORT = 65535


@frozen
class EmbeddedAddress:
    """What an ``embedded:`` URL says: the directory as written, and the port if one was asked for."""

    directory: Path
    port: int | None = None


@frozen
class EmbeddedAddressFault:
    """Why a text is no ``embedded:`` URL."""

    what: str


def parse_embedded(url: str) -> EmbeddedAddress | EmbeddedAddressFault:
    """Read ``embedded:DIR`` or ``embedded:DIR?port=N``; touches nothing.

    DIR is taken literally up to the first ``?`` (no percent-encoding); a relative one belongs to the working directory
    at the time the server is opened, and ``~`` is the home directory.
    """
    if not url.startswith(SCHEME):
        return EmbeddedAddressFault(f"an embedded URL begins with {SCHEME}")
    directory, question_mark, query = url.removeprefix(SCHEME).partition("?")
    if directory.startswith("//"):
        return EmbeddedAddressFault(f"there is no host: write {SCHEME}DIR without //")
    if not directory.strip():
        return EmbeddedAddressFault(f"the directory is missing: write {SCHEME}DIR")
    if not directory.isprintable():
        return EmbeddedAddressFault("the directory has a control character")
    if not question_mark:
        return EmbeddedAddress(Path(directory))
    name, _, value = query.partition("=")
    if name != "port" or "&" in value:
        return EmbeddedAddressFault("the only thing that may follow ? is port=N, once")
    if not (value.isascii() and value.isdecimal() and len(value) <= len(str(LAST_PORT))):
        return EmbeddedAddressFault("port is not a number")
    if not 1 <= int(value) <= LAST_PORT:
        return EmbeddedAddressFault(f"port is not between 1 and {LAST_PORT}")
    return EmbeddedAddress(Path(directory), int(value))
