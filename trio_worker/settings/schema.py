"""Pure. The JSON Schema of a configuration file, for editors; in draft 4, which Taplo reads."""

from __future__ import annotations

import json
from typing import Any, TypeAlias, get_args

from trio_worker.mail.options import MailOptions
from trio_worker.settings.reader import KEYS, TYPE_KEYS, Key
from trio_worker.settings.replies import REPLIES, RULE_KEYS
from trio_worker.worker.reply_rule import ReplyClass

Schema: TypeAlias = dict[str, Any]

SCHEMA_FILE = "trio_worker.schema.json"
"""Name of the schema file in conf/; the configuration files there name it in their first line."""


def schema_text() -> str:
    """Return the text of conf/trio_worker.schema.json, which `config schema` prints."""
    return json.dumps(settings_schema(), indent=2) + "\n"


def settings_schema() -> Schema:
    """Return the schema of ``conf/*.toml``, made from the records that the settings are read into.

    It refuses unknown keys, and values of a wrong type or out of their bounds. ``config check`` also finds faults in
    the meaning of a value, between keys, and in other files.
    """
    schema = _table("Configuration of trio-worker.")
    for key in KEYS.values():
        table = schema
        for section in key.section.split(".") if key.section else ():
            table = table["properties"].setdefault(section, _table(f"The section [{key.section}]."))
        table["properties"].update(_shapes(key))
    schema["properties"]["mail"]["properties"]["types"] = _types()
    schema["properties"][REPLIES] = {
        "description": "Rules for what a relay says.",
        "type": "array",
        "items": _reply_rule(),
    }
    return {"$schema": "http://json-schema.org/draft-04/schema#", "title": "trio-worker", **schema}


def _table(description: str) -> Schema:
    return {"description": description, "type": "object", "additionalProperties": False, "properties": {}}


def _types() -> Schema:
    """Return the shape of ``[mail.types]``; any name is allowed, because users add their own email types."""
    one = _table("Options of one email type.")
    for key in TYPE_KEYS.values():
        one["properties"].update(_shapes(key))
    shipped = dict.fromkeys(MailOptions().types, one)
    return {**_table("Options of single email types."), "additionalProperties": one, "properties": shipped}


def _reply_rule() -> Schema:
    rule = _table("Replies that fit are taken as of this class.")
    shapes: dict[str, Schema] = {
        "code": {"type": ["string", "integer"]},
        "text": {"type": "string"},
        "class": {"enum": list(map(str, ReplyClass))},
    }
    rule["properties"] = {key: {"description": text, **shapes[key]} for key, text in RULE_KEYS.items()}
    return {**rule, "required": ["class"]}


def _shapes(key: Key) -> Schema:
    """Return the shape of a key, and for a secret also of the key that names its file."""
    name = key.dotted.rpartition(".")[2]
    shape = {"description": key.option.help_text, **_shape(key)}
    if not key.option.secret:
        return {name: shape}
    return {
        name: shape,
        f"{name}_file": {"description": f"File with the {name}: {key.option.help_text}", "type": "string"},
    }


def _shape(key: Key) -> Schema:
    kinds = get_args(key.kind) or (key.kind,)
    if key.kind == tuple[str, ...]:
        shape: Schema = {"type": "array", "items": {"type": "string"}}
    elif bool in kinds:
        shape = {"type": "boolean"}
    elif int in kinds or float in kinds:
        bounds = {"minimum": key.option.minimum, "maximum": key.option.maximum}
        kind = "integer" if int in kinds else "number"
        shape = {"type": kind, **{word: bound for word, bound in bounds.items() if bound is not None}}
    elif key.option.choices:
        shape = {"enum": list(key.option.choices)}
    else:
        shape = {"type": "string"}
    if key.option.secret or key.default is None:
        return shape
    return {**shape, "default": list(key.default) if isinstance(key.default, tuple) else key.default}
