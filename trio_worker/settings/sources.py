"""Edge. The sources of settings: the TOML file with the line of each key, the environment, secret files."""

from __future__ import annotations

import re
import stat
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from trio_worker.records import frozen

VARIABLE_PREFIX = "TRIO_WORKER__"
CREDENTIALS = "CREDENTIALS_DIRECTORY"
# A longer file is not a secret.
SECRET_LIMIT_BYTES = 64 * 1024

_SECTION = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_TABLE = re.compile(r"\s*\[\[\s*([^\[\]]+?)\s*\]\]\s*(?:#.*)?$")  # one of a list of tables
_KEY = re.compile(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_LINE = re.compile(r"at line (\d+)")


@frozen
class SettingFault:
    """One fault of the configuration; ``place`` is file:line, a variable or a flag."""

    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}  {self.reason}"


def in_order(faults: Iterable[SettingFault]) -> list[SettingFault]:
    """Return faults in the order of the lines of each file, and the files as they first come."""
    files: dict[str, int] = {}
    placed = []
    for fault in faults:
        file, _, line = fault.place.rpartition(":")
        is_line = bool(file) and line.isdecimal()
        rank = files.setdefault(file if is_line else fault.place, len(files))
        placed.append((rank, int(line) if is_line else 0, fault))
    return [fault for _, _, fault in sorted(placed, key=lambda each: each[:2])]


@frozen
class RawValue:
    """The value of a key as a source gives it, and the place in that source."""

    value: Any
    place: str
    is_text: bool = False  # from the environment, where every value is a string


def read_toml(path: Path) -> dict[str, RawValue] | SettingFault:
    """Return the values of a TOML file by dotted key: ``mail.types.<type>.<key>``, ``replies.<number>.<key>``."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        return SettingFault(str(path), error.strerror or "cannot be read")
    except UnicodeDecodeError:
        return SettingFault(str(path), "is not UTF-8")
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError, and so is a number of 5,000 digits
        line = _LINE.search(str(error))
        return SettingFault(f"{path}:{line[1] if line else 1}", f"not TOML: {error}")
    lines = key_lines(text)
    return {key: RawValue(value, f"{path}:{_line_of(key, lines)}") for key, value in _flatten(document, "")}


def key_lines(text: str) -> dict[str, int]:
    """Return the line of each dotted key, which tomllib does not give; an inline table has one line for its keys."""
    lines: dict[str, int] = {}
    section = ""
    tables: Counter[str] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        table = _TABLE.match(line)
        if table is not None:
            name = _dotted(table[1])
            section = f"{name}.{tables[name]}"
            tables[name] += 1
            lines.setdefault(section, number)
            continue
        header = _SECTION.match(line)
        if header is not None:
            section = _dotted(header[1])
            lines.setdefault(section, number)
            continue
        found = _KEY.match(line)
        if found is not None:
            lines.setdefault(".".join(filter(None, (section, _dotted(found[1])))), number)
    return lines


def read_environment(environ: Mapping[str, str]) -> dict[str, RawValue]:
    """Return the values of variables such as ``TRIO_WORKER__SMTP__POOL__MAX_SIZE``, by dotted key.

    Variables are in upper case and keys in lower case; the name of an email type keeps its case.
    """
    found: dict[str, RawValue] = {}
    for name, value in environ.items():
        if not name.startswith(VARIABLE_PREFIX):
            continue
        words = name.removeprefix(VARIABLE_PREFIX).split("__")
        is_type = [word.lower() for word in words[:2]] == ["mail", "types"]
        keyed = [word if is_type and place == 2 else word.lower() for place, word in enumerate(words)]
        found[".".join(keyed)] = RawValue(value, name, is_text=True)
    return found


def variable_of(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return VARIABLE_PREFIX + "__".join(word if place == 2 and key.startswith("mail.types.") else word.upper()
                              for place, word in enumerate(key.split(".")))  # fmt: skip


def read_secret(path: Path, place: str) -> str | SettingFault:
    """Read a secret file; one line feed at its end is not part of the secret."""
    try:
        secret = path.read_bytes()[: SECRET_LIMIT_BYTES + 1]
    except OSError as error:
        return SettingFault(place, f"secret file {path}: {error.strerror}")
    if len(secret) > SECRET_LIMIT_BYTES:
        return SettingFault(place, f"secret file {path}: over {SECRET_LIMIT_BYTES} bytes")
    try:
        text = secret.decode("utf-8")
    except UnicodeDecodeError:
        return SettingFault(place, f"secret file {path}: is not UTF-8")
    return text.removesuffix("\n").removesuffix("\r")


def is_read_by_others(path: Path) -> bool:
    """Return whether users other than owner and group may read a file."""
    try:
        return bool(path.stat().st_mode & stat.S_IROTH)
    except OSError:
        return False


def _flatten(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, dict):
            if not value:
                yield dotted, value
            yield from _flatten(value, f"{dotted}.")
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            yield from _flatten({str(number): each for number, each in enumerate(value)}, f"{dotted}.")
        else:
            yield dotted, value


def _dotted(written: str) -> str:
    return ".".join(word.strip().strip("\"'") for word in re.findall(r"\"[^\"]*\"|'[^']*'|[^.\s]+", written))


def _line_of(key: str, lines: Mapping[str, int]) -> int:
    while key not in lines and "." in key:
        key = key.rpartition(".")[0]
    return lines.get(key, 1)
