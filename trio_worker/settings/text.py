"""Pure. Texts about the settings: the files in ``conf/``, docs/configuration.md, and the explanation of a key."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from trio_worker.mail.options import MailOptions, TypeOptions
from trio_worker.option import option_of
from trio_worker.settings.reader import KEYS, SECTIONS, Key, Settings
from trio_worker.settings.replies import RULE_KEYS
from trio_worker.settings.schema import SCHEMA_FILE

# The values in each file in conf/ that differ from the defaults.
DEV: dict[str, Any] = {"profile": "dev", "smtp.tls": "none", "capture.listen": "127.0.0.1:1025"}
PRODUCTION: dict[str, Any] = {
    "profile": "production",
    "number_workers": 20,
    "redis.url": "redis://127.0.0.1:6379/0",
    "smtp.host": "smtp.example.com",
    "smtp.port": 587,
    "smtp.tls": "starttls",
    "mail.frontend_url": "https://app.example.com",
    "smtp.pool.max_size": 20,
    "smtp.pool.min_idle": 2,
}
_SCHEMA_LINE = f"#:schema ./{SCHEMA_FILE}\n"  # https://taplo.tamasfe.dev/configuration/directives.html
_DEV_HEAD = """\
# trio_worker on one machine, without other servers: it starts its own Valkey and its own mail catcher.
# Every key with its value. A key that you remove has its default, which docs/configuration.md lists.
"""
_PRODUCTION_HEAD = """\
# trio_worker in production. Replace every host, address and URL; then run: trio-worker config check. It refuses what
# is left of the example.
# Keep secrets in files: redis.password_file, smtp.password_file, or systemd's $CREDENTIALS_DIRECTORY.
"""


def dev_text() -> str:
    """Return the text of conf/dev.toml."""
    return _SCHEMA_LINE + _DEV_HEAD + "\n" + toml_text(DEV)


def production_text(*, names_schema: bool = True) -> str:
    """Return the text of conf/production.toml; `config init` writes it too, but names a schema only if there is one."""
    head = _SCHEMA_LINE + _PRODUCTION_HEAD if names_schema else _PRODUCTION_HEAD
    return head + "\n" + toml_text(PRODUCTION, left_out=("capture",))


def toml_text(changes: Mapping[str, Any], left_out: tuple[str, ...] = ()) -> str:
    """Return a whole configuration file: every key with its help text; ``changes`` replace the defaults."""
    parts = []
    for section in SECTIONS:
        if section in left_out:
            continue
        lines = [f"[{section}]"] if section else []
        for key in _keys_in(section):
            name = key.dotted.removeprefix(f"{section}.") if section else key.dotted
            lines += [f"# {line}" for line in textwrap.wrap(key.option.help_text, 100)]
            if key.option.secret:
                lines.append(f'# {name}_file = "/run/secrets/{key.dotted.replace(".", "_")}"')
            else:
                lines.append(f"{name} = {toml_value(changes.get(key.dotted, key.default))}")
        parts.append("\n".join(lines))
        if section == "mail":
            parts += list(_type_tables())
    return "\n\n".join(parts) + "\n"


def toml_value(value: object) -> str:
    """Return a value in TOML."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return f"{value:g}" if value < 1e6 else f"{value:.0f}"
        case str():
            # Basic strings of TOML are escaped as in JSON; only DEL is allowed in JSON and not in TOML.
            escaped = "".join(_escaped(char) for char in value)
            return f'"{escaped}"'
        case tuple() | list():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case _:
            raise TypeError(f"no TOML for {type(value).__name__}")


def explain(key: Key) -> str:
    """Return the explanation of one key, in a few lines."""
    bounds = []
    if key.option.minimum is not None:
        bounds.append(f"at least {key.option.minimum:g}")
    if key.option.maximum is not None:
        bounds.append(f"at most {key.option.maximum:g}")
    if key.option.choices:
        bounds.append("one of " + ", ".join(choice or "(empty)" for choice in key.option.choices))
    lines = [key.dotted, *textwrap.wrap(key.option.help_text, 78, initial_indent="  ", subsequent_indent="  ")]
    lines.append(f"  default      {'(none)' if key.option.secret else toml_value(key.default)}")
    if bounds:
        lines.append(f"  bounds       {', '.join(bounds)}")
    lines.append(f"  environment  {key.variable}")
    if key.option.secret:
        lines.append(f"  from a file  {key.dotted}_file, {key.variable}_FILE, or a systemd credential called "
                     f"{key.dotted.replace('.', '_')}")  # fmt: skip
    return "\n".join(lines)


def settings_reference() -> str:
    """Return the text of docs/configuration.md."""
    rows = []
    for section in SECTIONS:
        rows.append(f"\n## {f'[{section}]' if section else 'Top level'}\n")
        rows.append("| key | default | meaning | environment |\n| --- | --- | --- | --- |")
        rows += [_row(key) for key in _keys_in(section)]
        if section == "mail":
            rows.append("\n## [mail.types.&lt;email type&gt;]\n")
            rows.append("The email type is a built-in one, or your own from `mail.template_dirs`.\n")
            rows.append("| key | shipped | meaning |\n| --- | --- | --- |")
            rows += list(_type_rows())
    rows.append("\n## [[replies]]\n")
    rows.append(_REPLIES_HEAD + "\n\n| key | meaning |\n| --- | --- |")
    rows += [f"| `{key}` | {text} |" for key, text in RULE_KEYS.items()]
    return _REFERENCE_HEAD + "\n".join(rows) + "\n"


_REPLIES_HEAD = """\
Rules for what a relay says, each a table with this head; the first one that fits decides, before the built-in table
of [relays.md](relays.md). In the environment: `TRIO_WORKER__REPLIES`, a list of objects in JSON. `trio-worker smtp
explain` shows what a reply is taken for."""
_REFERENCE_HEAD = """\
# Configuration

`tools/write_docs` writes this page from the option records in the code.

The value of a key comes from the first of these that sets it: a flag, the environment, the file, the default. The file
is the one given with `--config` (before or after the command), or else named by `TRIO_WORKER_CONFIG`, or else
`conf/dev.toml` in the working directory, if there is one. The unit of a duration is in its key. Paths are relative to
the working directory. In the environment a list is separated by commas.

A secret can also come from a file: give `<key>_file`, set `..._FILE` in the environment, or use a systemd credential
with the name `smtp_password` or `redis_password`. One line feed at the end of the file is ignored.

- `trio-worker config check` prints all faults at once, with file and line; it exits with 78 if there are any.
- `trio-worker config show --origin` prints the value in force of every key, and where it came from.
- `trio-worker config schema` prints a JSON Schema of the file for editors. `conf/trio_worker.schema.json` is the same
  schema; the first line of the files in `conf/` names it for Taplo.
"""


def _keys_in(section: str) -> Iterator[Key]:
    return (key for key in KEYS.values() if key.section == section)


def _row(key: Key) -> str:
    name = key.dotted.removeprefix(f"{key.section}.") if key.section else key.dotted
    if key.option.secret:
        name, default = f"{name}, {name}_file", "none"
    else:
        default = f"`{toml_value(key.default)}`"
    return f"| `{name}` | {default} | {key.option.help_text} | `{key.variable}` |"


def _type_tables() -> Iterator[str]:
    for name, own in MailOptions().types.items():
        lines = [f"[mail.types.{name}]"]
        for attribute in attrs.fields(TypeOptions):
            value = getattr(own, attribute.name)
            if value not in (None, ""):
                lines += [f"# {option_of(attribute).help_text}", f"{attribute.name} = {toml_value(value)}"]
        yield "\n".join(lines)


def _type_rows() -> Iterator[str]:
    shipped = MailOptions().types
    for attribute in attrs.fields(TypeOptions):
        values = {name: getattr(own, attribute.name) for name, own in shipped.items()}
        shipped_text = ", ".join(
            f"{name} `{toml_value(value)}`" for name, value in values.items() if value not in (None, "")
        )
        yield f"| `{attribute.name}` | {shipped_text or '-'} | {option_of(attribute).help_text} |"


def _escaped(char: str) -> str:
    if char in '"\\':
        return f"\\{char}"
    return char if char.isprintable() else f"\\U{ord(char):08x}"


def effective(settings: Settings) -> Iterator[tuple[str, Any, bool]]:
    """Yield every key with its effective value, and whether it is a secret."""
    for key in KEYS.values():
        field_name, _ = SECTIONS[key.section]
        record = getattr(settings, field_name) if field_name else settings
        yield key.dotted, getattr(record, key.name), key.option.secret
    for name, own in settings.mail.types.items():
        for attribute in attrs.fields(TypeOptions):
            value = getattr(own, attribute.name)
            if value not in (None, ""):
                yield f"mail.types.{name}.{attribute.name}", value, False
    for number, rule in enumerate(settings.replies):
        values = {"code": rule.code, "text": rule.text, "class": str(rule.reply_class)}
        for name, value in values.items():
            if value:
                yield f"replies.{number}.{name}", value, False
