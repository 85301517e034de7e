"""Courier of Debian, the part that takes mails; they stay in its queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.servers.debian import debian_image, running_in_layers
from tests.support.servers.running import Kept, Running, free_port, with_crlf

# As its own start script does it, in the foreground; RELAYCLIENT lets this machine send to anybody.
_SCRIPT = """
mkdir -p /run/courier
chown courier:courier /run/courier
. /etc/courier/esmtpd
export BOFHCHECKDNS=0 RELAYCLIENT= ESMTPAUTH= AUTH_REQUIRED=0
exec /usr/sbin/couriertcpd -nodnslookup -noidentlookup -maxprocs=$MAXDAEMONS -maxperip=$MAXPERIP \\
  -user=courier -group=courier -address=127.0.0.1 $PORT /usr/sbin/courieresmtpd
"""


@contextmanager
def open_courier(run_folder: Path, folder: Path) -> Iterator[Running]:
    """Start it in a folder."""
    image = debian_image(run_folder, "courier", "courier-mta")
    port = free_port()
    files: dict[str, str] = {}
    with running_in_layers(image, folder, files, _SCRIPT.replace("$PORT", str(port)), port) as log:
        yield Running(port, lambda: _queued(folder / "upper" / "var" / "lib" / "courier" / "tmp"), log)


def _queued(folder: Path) -> list[Kept]:
    """Return the mails in its queue: the lines of a control file that begin with r are the recipients."""
    kept = []
    for control in folder.glob("*/C*"):
        octets = with_crlf(control.with_name(f"D{control.name[1:]}").read_bytes())
        kept += [Kept(line[1:], octets) for line in control.read_text().splitlines() if line.startswith("r")]
    return kept
