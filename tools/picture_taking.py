"""Make SVG pictures of the dashboard: the last frame that a worker drew in a real terminal of a given size.

The worker uses an embedded Valkey and a catcher with faults: some recipients are greylisted, some unknown, and some
replies are late.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import random
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

from redis import Redis
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from trio_worker.cli.demo import demo_job

ROOT = Path(__file__).resolve().parent.parent
CHAOS = "every=delay-15ms,rcpt=451-4.7.1:6%,rcpt=550-5.1.1-No_such_user:1%,final=delay-900ms:3%"
SIZES = ((80, 24), (160, 45))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=45.0, help="how long the load goes on before the picture")
    parser.add_argument("--rate", type=float, default=160.0, help="jobs a second")
    given = parser.parse_args()
    for columns, lines in SIZES:
        frame = take_frame(columns, lines, given.seconds, given.rate)
        path = ROOT / "docs" / f"dashboard-{columns}x{lines}.svg"
        path.write_text(picture_of(frame, columns, lines), encoding="utf-8")
        print(path.relative_to(ROOT))


def take_frame(columns: int, lines: int, seconds: float, rate: float) -> str:
    """Run a worker under load in a terminal of this size; return the last complete frame that it drew."""
    with tempfile.TemporaryDirectory() as folder:
        inside, outside = pty.openpty()
        fcntl.ioctl(outside, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environ = {
            **os.environ,
            "TERM": "xterm-256color",
            "CI": "",
            "PYTHONPATH": str(ROOT),
            "TRIO_WORKER__SMTP__PORT": "2525",
            "TRIO_WORKER__SMTP__TLS": "none",
            "TRIO_WORKER__CAPTURE__LISTEN": "127.0.0.1:2525",
            "TRIO_WORKER__RETRY__BASE_SECONDS": "5",
        }
        environ.pop("NO_COLOR", None)
        capture = Path(folder) / "var" / "capture"
        capture.mkdir(parents=True)
        program = [sys.executable, "-m", "trio_worker"]
        subprocess.run(
            [*program, "capture", "chaos", CHAOS], cwd=folder, env=environ, check=True, stdout=subprocess.DEVNULL
        )
        worker = subprocess.Popen(
            [*program, "run"], cwd=folder, env=environ, stdin=outside, stdout=outside, start_new_session=True
        )
        os.close(outside)
        seen = bytearray()
        reader = threading.Thread(target=_read, args=(inside, seen), daemon=True)
        reader.start()
        _push(Path(folder), seconds, rate)
        shown = bytes(seen).decode("utf-8", "replace")
        worker.terminate()
        worker.wait(60)
        reader.join(5)
        os.close(inside)
    whole = [frame for frame in shown.split("\x1b[?2026h\x1b[H") if "\x1b[?2026l" in frame]
    return whole[-1].partition("\x1b[?2026l")[0]


def _read(fd: int, seen: bytearray) -> None:
    try:
        while chunk := os.read(fd, 65536):
            seen += chunk
    except OSError:
        return


def _push(folder: Path, seconds: float, rate: float) -> None:
    """Push sample jobs at this rate to the embedded server, after it has started."""
    named = folder / "var" / "valkey" / "server.json"
    while not named.exists():
        time.sleep(0.1)
    port = int(re.findall(r'"port": (\d+)', named.read_text("utf-8"))[0])
    dice = random.Random(11)
    with Redis(port=port) as queue:
        began, pushed = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            wanted = int((time.monotonic() - began) * rate)
            if wanted > pushed:
                queue.rpush("jobs", *(demo_job(number, dice) for number in range(pushed, wanted)))
                pushed = wanted
            time.sleep(0.05)


def picture_of(frame: str, columns: int, lines: int) -> str:
    """Return a frame, given as the bytes for the terminal, as SVG."""
    console = Console(
        file=io.StringIO(), record=True, width=columns, height=lines, force_terminal=True, color_system="standard"
    )
    for line in frame.split("\r\n")[:lines]:
        console.print(Text.from_ansi(line.rstrip()), soft_wrap=True, highlight=False)
    return console.export_svg(title="trio-worker run", theme=SVG_EXPORT_THEME, unique_id=f"frame{columns}")


if __name__ == "__main__":
    main()
