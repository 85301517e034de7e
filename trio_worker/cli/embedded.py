"""Edge. The embedded server of a configuration: its address, and what a command says if it cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trio_worker.cli.exit_codes import MISCONFIGURED, UNREACHABLE
from trio_worker.cli.output import refuse
from trio_worker.redis.url import EmbeddedAddress, parse_embedded
from trio_worker.settings.reader import Settings

if TYPE_CHECKING:
    from trio_worker.redis.embedded import EmbeddedError


def embedded_address(settings: Settings) -> EmbeddedAddress:
    """Return the address in redis.url; exit with 78 if it is none."""
    address = parse_embedded(settings.redis.url)
    if not isinstance(address, EmbeddedAddress):
        refuse(MISCONFIGURED, f"redis.url: {address.reason}")
    return address


def embedded_fault(settings: Settings) -> EmbeddedError | None:
    """Return why the embedded server of the settings cannot be used; None if it runs, or is not configured. Blocks."""
    if not settings.redis.url.startswith("embedded:"):
        return None
    from trio_worker.redis.embedded import EmbeddedError, acquire_embedded, release_embedded  # noqa: PLC0415

    try:
        hold = acquire_embedded(embedded_address(settings), may_start=False)
    except EmbeddedError as error:
        return error
    release_embedded(hold)
    return None


def embedded_code(error: EmbeddedError) -> int:
    """Return the exit code for an embedded server that cannot be used."""
    from trio_worker.redis.embedded import EmbeddedDirectoryUnusable  # noqa: PLC0415

    return MISCONFIGURED if isinstance(error, EmbeddedDirectoryUnusable) else UNREACHABLE
