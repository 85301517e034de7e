"""Pure. The schemas of all JSON documents that commands print: name and version, in one table.

The version of a schema goes up when a key is removed or gets another meaning; new keys may come at any time.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Document(StrEnum):
    """The value of the key ``schema`` of a document; docs/operations.md names the commands that print it."""

    AGES = "trio-worker/ages/2"
    AUDIT = "trio-worker/audit/1"
    BOTTLENECK = "trio-worker/bottleneck/2"
    CANCEL = "trio-worker/cancel/1"
    CAUGHT = "trio-worker/caught/1"
    CHAOS = "trio-worker/chaos/1"
    CLEAR = "trio-worker/clear/1"
    CONFIG = "trio-worker/config/1"
    CONFIG_CHECK = "trio-worker/config-check/1"
    DROP = "trio-worker/drop/1"
    ENQUEUE = "trio-worker/enqueue/1"
    FINDING = "trio-worker/finding/1"
    FOUND = "trio-worker/found/1"
    GROUPS = "trio-worker/groups/1"
    JOB = "trio-worker/job/1"
    LOAD = "trio-worker/load/1"
    METRIC = "trio-worker/metric/1"
    METRICS = "trio-worker/metrics/1"
    MINUTES = "trio-worker/minutes/1"
    OUTCOME = "trio-worker/outcome/1"
    PREVIEW = "trio-worker/preview/1"
    PURGE = "trio-worker/purge/1"
    QUEUE = "trio-worker/queue/1"
    RELAY_CHECK = "trio-worker/relay-check/1"
    RELEASE = "trio-worker/release/1"
    REPLY = "trio-worker/reply/1"
    RETRY = "trio-worker/retry/1"
    SENT = "trio-worker/sent/1"
    SHELF = "trio-worker/shelf/1"
    SNAPSHOT = "trio-worker/snapshot/2"
    STATUS = "trio-worker/status/2"
    TRACE = "trio-worker/trace/1"
    UNDO = "trio-worker/undo/1"
    WAITING_JOB = "trio-worker/waiting-job/1"
    WORKERS = "trio-worker/workers/2"


def with_schema(kind: Document, document: Mapping[str, object]) -> dict[str, Any]:
    """Return a document that begins with its ``schema``."""
    return {"schema": str(kind), **document}
