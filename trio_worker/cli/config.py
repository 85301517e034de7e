"""Edge. ``config``: checks the configuration, shows and explains its values, writes a new file or its schema."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from trio_worker.cli.exit_codes import NOTHING_MATCHED, OK, REFUSED
from trio_worker.cli.flags import AsJson, ConfigFile
from trio_worker.cli.json_documents import Document
from trio_worker.cli.load_settings import load_settings
from trio_worker.cli.output import print_json, refuse
from trio_worker.printing import complain, say, say_text
from trio_worker.settings.reader import (
    KEYS,
    suggest_key,
)
from trio_worker.settings.schema import SCHEMA_FILE, schema_text
from trio_worker.settings.text import effective, explain, production_text, toml_value

config_app = App(name="config", help="Configuration: check, show, explain, init, schema.", help_format="plaintext")
config_app.command(
    "trio_worker.cli.config_check:check_config",
    name="check",
    help="Check configuration, secrets and templates, and print all problems at once. Exits with 78 if there are any.",
)

# Up to the last @: a password that is not percent-encoded, as it should be, may contain any character.
_URL_LOGIN = re.compile(r"(?<=://).*@")
_URL_SECRET = re.compile(r"([?&][^=&]*(?:pass|secret|token|user)[^=&]*=)[^&#]*", re.IGNORECASE)


@config_app.command(name="show")
def show_settings(
    *,
    origin: Annotated[bool, Parameter(negative=(), help="Also show where each value comes from.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> int:
    """Print the effective configuration. Of a secret only its length is shown."""
    settings = load_settings(config)
    if as_json:
        shown = {
            key: _secret_word(value) if is_secret else _masked(value) for key, value, is_secret in effective(settings)
        }
        print_json(
            Document.CONFIG, {"settings": shown, "origins": dict(settings.origins)} if origin else {"settings": shown}
        )
        return OK
    for key, value, is_secret in effective(settings):
        line = f"{key} = {_secret_word(value) if is_secret else toml_value(_masked(value))}"
        say(f"{line:<60} # {settings.origins.get(key, 'default')}" if origin else line)
    return OK


@config_app.command(name="explain")
def explain_key(key: str) -> int:
    """Print the meaning of one key, its default and its environment variable."""
    if key not in KEYS:
        complain(f"{key}: no such key{suggest_key(key)}")
        return NOTHING_MATCHED
    say_text(explain(KEYS[key]))
    return OK


@config_app.command(name="init")
def init_config(path: Path = Path("conf/production.toml")) -> int:
    """Write a commented configuration file for production. An existing file is never overwritten."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(production_text(names_schema=path.with_name(SCHEMA_FILE).is_file()))
    except FileExistsError:
        complain(f"{path} exists: nothing was written")
        return REFUSED
    except OSError as error:
        refuse(REFUSED, f"{path}: {error.strerror}")
    say(f"{path} written; edit it, then: trio-worker config check --config {path}")
    return OK


@config_app.command(name="schema")
def print_settings_schema() -> int:
    """Print the JSON Schema of a configuration file (draft 4, which Taplo needs), for editors."""
    say_text(schema_text(), end="")
    return OK


def _masked(value: Any) -> Any:
    return _URL_SECRET.sub(r"\1…", _URL_LOGIN.sub("…@", value)) if isinstance(value, str) else value


def _secret_word(value: str) -> str:
    return f"(set, {len(value)} chars)" if value else "(not set)"
