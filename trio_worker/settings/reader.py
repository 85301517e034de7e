"""Edge. Reads the settings from a TOML file, the environment and flags into option records; finds all faults at once.

A value is taken from the first of: flag, environment, file, default.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_args

from attrs import evolve

from trio_worker.mail.options import MailOptions, TypeOptions
from trio_worker.records import frozen
from trio_worker.settings.record import (
    KEYS,
    SECTIONS,
    TYPE_KEYS,
    TYPES,
    Key,
    Origins,
    SettingFaults,
    Settings,
    value_of,
)
from trio_worker.settings.replies import REPLIES, RuleReader
from trio_worker.settings.rules import faults_between, warnings_about
from trio_worker.settings.sources import (
    CREDENTIALS,
    VARIABLE_PREFIX,
    RawValue,
    SettingFault,
    in_order,
    is_read_by_others,
    read_environment,
    read_secret,
    read_toml,
)
from trio_worker.settings.spelling import suggestion

CONFIG_VARIABLE = "TRIO_WORKER_CONFIG"
DEV_FILE = Path("conf/dev.toml")
_MAX_BITS = 63


def config_path(given: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to read: the one given, else TRIO_WORKER_CONFIG, else conf/dev.toml if it exists."""
    if given is not None:
        return given
    named = environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    return DEV_FILE if DEV_FILE.is_file() else None


_TEMPLATE_DIRS = "mail.template_dirs"


def has_configuration(path: Path | None, environ: Mapping[str, str]) -> bool:
    """Return whether there is a configuration: a file, or at least one variable with a setting."""
    return path is not None or any(name.startswith(VARIABLE_PREFIX) for name in environ)


def read_settings(
    path: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any] | None = None,
    templates_from: Path | None = None,
) -> Settings | SettingFaults:
    """Return the settings or all their faults; raises for no file and no environment.

    Relative ``mail.template_dirs`` in the file are relative to its folder, so that they are the same wherever a command
    is started; others to ``templates_from``, or to the working directory.
    """
    reader = _Reader(environ)
    given: dict[str, RawValue] = {}
    read = {} if path is None else read_toml(path)
    if not isinstance(read, SettingFault):
        given.update(read)
        if path is not None:
            _place_templates(given, path.parent)
    for key, found in read_environment(environ).items():
        given.pop(f"{key}_file", None)
        given[key] = found
        if key == REPLIES:
            given = {dotted: each for dotted, each in given.items() if not dotted.startswith(f"{REPLIES}.")}
        if key.endswith("_file"):
            given.pop(key.removesuffix("_file"), None)
    given.update({key: RawValue(value, f"flag {key}") for key, value in (flags or {}).items()})
    if templates_from is not None and _TEMPLATE_DIRS in (flags or {}):
        _place_templates(given, templates_from)
    settings = evolve(reader.build(given), origins=reader.origins.places, file="" if path is None else str(path))
    if isinstance(read, SettingFault):
        # The rules between keys would find fault with defaults.
        return SettingFaults((read, *reader.faults))
    faults = [*reader.faults, *faults_between(reader.faults, settings, reader.origins)]
    if faults:
        return SettingFaults(tuple(in_order(faults)), _without_faulty_values(settings, faults))
    return evolve(settings, warnings=(*reader.warnings, *warnings_about(settings, reader.origins)))


def _place_templates(given: dict[str, RawValue], folder: Path) -> None:
    """Make relative template folders relative to a folder; a value of another type is a fault that is found later."""
    found = given.get(_TEMPLATE_DIRS)
    if found is not None and isinstance(found.value, list | tuple):
        placed = [str(folder / each) if isinstance(each, str) else each for each in found.value]
        given[_TEMPLATE_DIRS] = evolve(found, value=placed)


def _without_faulty_values(settings: Settings, faults: Sequence[SettingFault]) -> Settings:
    """Return the settings with the default of each key that has a fault."""
    for dotted in {fault.reason.partition(":")[0] for fault in faults} & KEYS.keys():
        key = KEYS[dotted]
        if key.section:
            name = SECTIONS[key.section][0]
            section = evolve(getattr(settings, name), **{key.name: key.default})
            settings = evolve(settings, **{name: section})
        else:
            settings = evolve(settings, **{key.name: key.default})
    return settings


class _Reader:
    """Turns raw values into records, and collects their faults."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.faults: list[SettingFault] = []
        self.warnings: list[SettingFault] = []
        self.origins = Origins()
        self.rules = RuleReader()

    def build(self, given: dict[str, RawValue]) -> Settings:
        values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        types: dict[str, dict[str, Any]] = {}
        for dotted, found in given.items():
            if dotted == REPLIES or dotted.startswith(f"{REPLIES}."):
                self.rules.take(dotted, found)
            elif dotted.startswith(f"{TYPES}."):
                self._take_type(dotted, found, types)
            elif dotted in KEYS:
                self._take(KEYS[dotted], dotted, found, values[KEYS[dotted].section])
            elif dotted.removesuffix("_file") in KEYS and KEYS[dotted.removesuffix("_file")].option.secret:
                self._take_secret_file(dotted, found, given, values)
            elif dotted not in {*SECTIONS, TYPES} or not isinstance(found.value, dict) or found.value:
                self.faults.append(SettingFault(found.place, _unknown(dotted)))
        self._take_credentials(values)
        return self._compose(values, types)

    def _compose(self, values: dict[str, dict[str, Any]], types: dict[str, dict[str, Any]]) -> Settings:
        shipped = MailOptions().types
        merged = dict(shipped)
        for name, own in types.items():
            merged[name] = evolve(shipped.get(name, TypeOptions()), **own)
        values["mail"]["types"] = merged
        records = {name: record(**values[section]) for section, (name, record) in SECTIONS.items() if section}
        rules = self.rules.rules()
        self.faults += self.rules.faults
        return Settings(**values[""], **records, replies=rules)

    def _take(self, key: Key, dotted: str, found: RawValue, into: dict[str, Any]) -> None:
        value = _converted(key, found)
        if isinstance(value, _Wrong):
            self.faults.append(SettingFault(found.place, f"{dotted}: {value.reason}"))
            return
        if key.option.secret and value == "":
            return  # as in the files: an empty secret means that another source has it
        into[key.name] = value
        self.origins.places[dotted] = found.place

    def _take_type(self, dotted: str, found: RawValue, types: dict[str, dict[str, Any]]) -> None:
        if found.value == {} and not found.is_text:
            self._keep_type(dotted.removeprefix(f"{TYPES}."), found, types)
            return
        name, _, last = dotted.removeprefix(f"{TYPES}.").rpartition(".")
        if not name or last not in TYPE_KEYS:
            self.faults.append(SettingFault(found.place, _unknown(dotted)))
            return
        self._take(TYPE_KEYS[last], dotted, found, self._keep_type(name, found, types))

    def _keep_type(self, name: str, found: RawValue, types: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return the values of an email type so far; its first place is kept, for a fault in its name."""
        self.origins.type_places.setdefault(name, found.place)
        return types.setdefault(name, {})

    def _take_secret_file(
        self, dotted: str, found: RawValue, given: Mapping[str, RawValue], values: dict[str, dict[str, Any]]
    ) -> None:
        key = KEYS[dotted.removesuffix("_file")]
        if key.dotted in given and given[key.dotted].value not in ("", None):
            message = f"{dotted} and {key.dotted} are both set: set only one of them"
            self.faults.append(SettingFault(found.place, message))
        elif not isinstance(found.value, str):
            self.faults.append(SettingFault(found.place, f"{dotted}: must be a string"))
        elif found.value:
            self._read_secret(key, Path(found.value), found.place, values)

    def _take_credentials(self, values: dict[str, dict[str, Any]]) -> None:
        """Read secrets that have no other source from the folder in which systemd puts credentials."""
        folder = self.environ.get(CREDENTIALS)
        for key in KEYS.values() if folder else ():
            path = Path(folder or "") / key.dotted.replace(".", "_")
            if key.option.secret and key.dotted not in self.origins.places and path.is_file():
                self._read_secret(key, path, f"${CREDENTIALS}/{path.name}", values)

    def _read_secret(self, key: Key, path: Path, place: str, values: dict[str, dict[str, Any]]) -> None:
        secret = read_secret(path, place)
        if isinstance(secret, SettingFault):
            self.faults.append(SettingFault(secret.place, f"{key.dotted}: {secret.reason}"))
            return
        if is_read_by_others(path):
            self.warnings.append(SettingFault(place, f"secret file {path} can be read by all users: chmod o-r"))
        values[key.section][key.name] = secret
        self.origins.places[key.dotted] = place


@frozen
class _Wrong:
    reason: str


Converted: TypeAlias = Any


def _converted(key: Key, found: RawValue) -> Converted | _Wrong:
    value = _from_text(key.kind, found.value) if found.is_text else found.value
    if isinstance(value, _Wrong):
        return value
    kinds = get_args(key.kind) or (key.kind,)
    if key.kind == tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(each, str) and "\x00" not in each for each in value):
            return tuple(value)
        return _Wrong("must be a list of strings")
    if bool in kinds:
        return value if isinstance(value, bool) else _Wrong("must be true or false")
    if float in kinds or int in kinds:
        return _number(key, value, is_whole=int in kinds)
    if not isinstance(value, str):
        return _Wrong("must be a string")
    if "\x00" in value:
        return _Wrong("must not contain a NUL character")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        return _Wrong("must be UTF-8")
    if key.option.choices and value not in key.option.choices:
        words = ", ".join(choice or "(empty)" for choice in key.option.choices)
        return _Wrong(f"must be one of {words}{suggestion(value, key.option.choices)}")
    return value


def _number(key: Key, value: object, *, is_whole: bool) -> Converted | _Wrong:
    if isinstance(value, bool) or not isinstance(value, int | float) or (is_whole and not isinstance(value, int)):
        return _Wrong("must be a whole number" if is_whole else "must be a number")
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return _Wrong("is too large")
    if not math.isfinite(value):
        return _Wrong("must be a finite number")
    minimum, maximum = key.option.minimum, key.option.maximum
    if minimum is not None and value < minimum:
        return _Wrong(f"must be at least {minimum:g}")
    if maximum is not None and value > maximum:
        return _Wrong(f"must be at most {maximum:g}")
    # Durations beyond a century are typing errors, and some clocks overflow on them.
    if not is_whole and value > 4e9:
        return _Wrong("must be at most 4e9")
    return value if is_whole else float(value)


def _from_text(kind: Any, text: str) -> Converted | _Wrong:
    kinds = get_args(kind) or (kind,)
    if kind == tuple[str, ...]:
        return _list_from_text(text)
    if bool in kinds:
        return {"true": True, "false": False, "1": True, "0": False}.get(text.lower(), _Wrong("must be true or false"))
    try:
        return int(text) if int in kinds else float(text) if float in kinds else text
    except ValueError:
        return _Wrong("must be a whole number" if int in kinds else "must be a number")


def _list_from_text(text: str) -> Converted | _Wrong:
    """Read a list: words with commas between them, or JSON, as a list is written in many environment files."""
    if not text.lstrip().startswith("["):
        return [word.strip() for word in text.split(",") if word.strip()]
    try:
        return json.loads(text)
    except ValueError:
        return _Wrong("must be words with commas between them, or a list in JSON")


def _unknown(dotted: str) -> str:
    kind = "section" if any(known.startswith(f"{dotted}.") for known in KEYS) else "key"
    if kind == "section":
        return f"{dotted}: is a section, not a key"
    return f"{dotted}: no such key{suggestion(dotted, [*KEYS, *(f'{k}_file' for k in KEYS if KEYS[k].option.secret)])}"


def suggest_key(dotted: str) -> str:
    """Return ``. Did you mean ...?`` for an unknown key, or an empty string."""
    return suggestion(dotted, KEYS)


__all__ = [
    "KEYS",
    "SECTIONS",
    "TYPE_KEYS",
    "Key",
    "SettingFault",
    "SettingFaults",
    "Settings",
    "config_path",
    "has_configuration",
    "read_settings",
    "value_of",
]
