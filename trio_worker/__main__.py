"""Edge. The console script, and ``python -m trio_worker``."""

from __future__ import annotations

import gc
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes a sixth of the time of a probe
    from typing import NoReturn

# The options that many commands have, and whether a value follows; they may also stand before the command.
COMMON_OPTIONS = {
    **dict.fromkeys(("--config", "--queue", "--timeout"), True),
    **dict.fromkeys(("--json", "--yes", "-y", "--no-input", "--dry-run", "-n"), False),
}
# What a shell reports for a program that SIGINT ended.
_INTERRUPTED = 130
# The same for SIGPIPE, which Python ignores.
_NOT_READ = 141


def main() -> NoReturn:
    """Run the command line and exit with its code; 130 for a Ctrl-C that no worker takes, 141 if nobody reads on."""
    _hold_standard_descriptors()
    # What a terminal cannot show is escaped: a name in a mail must not end the command, least of all half way.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in {"strict", "surrogateescape"}:
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(_run())
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        _leave_unread()
    except BaseExceptionGroup as group:  # a command with tasks of its own
        if group.split(BrokenPipeError)[1] is not None:
            raise
        _leave_unread()


def _leave_unread() -> NoReturn:
    """End because whoever read our output has left, as `head` does; what Python still holds is not flushed there."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_NOT_READ)


def _run() -> int:
    words = behind_command(sys.argv[1:])
    if words[:1] == ["health"]:
        from trio_worker.telemetry import probe  # noqa: PLC0415  it costs a tenth of all the other commands

        asked = probe.read_plainly(words[1:])
        if asked is not None:
            return probe.ask_workers(**asked)
        # Whoever asks for help, or is wrong, waits for the library that explains.
    # Little that is imported is garbage: each look through it would cost a twentieth of the start. A command imports
    # 100,000 objects or so, and what comes then is looked through as usual.
    gc.set_threshold(200_000, 20, 20)
    from trio_worker.cli import app  # noqa: PLC0415  the descriptors come first

    code: int = app(words)
    return code


def behind_command(words: list[str]) -> list[str]:
    """Return the words of a command line with the common options that stand before its command moved behind it.

    What is no such option stays where it is, for the command line to refuse; so does everything where no command
    follows.
    """
    at = 0
    while at < len(words) and (name := words[at].partition("=")[0]) in COMMON_OPTIONS:
        at += 2 if COMMON_OPTIONS[name] and name == words[at] else 1
    if at >= len(words) or words[at].startswith("-"):
        return words
    options, rest = words[:at], words[at:]
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *options, *rest[end:]]


def _hold_standard_descriptors() -> None:
    """Open /dev/null where standard input, output or error is closed: else print could write to a socket.

    Python has set the stream of a closed descriptor to None, which would break the first look at it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  they stay open
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
