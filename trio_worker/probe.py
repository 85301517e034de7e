"""Edge. ``health``: asks a running worker whether it lives or is ready; it runs every second, so it imports little.

Only the standard library, and of the project nothing: a container's probe must cost less than what it looks after.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
import tomllib

_VARIABLE = "TRIO_WORKER__METRICS__LISTEN"
_CONFIG = "TRIO_WORKER_CONFIG"
_DEV_FILE = "conf/dev.toml"
_ASK_SECONDS = 2.0
_AGAIN_SECONDS = 0.2
OK, USAGE, UNREACHABLE, TIMED_OUT, MISCONFIGURED = 0, 2, 69, 75, 78


def main(words: list[str]) -> int:
    """Ask and say the answer; return 0, 69 (no, or nobody answers), 75 (not within --wait) or 78 (nowhere to ask)."""
    given = _parser().parse_args(words)
    wait_seconds = _seconds(given.wait)
    if wait_seconds is None:
        print(f"--wait: must be like 30s or 2m, not {given.wait}", file=sys.stderr)
        return USAGE
    address = given.address or _configured(given.config)
    if not address:
        print("metrics.listen is not set: there is nobody to ask (or name it: --address)", file=sys.stderr)
        return MISCONFIGURED
    deadline = time.monotonic() + wait_seconds
    while True:
        status, said = _ask(address, "/livez" if given.what == "live" else "/readyz")
        if status == 200:
            print(said)
            return OK
        if time.monotonic() >= deadline:
            print(said, file=sys.stderr)
            return TIMED_OUT if wait_seconds else UNREACHABLE
        time.sleep(_AGAIN_SECONDS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trio-worker health", description="Ask a running worker how it is, at its metrics.listen."
    )
    parser.add_argument("what", choices=("live", "ready"), help="live: its loop runs; ready: Redis answers, no drain")
    parser.add_argument("--wait", default="0s", help="ask until it is so, at most so long: 30s, 2m")
    parser.add_argument("--address", default="", help="where to ask: HOST:PORT or unix:PATH; else metrics.listen")
    parser.add_argument("--config", default="", help=f"configuration file; else {_CONFIG}")
    return parser


def _seconds(text: str) -> float | None:
    number, unit = text[:-1], text[-1:]
    scale = {"s": 1, "m": 60}.get(unit)
    return float(number) * scale if scale and number.isascii() and number.isdigit() else None


def _configured(config: str) -> str:
    """Return metrics.listen as the worker would read it: environment, then file."""
    if os.environ.get(_VARIABLE):
        return os.environ[_VARIABLE]
    path = config or os.environ.get(_CONFIG, "") or _DEV_FILE
    try:
        with open(path, "rb") as file:  # noqa: PTH123  pathlib costs a third of this program's time
            section = tomllib.load(file).get("metrics", {})
    except (OSError, tomllib.TOMLDecodeError):
        return ""
    listen = section.get("listen", "") if isinstance(section, dict) else ""
    return listen if isinstance(listen, str) else ""


def _ask(address: str, path: str) -> tuple[int, str]:
    """Return the status and what was said; 0 where nobody answers."""
    try:
        with _connected(address) as link:
            link.sendall(f"GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while chunk := link.recv(65536):
                answer += chunk
    except (OSError, ValueError) as error:
        return 0, f"{address}: {error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    return status, body.decode("utf-8", "replace").strip() or f"{address}: no answer that makes sense"


def _connected(address: str) -> socket.socket:
    if address.startswith("unix:"):
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(_ASK_SECONDS)
        link.connect(address.removeprefix("unix:"))
        return link
    host, _, port = address.rpartition(":")
    # One that listens on all addresses is asked on this machine's own.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104
    return socket.create_connection((host, int(port)), _ASK_SECONDS)
