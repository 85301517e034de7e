"""Pure. Reads the tables ``[[replies]]``: the user's rules for what a relay says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field

from trio_worker.records import define
from trio_worker.settings.sources import RawValue, SettingFault
from trio_worker.settings.spelling import suggestion
from trio_worker.worker.reply_rule import ReplyClass, ReplyRule

REPLIES = "replies"
# The keys of one table, with their help texts.
RULE_KEYS: Mapping[str, str] = {
    "code": "A reply code (400 to 599), an enhanced code, or both: 550, 5.4.5, 550 5.4.5. Without it: any code.",
    "text": "A regular expression that is found in the text of the reply, in any case. Without it: any text.",
    "class": "What such a reply speaks of: mail, recipient, us, rate, concurrency, standing or session.",
}
_CODE = re.compile(r"[45][0-9]{2}|[45]\.[0-9]{1,3}\.[0-9]{1,3}|([45])[0-9]{2} \1\.[0-9]{1,3}\.[0-9]{1,3}")
# A pattern that is found in all of these is found in every reply.
_UNRELATED = ("Quota", "no such user here", "4.7.1 try again later", "#")


@define
class RuleReader:
    """Collects the values of the tables, in their order, and gives the rules or the faults."""

    _tables: dict[str, dict[str, RawValue]] = field(factory=dict)
    _places: dict[str, str] = field(factory=dict)
    faults: list[SettingFault] = field(factory=list)

    def take(self, dotted: str, found: RawValue) -> None:
        """Take the value of ``replies``, of a table ``replies.<number>``, or of a key of one."""
        _, *words = dotted.split(".")
        match words:
            case []:
                self._take_list(found)
            case [number] if number.isdecimal() and found.value == {}:
                self._table(number, found.place)
            case [number, key] if number.isdecimal() and key in RULE_KEYS:
                self._table(number, found.place)[key] = found
            case [_, key]:
                self.faults.append(
                    SettingFault(found.place, f"{REPLIES}: no such key {key}{suggestion(key, RULE_KEYS)}")
                )
            case _:
                self.faults.append(SettingFault(found.place, f"{dotted}: rules are tables with the head [[replies]]"))

    def rules(self) -> tuple[ReplyRule, ...]:
        """Return the rules; those with a fault are left out, and the faults noted."""
        numbers = sorted(self._tables, key=int)
        read = (_rule(self._tables[number], self._places[number], self.faults) for number in numbers)
        return tuple(rule for rule in read if rule is not None)

    def _table(self, number: str, place: str) -> dict[str, RawValue]:
        self._places.setdefault(number, place)
        return self._tables.setdefault(number, {})

    def _take_list(self, found: RawValue) -> None:
        """Take all tables at once: from the environment, as JSON."""
        tables = _from_json(found.value) if found.is_text else found.value
        if not isinstance(tables, Sequence) or not all(isinstance(table, dict) for table in tables):
            how = "a list of objects in JSON" if found.is_text else "tables with the head [[replies]]"
            self.faults.append(SettingFault(found.place, f"{REPLIES}: must be {how}"))
            return
        for number, table in enumerate(tables):
            self._table(str(number), found.place)
            for key, value in table.items():
                self.take(f"{REPLIES}.{number}.{key}", RawValue(value, found.place))


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _rule(table: Mapping[str, RawValue], place: str, faults: list[SettingFault]) -> ReplyRule | None:
    found = list(_faults_of(table, place))
    faults += found
    if found:
        return None
    values = {key: str(each.value) for key, each in table.items()}
    return ReplyRule(ReplyClass(values["class"]), values.get("code", ""), values.get("text", ""))


def _faults_of(table: Mapping[str, RawValue], place: str) -> Iterator[SettingFault]:
    if "class" not in table:
        yield SettingFault(place, f"{REPLIES}: a rule needs a class: {', '.join(ReplyClass)}")
    if not {"code", "text"} & table.keys():
        yield SettingFault(place, f"{REPLIES}: a rule without code and text would fit every reply")
    for key, found in table.items():
        reason = _reason(key, found.value)
        if reason:
            yield SettingFault(found.place, f"{REPLIES}.{key}: {reason}")


def _reason(key: str, value: Any) -> str:
    """Return what is wrong with a value, "" if nothing is."""
    if key == "code":
        is_code = isinstance(value, str | int) and not isinstance(value, bool) and _CODE.fullmatch(str(value))
        return "" if is_code else 'must be a reply code from 400 to 599, an enhanced code, or both: "550 5.4.5"'
    if not isinstance(value, str):
        return "must be a string"
    if key == "class":
        return (
            "" if value in set(ReplyClass) else f"must be one of {', '.join(ReplyClass)}{suggestion(value, ReplyClass)}"
        )
    try:
        pattern = re.compile(value, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is not a regular expression: {error}"
    is_everything = pattern.search("") is not None or all(map(pattern.search, _UNRELATED))
    return "is found in every text: leave it out, or name the words" if is_everything else ""
