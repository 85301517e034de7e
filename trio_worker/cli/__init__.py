"""Edge. The commands: each file here is one noun; they parse arguments, call the modules below, and print.

Commands are named by their import path, so that a call imports only what it runs.
"""

from __future__ import annotations

import re
from typing import Any

from cyclopts import App, CycloptsError, CycloptsPanel, Parameter, UnknownCommandError

from trio_worker import __version__
from trio_worker.settings.spelling import nearest

_HELP = """A mail worker: JSON jobs from a Redis list, sent over a small pool of persistent SMTP connections.

Begin with: trio-worker demo

--config, --queue, --json, --timeout, --dry-run, --yes and --no-input may also stand before a command that has them.
"""


def _wrong_usage(error: CycloptsError) -> Any:
    """Return the library's panel; what it suggests for an unknown command is the one of ours that is nearest."""
    said: Any = error
    if isinstance(error, UnknownCommandError) and error.app is not None and error.unused_tokens:
        meant = nearest(error.unused_tokens[0], [name for name in error.app if not name.startswith("-")])
        said = re.sub(r'Did you mean "[^"]*"', f'Did you mean "{meant}"', str(error)) if meant else error
    return CycloptsPanel(said)


def _shown_default(value: object) -> str | None:
    """Return a default as the help shows it; that a flag is off, or that nothing is filtered, goes without saying."""
    if value is None or value is False or value in ("", ()):
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


app = App(
    name="trio-worker",
    help=_HELP,
    help_format="plaintext",
    version=__version__,
    backend="trio",
    # No flag has a negative and no list an --empty unless a command says so: each is one more word to explain.
    default_parameter=Parameter(negative=(), show_default=_shown_default),
    result_action="return_value",
    error_formatter=_wrong_usage,
)
app.command("trio_worker.cli.run:run", name="run", help="Run the worker, with a live dashboard in a terminal.")
app.command("trio_worker.cli.demo:demo", name="demo", help="See it work: own Valkey, own mail catcher, sample jobs.")
app.command(
    "trio_worker.cli.enqueue:enqueue", name="enqueue", help="Put jobs from a file or standard input on the queue."
)
app.command("trio_worker.cli.send:send", name="send", help="Send one job's mail now, without the queue.")
app.command(
    "trio_worker.cli.status:status", name="status", help="Count the queue and say what is wrong, in one screen."
)
app.command("trio_worker.cli.top:top", name="top", help="Watch the queue and all of its workers, live.")
app.command("trio_worker.cli.stats:stats", name="stats", help="Rates line by line, live or of the past day.")
app.command("trio_worker.cli.tail:tail", name="tail", help="Follow what becomes of jobs, at any worker.")
app.command("trio_worker.cli.why:why", name="why", help="Say what limits throughput now, and what to change.")
app.command(
    "trio_worker.cli.worker:worker", name="worker", help="The workers: list, quiet, resume, drain, tasks, log-level."
)
app.command("trio_worker.cli.audit:audit", name="audit", help="Check that every job is in exactly one state.")
app.command("trio_worker.cli.doctor:doctor", name="doctor", help="Look at all that a worker needs; send nothing.")
app.command("trio_worker.cli.schema:schema", name="schema", help="Print the JSON Schema of a job.")
app.command("trio_worker.cli.job:job", name="job", help="One job, in whatever state it is: show, retry, cancel, find.")
app.command(
    "trio_worker.cli.queue:queue",
    name="queue",
    help="The queue: list, peek, age, pause, resume, drain-wait, export, purge, release.",
)
app.command("trio_worker.cli.dead:dead", name="dead", help="Dead letters: groups, list, show, retry, drop, export.")
app.command("trio_worker.cli.dead:held", name="held", help="Mails that may have arrived: the same as for dead.")
app.command(
    "trio_worker.cli.config:config_app", name="config", help="Configuration: check, show, explain, schema, init."
)
app.command("trio_worker.cli.health:health", name="health", help="Ask a running worker whether it is ready, or lives.")
app.command("trio_worker.cli.metrics:metrics", name="metrics", help="The metrics of a running worker, or all: show.")
app.command(
    "trio_worker.cli.capture:capture", name="capture", help="The local mail catcher: run, ls, show, chaos, clear."
)
app.command("trio_worker.cli.mail:mail", name="mail", help="What the mails of each email type look like: preview.")
app.command(
    "trio_worker.cli.smtp:smtp", name="smtp", help="The relay: check every step of the way to it, trace what is said."
)
app.command(
    "trio_worker.cli.completion:completion", name="completion", help="Print the completion script of bash, zsh or fish."
)
app.command(
    "trio_worker.cli.shell:shell", name="shell", help="A Python prompt with await, the queue, Redis and the relay."
)
