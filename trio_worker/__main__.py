"""Edge. The console script, and ``python -m trio_worker``."""

from __future__ import annotations

import gc
import io
import os
import sys

from trio_worker.printing import show_crash

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes a sixth of the time of a probe
    from typing import NoReturn

# The options that are also allowed before the command, and whether a value follows.
COMMON_OPTIONS = {
    **dict.fromkeys(("--config", "--queue", "--timeout"), True),
    **dict.fromkeys(("--json", "--yes", "-y", "--no-input", "--dry-run", "-n"), False),
}
# The exit code of a program that SIGINT ended, as shells report it.
_INTERRUPTED = 130
# The same for SIGPIPE, which Python ignores.
_NOT_READ = 141


def main() -> NoReturn:
    """Run the command line and exit with its code; 130 after Ctrl-C, 141 if the reader of our output has gone."""
    _hold_standard_descriptors()
    sys.excepthook = show_crash
    # Characters that the terminal cannot show are escaped, because a name in a mail must not make the command fail.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in {"strict", "surrogateescape"}:
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            sys.exit(_run())
        finally:
            _flush()
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        _leave_unread()
    except BaseExceptionGroup as group:  # from a command that runs several tasks
        if group.split(BrokenPipeError)[1] is not None:
            raise
        _leave_unread()
    finally:
        # Else Python looks for garbage in all modules before it ends: an eighth of the time of a command.
        gc.freeze()


def _flush() -> None:
    """Write what is buffered now: at its own end Python would complain of a reader that has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:
        pass  # Python tries it again at its end, and says why it cannot


def _leave_unread() -> NoReturn:
    """Exit because the reader of our output has gone, as `head` does; buffered output is discarded."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(_NOT_READ)


def _run() -> int:
    """Run a command; help, and arguments that are not read plainly, need the library of the command line."""
    args = behind_command(sys.argv[1:])
    if args[:1] == ["health"]:
        from trio_worker.telemetry import probe  # noqa: PLC0415  it costs a tenth of the command line

        asked = probe.read_plainly(args[1:])
        if asked is not None:
            return probe.ask_workers(**asked)
    # Imports make about 100,000 objects and little garbage: each collection would cost a twentieth of the start. After
    # them the collector runs as usual.
    gc.set_threshold(200_000, 20, 20)
    if args[:1] == ["run"]:
        from trio_worker.cli.run_arguments import read_run_plainly  # noqa: PLC0415  as below

        arguments = read_run_plainly(args[1:])
        if arguments is not None:
            from trio_worker.cli.run import start  # noqa: PLC0415  as below

            return start(arguments)
    from trio_worker.cli.command_line import app  # noqa: PLC0415  after the descriptors are open

    code: int = app(args)
    return code


def behind_command(args: list[str]) -> list[str]:
    """Return the arguments with the common options that precede the command moved behind it.

    Other options stay where they are, and the command line refuses them; so do all if no command follows.
    """
    at = 0
    while at < len(args) and (name := args[at].partition("=")[0]) in COMMON_OPTIONS:
        at += 2 if COMMON_OPTIONS[name] and name == args[at] else 1
    if at >= len(args) or args[at].startswith("-"):
        return args
    options, rest = args[:at], args[at:]
    end = rest.index("--") if "--" in rest else len(rest)
    return [*rest[:end], *options, *rest[end:]]


def _hold_standard_descriptors() -> None:
    """Open /dev/null if standard input, output or error is closed: else print could write to a socket.

    Python has set the stream of a closed descriptor to None, and its first use would fail.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  they stay open
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    main()
