"""Edge. `Settings`: the option records of all packages in one record, and the table of all keys.

Each package has its option records in a module that imports nothing else of it; only this module knows all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

import attrs
from attrs import field

from trio_worker.capture.options import CaptureOptions
from trio_worker.mail.options import MailOptions, TypeOptions
from trio_worker.option import Option, option, option_of
from trio_worker.queue.options import HistoryOptions, QueueOptions
from trio_worker.records import define, frozen
from trio_worker.redis.options import RedisOptions
from trio_worker.settings.sources import SettingFault, variable_of
from trio_worker.smtp.options import PoolOptions, RelayOptions, Timeouts
from trio_worker.telemetry.options import LogOptions, MetricsOptions
from trio_worker.worker.options import RetryPolicy, ShutdownOptions
from trio_worker.worker.reply_rule import ReplyRule

TYPES = "mail.types"


@frozen
class Settings:
    """All option records of a process; ``origins`` has the source of each value, ``warnings`` what is probably wrong.

    ``file`` is the path of the configuration file, empty if there is none.

    The default profile is dev. It sends only to a relay on this machine, so that a worker without a configuration
    cannot send mail to real people.
    """

    number_workers: int = option(
        10,
        "Number of consumer tasks. Each sends over one connection, up to pipeline_depth mails at once.",
        minimum=1,
        maximum=10_000,
    )
    profile: str = option(
        "dev",
        "dev refuses a relay on another machine; production refuses the embedded server and the mail catcher.",
        choices=("dev", "production"),
    )
    queue: QueueOptions = field(factory=QueueOptions)
    history: HistoryOptions = field(factory=HistoryOptions)
    redis: RedisOptions = field(factory=RedisOptions)
    smtp: RelayOptions = field(factory=RelayOptions)
    smtp_pool: PoolOptions = field(factory=PoolOptions)
    smtp_timeouts: Timeouts = field(factory=Timeouts)
    retry: RetryPolicy = field(factory=RetryPolicy)
    mail: MailOptions = field(factory=MailOptions)
    capture: CaptureOptions = field(factory=CaptureOptions)
    shutdown: ShutdownOptions = field(factory=ShutdownOptions)
    log: LogOptions = field(factory=LogOptions)
    metrics: MetricsOptions = field(factory=MetricsOptions)
    replies: tuple[ReplyRule, ...] = ()
    origins: Mapping[str, str] = field(factory=dict, eq=False)
    warnings: tuple[SettingFault, ...] = field(default=(), eq=False)
    file: str = field(default="", eq=False)


@frozen
class SettingFaults:
    """All faults of a configuration.

    ``settings`` have a default in the place of each faulty value; None if the file could not be read.
    """

    faults: tuple[SettingFault, ...]
    settings: Settings | None = field(default=None, eq=False)


@define
class Origins:
    """The places where keys are set and where email types are first named, for faults that are found later."""

    places: dict[str, str] = field(factory=dict)
    type_places: dict[str, str] = field(factory=dict)

    def place(self, dotted: str) -> str:
        return self.places.get(dotted, "default")


# Sections in the order of the files; the empty name is for the keys before the first section.
SECTIONS: dict[str, tuple[str, type[Any]]] = {
    "": ("", Settings),
    "queue": ("queue", QueueOptions),
    "history": ("history", HistoryOptions),
    "redis": ("redis", RedisOptions),
    "smtp": ("smtp", RelayOptions),
    "smtp.pool": ("smtp_pool", PoolOptions),
    "smtp.timeouts": ("smtp_timeouts", Timeouts),
    "retry": ("retry", RetryPolicy),
    "mail": ("mail", MailOptions),
    "capture": ("capture", CaptureOptions),
    "shutdown": ("shutdown", ShutdownOptions),
    "log": ("log", LogOptions),
    "metrics": ("metrics", MetricsOptions),
}


@frozen
class Key:
    """One key of the settings: ``dotted`` is its public name, ``name`` the field of its record."""

    dotted: str
    section: str
    name: str
    option: Option
    kind: Any
    default: Any

    @property
    def variable(self) -> str:
        return variable_of(self.dotted)


def _keys_of(section: str, record: type[Any]) -> Iterator[Key]:
    kinds = get_type_hints(record)
    for attribute in attrs.fields(record):
        if not attribute.metadata or kinds[attribute.name] == dict[str, TypeOptions]:
            continue
        declared = option_of(attribute)
        dotted = ".".join(filter(None, (section, declared.key or attribute.name)))
        yield Key(dotted, section, attribute.name, declared, kinds[attribute.name], attribute.default)


KEYS: dict[str, Key] = {
    key.dotted: key for section, (_, record) in SECTIONS.items() for key in _keys_of(section, record)
}
TYPE_KEYS: dict[str, Key] = {key.name: key for key in _keys_of(f"{TYPES}.*", TypeOptions)}


def value_of(settings: Settings, dotted: str) -> Any:
    """Return the value of the key with this public name."""
    key = KEYS[dotted]
    return getattr(_section_of(settings, key.section), key.name)


def _section_of(settings: Settings, section: str) -> Any:
    return getattr(settings, SECTIONS[section][0]) if section else settings
