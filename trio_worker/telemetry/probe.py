"""Edge. ``health``: asks a running worker whether it is alive or ready, with few imports, as it runs every second.

It imports only the standard library and no other module of ours, because the probe of a container must be cheap.
"""

from __future__ import annotations

import os
import socket
import time

from trio_worker.printing import complain, say

_CONFIG = "TRIO_WORKER_CONFIG"
_LISTEN = "TRIO_WORKER__METRICS__LISTEN"
_FOLDER = "TRIO_WORKER__QUEUE__JOURNAL_DIR"
_DEV_FILE = "conf/dev.toml"
_JOURNAL_FOLDER = "var/journal"  # the default of queue.journal_dir
_ASK_SECONDS = 2.0
_AGAIN_SECONDS = 0.2
# A worker answers with some hundred bytes; a longer answer is not from a worker.
_MAX_ANSWER_BYTES = 1 << 20
# Of systemd; the units in conf/ops/ give a worker a folder in it.
_STATE_FOLDER = "/var/lib"
_ADDRESS_PREFIX, _ADDRESS_SUFFIX = "metrics-", ".address"
OK, USAGE, UNREACHABLE, TIMED_OUT, MISCONFIGURED = 0, 2, 69, 75, 78


def read_plainly(words: list[str]) -> dict[str, str] | None:
    """Read the arguments: ``live``, ``ready`` or neither, and full options with a value; None for all other arguments.

    The default is ``ready``, which implies ``live`` and says whether mails are sent.
    """
    what, *options = words if words and not words[0].startswith("-") else ["ready", *words]
    left = {"--wait", "--address", "--config"}
    given = {"what": what, "wait": "0s", "address": "", "config": ""}
    for option, value in zip(options[::2], options[1::2], strict=False):
        if option not in left or value.startswith("-"):
            return None
        left.remove(option)  # a second one contradicts the first
        given[option[2:]] = value
    return given if what in {"live", "ready"} and not len(options) % 2 else None


def ask_workers(what: str, wait: str, address: str, config: str) -> int:
    """Ask and print the answer; return 0, 69 (no, or no answer), 75 (not within --wait) or 78 (no address)."""
    wait_seconds = _seconds(wait)
    if wait_seconds is None:
        complain(f"--wait: must be like 30s or 2m, not {wait}")
        return USAGE
    try:
        listen, folder = (address, "") if address else _configured(config)
    except (OSError, ValueError, RecursionError) as error:  # a ValueError if it is not UTF-8 or not TOML
        complain(f"the configuration cannot be read: {error}")
        return MISCONFIGURED
    deadline = time.monotonic() + wait_seconds
    while True:
        is_good, said = _ask_all(listen, folder, "/livez" if what == "live" else "/readyz", config)
        if is_good:
            say(*said)
            return OK
        if time.monotonic() >= deadline:
            complain(*said)
            return TIMED_OUT if wait_seconds else UNREACHABLE if listen else MISCONFIGURED
        time.sleep(_AGAIN_SECONDS)


def address_path(folder: str, pid: int) -> str:
    """Return the file to which a worker writes its address, for a shell that does not know its settings."""
    return os.path.join(folder, f"{_ADDRESS_PREFIX}{pid}{_ADDRESS_SUFFIX}")  # noqa: PTH118  see _configured


def written_addresses(folder: str) -> dict[str, str]:
    """Return the addresses that live processes have written in ``folder``, by file; empty for ended processes."""
    found: dict[str, str] = {}
    try:
        names = sorted(os.listdir(folder or "."))  # noqa: PTH208
    except OSError:
        return found
    for name in names:
        if name.startswith(_ADDRESS_PREFIX) and name.endswith(_ADDRESS_SUFFIX):
            path = os.path.join(folder, name)  # noqa: PTH118
            is_alive = _is_alive(name[len(_ADDRESS_PREFIX) : -len(_ADDRESS_SUFFIX)])
            found[path] = _read_address(path) if is_alive else ""
    return found


def _live_addresses(folder: str) -> list[str]:
    """Return the addresses in ``folder``, or else those where the shipped systemd units keep their journals."""
    for each in (folder, *_folders_of_units()):
        found = [address for address in written_addresses(each).values() if address] if each else []
        if found:
            return found
    return []


def _folders_of_units() -> list[str]:
    try:
        names = sorted(os.listdir(_STATE_FOLDER))  # noqa: PTH208
    except OSError:
        return []
    return [f"{_STATE_FOLDER}/{name}/journal" for name in names if name.startswith("trio-worker")]


def _read_address(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            return file.read(1000).strip()
    except (OSError, ValueError):
        return ""


def _seconds(text: str) -> float | None:
    number, unit = text[:-1], text[-1:]
    scale = {"s": 1, "m": 60}.get(unit)
    return float(number) * scale if scale and number.isascii() and number.isdigit() else None


def _configured(config: str) -> tuple[str, str]:
    """Return metrics.listen and queue.journal_dir as a worker reads them: from the environment, then the file.

    Raises OSError or ValueError for a file that cannot be read.
    """
    listen, folder = os.environ.get(_LISTEN), os.environ.get(_FOLDER)
    path = _config_file(config)
    if path and (listen is None or (folder is None and (not listen or _is_chosen(asked_address(listen))))):
        import tomllib  # noqa: PLC0415  not needed if all values are in the environment, as in containers

        with open(path, "rb") as file:  # noqa: PTH123  pathlib costs a third of this program's time
            document = tomllib.load(file)
        listen = _value(document, "metrics", "listen") if listen is None else listen
        folder = _value(document, "queue", "journal_dir") if folder is None else folder
    return listen or "", _JOURNAL_FOLDER if folder is None else folder


def _config_file(config: str) -> str:
    """Return the file that is read, as all commands choose it; empty if there is none."""
    return config or os.environ.get(_CONFIG, "") or (_DEV_FILE if os.access(_DEV_FILE, os.R_OK) else "")


def _value(document: dict[str, object], section: str, key: str) -> str | None:
    table = document.get(section)
    value = table.get(key) if isinstance(table, dict) else None
    return value if isinstance(value, str) else None


def asked_address(listen: str) -> str:
    """Return which of several addresses is asked: a unix socket, as no stranger reaches that, else the first."""
    addresses = [each.strip() for each in listen.split(",")]
    return next((each for each in addresses if each.startswith("unix:")), addresses[0])


def _is_chosen(listen: str) -> bool:
    """Return whether the system chooses the port of an address, so that the worker must write it to a file."""
    return listen.endswith(":0") and not listen.startswith("unix:")


def _is_alive(pid: str) -> bool:
    if not pid.isascii() or not pid.isdigit() or not 0 < int(pid) < 1 << 31:
        return False
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _why_unset(config: str) -> str:
    """Say that metrics.listen is not known, and by which file it would be."""
    taken = _config_file(config)
    if taken:
        return f"metrics.listen is not set in {taken}"
    file = os.path.abspath(_DEV_FILE)  # noqa: PTH100  see _configured
    return f"metrics.listen is not set here (--config names no file, {_CONFIG} is not set, and there is no {file})"


def _ask_all(listen: str, folder: str, path: str, config: str = "") -> tuple[bool, list[str]]:
    """Ask the worker, or all workers if each has a free port; yes if all of them say yes, and the line of each."""
    answers = [ask(address, path) for address in addresses_of(listen, folder)]
    if not answers:
        unset = "" if listen else f"{_why_unset(config)}, and "
        return False, [f"{unset}no worker has written its address in {folder or 'a journal'}; --address names one"]
    return all(status == 200 for status, _ in answers), [said for _, said in answers]


def addresses_of(listen: str, folder: str) -> list[str]:
    """Return the addresses of workers with this metrics.listen.

    With port 0, or if it is not known in this shell, they are those that live workers have written.
    """
    listen = asked_address(listen) if listen else ""
    return _live_addresses(folder) if not listen or _is_chosen(listen) else [listen]


def ask(address: str, path: str) -> tuple[int, str]:
    """Return the status and the text of a page; 0 and the reason if no worker answers within two seconds."""
    try:
        with _connected(address) as link:
            link.sendall(f"GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while (chunk := link.recv(65536)) and len(answer) < _MAX_ANSWER_BYTES:
                answer += chunk
    except (OSError, ValueError, OverflowError) as error:  # a port beyond 65535 overflows
        return 0, f"{address}: {error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    return status, body.decode("utf-8", "replace").strip() or f"{address}: invalid answer"


def _connected(address: str) -> socket.socket:
    if address.startswith("unix:"):
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(_ASK_SECONDS)
        try:
            link.connect(address.removeprefix("unix:"))
        except OSError:
            link.close()
            raise
        return link
    host, _, port = address.rpartition(":")
    # A worker that listens on all addresses is asked on the loopback address.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host.strip("[]"), host.strip("[]"))  # noqa: S104
    # As bytes, because a str would load the codec for international names.
    places = socket.getaddrinfo(host.encode() if host.isascii() else host, int(port), type=socket.SOCK_STREAM)
    for last, (family, kind, protocol, _, place) in enumerate(places, 1 - len(places)):
        link = socket.socket(family, kind, protocol)
        link.settimeout(_ASK_SECONDS)
        try:
            link.connect(place)
        except OSError:
            link.close()
            if not last:
                raise
        else:
            return link
    raise OSError("no address")
