"""Pure. Options of the mail catcher. A module by itself, so that a worker without a catcher does not load it."""

from __future__ import annotations

from trio_worker.option import option
from trio_worker.records import frozen


@frozen
class CaptureOptions:
    """Address and folder of the mail catcher (config section ``[capture]``)."""

    listen: str = option(
        "", "Address and port of the mail catcher, for example 127.0.0.1:1025; empty: no mail catcher."
    )
    dir: str = option(
        "var/capture", "Folder of the mail catcher, with the caught mails as a Maildir, and its chaos settings."
    )


def split_listen(listen: str) -> tuple[str, int]:
    """Split ``127.0.0.1:1025``, ``[::1]:1025`` or ``localhost:1025`` into host and port; else ValueError."""
    host, colon, port = listen.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise ValueError(f"capture.listen must be an address and a port, such as 127.0.0.1:1025, not {listen!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)
