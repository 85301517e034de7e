"""Dovecot of Debian: its submission server, which asks for a login and hands each mail to another server at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.support.servers.debian import debian_image, running_in_layers
from tests.support.servers.running import Running, free_port
from tests.support.servers.smtp_server import open_smtp_server

_SETTINGS = """
protocols = submission
hostname = relay.example.org
log_path = /dev/stderr
ssl = required
ssl_cert = </etc/dovecot/server.pem
ssl_key = </etc/dovecot/server.pem
auth_mechanisms = plain
mail_location = maildir:/tmp/mails
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home=/tmp
}}
submission_relay_host = 127.0.0.1
submission_relay_port = {behind}
service submission-login {{
  inet_listener submission {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""


@contextmanager
def open_dovecot(run_folder: Path, folder: Path) -> Iterator[Running]:
    """Start it in a folder, with smtp-server behind it, which keeps the mails."""
    image = debian_image(run_folder, "dovecot", "dovecot-submissiond")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    (folder / "behind").mkdir()
    port = free_port()
    with open_smtp_server(run_folder, folder / "behind") as behind:
        files = {
            "/etc/dovecot/dovecot.conf": _SETTINGS.format(port=port, behind=behind.port),
            "/etc/dovecot/server.pem": certificate.private_key_and_cert_chain_pem.bytes().decode(),
        }
        with running_in_layers(image, folder, files, "exec dovecot -F", port) as log:
            yield Running(
                port,
                behind.kept,
                log,
                tls="starttls",
                ca_file=str(folder / "ca.pem"),
                username="worker",
                password="secret",
            )
