"""Sendmail of Debian."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.support.servers.debian import debian_image, running_in_layers
from tests.support.servers.running import Running, free_port, kept_in

# With its defaults it keeps mails back and refuses connections on a busy machine (the three settings with LA).
# Every address is handed to our program. Flags: 8 takes eight bits, n adds no line that begins with From.
_SETTINGS = """
divert(0)dnl
OSTYPE(`debian')dnl
DOMAIN(`debian-mta')dnl
undefine(`confHOST_STATUS_DIRECTORY')dnl
define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch-nodns')dnl
define(`confDOMAIN_NAME', `relay.example.org')dnl
define(`confDELAY_LA', `1000')dnl
define(`confQUEUE_LA', `1000')dnl
define(`confREFUSE_LA', `1000')dnl
FEATURE(`accept_unresolvable_domains')dnl
FEATURE(`accept_unqualified_senders')dnl
FEATURE(`nocanonify')dnl
FEATURE(`promiscuous_relay')dnl
DAEMON_OPTIONS(`Family=inet, Name=MTA, Port={port}, Addr=127.0.0.1')dnl
MAILER(`local')dnl
MAILER(`smtp')dnl
LOCAL_RULE_0
R$*			$#keep $@ here $: $1
MAILER_DEFINITIONS
Mkeep, P=/keep, F=8n, E=\\r\\n, A=keep $u
"""


@contextmanager
def open_sendmail(run_folder: Path, folder: Path) -> Iterator[Running]:
    """Start it in a folder; it hands all mails to a program."""
    image = debian_image(run_folder, "sendmail", "sendmail-bin")
    port = free_port()
    files = {"/etc/mail/own.mc": _SETTINGS.format(port=port)}
    made = "m4 /usr/share/sendmail/cf/m4/cf.m4 /etc/mail/own.mc >/etc/mail/own.cf"
    script = f"{made} && exec sendmail -bD -C/etc/mail/own.cf"
    with running_in_layers(image, folder, files, script, port) as log:
        yield Running(port, partial(kept_in, folder / "kept"), log)
