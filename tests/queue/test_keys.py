"""The names of the keys: the table that is documented is the code."""

from __future__ import annotations

import re

from trio_worker.queue import keys as keys_module
from trio_worker.queue.keys import keys_of


def test_the_key_table_is_the_code() -> None:
    """The table at the head of the keys' module names exactly the keys that the scripts get, with their types."""
    rows = re.findall(r"^(jobs|\{jobs\}:\w+) +(\w+) ", keys_module.__doc__ or "", re.MULTILINE)
    prelude = keys_module.__file__.replace("keys.py", "scripts/prelude.lua")
    with open(prelude, encoding="utf-8") as file:  # noqa: PTH123  a short read of our own file
        kinds = re.search(r"KINDS = \{(.*?)\}", file.read(), re.DOTALL)
    assert kinds is not None

    assert [name for name, _ in rows] == list(keys_of("jobs"))
    assert [kind for _, kind in rows] == re.findall(r"'(\w+)'", kinds[1])


def test_the_names_of_the_keys_stay() -> None:
    """Each field of the record names its key, in its place of every script: other versions use them as well."""
    parts = "leased delayed held dead body record lease pause totals history workers heartbeats orders minutes"
    parts += " watch latest undo answers losses"

    assert list(keys_of("a b")) == ["a b", *(f"{{a b}}:{part}" for part in parts.split())]
    assert keys_of("jobs").of_jobs == keys_of("jobs")[:11]
