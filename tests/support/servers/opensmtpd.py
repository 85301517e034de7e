"""OpenSMTPD of Debian."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.support.servers.debian import debian_image, running_in_layers
from tests.support.servers.running import Running, free_port, kept_in

_SETTINGS = """
listen on 127.0.0.1 port {port} hostname relay.example.org
table everybody {{ "@" = "nobody" }}
action "keep" mda "/keep %{{rcpt}}" virtual <everybody>
match from any for any action "keep"
"""


@contextmanager
def open_opensmtpd(run_folder: Path, folder: Path) -> Iterator[Running]:
    """Start it in a folder; it hands all mails to a program."""
    image = debian_image(run_folder, "opensmtpd", "opensmtpd")
    port = free_port()
    files = {"/etc/smtpd.conf": _SETTINGS.format(port=port)}
    with running_in_layers(image, folder, files, "exec smtpd -d", port) as log:
        yield Running(port, partial(kept_in, folder / "kept"), log)
