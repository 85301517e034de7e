"""Edge. The table of all commands, each with its import path, so that a call imports only the command that it runs.

A command parses arguments, calls other packages and prints.
"""

from __future__ import annotations

import re
from typing import Any

from cyclopts import App, CycloptsError, CycloptsPanel, Parameter, UnknownCommandError

from trio_worker import __version__
from trio_worker.printing import visible_text
from trio_worker.settings.spelling import nearest

_HELP = """A mail worker: JSON jobs from a Redis list, sent over a small pool of persistent SMTP connections.

To begin: trio-worker demo

The options --config, --queue, --json, --timeout, --dry-run, --yes and --no-input are also allowed before a command
that has them.
"""


def _wrong_usage(error: CycloptsError) -> Any:
    """Return the error panel of cyclopts; for an unknown command it suggests our command with the most similar name."""
    text: Any = error
    if isinstance(error, UnknownCommandError) and error.app is not None and error.unused_tokens:
        meant = nearest(error.unused_tokens[0], [name for name in error.app if not name.startswith("-")])
        text = re.sub(r'Did you mean "[^"]*"', f'Did you mean "{meant}"', str(error)) if meant else error
    return CycloptsPanel(visible_text(str(text)))


def _shown_default(value: object) -> str | None:
    """Return a default as the help shows it; not shown are flags that are off and filters that are empty."""
    if value is None or value is False or value in ("", ()):
        return None
    return f"{value:g}" if isinstance(value, float) else str(value)


app = App(
    name="trio-worker",
    help=_HELP,
    help_format="plaintext",
    version=__version__,
    backend="trio",
    # No flag has a --no-... form and no list an --empty-... form unless a command declares it: fewer flags to explain.
    default_parameter=Parameter(negative=(), show_default=_shown_default),
    result_action="return_value",
    error_formatter=_wrong_usage,
)
app.command("trio_worker.cli.run_command:run", name="run", help="Run the worker, with a live dashboard in a terminal.")
app.command(
    "trio_worker.cli.demo:demo",
    name="demo",
    help="Show the worker at work, with its own Valkey and mail catcher and sample jobs.",
)
app.command(
    "trio_worker.cli.enqueue:enqueue", name="enqueue", help="Push jobs from a file or standard input to the queue."
)
app.command("trio_worker.cli.send:send", name="send", help="Send the mail of one job now, without the queue.")
app.command(
    "trio_worker.cli.status:status", name="status", help="Show the counts of the queue and its problems, on one screen."
)
app.command("trio_worker.cli.top:top", name="top", help="Show the queue and all its workers, live.")
app.command("trio_worker.cli.stats:stats", name="stats", help="Print rates line by line, live or of the past day.")
app.command("trio_worker.cli.tail:tail", name="tail", help="Print the outcomes of jobs at all workers, live.")
app.command("trio_worker.cli.why:why", name="why", help="Show what limits throughput now, and what to change.")
app.command(
    "trio_worker.cli.worker:worker", name="worker", help="Workers: list, quiet, resume, drain, tasks, log-level."
)
app.command("trio_worker.cli.audit:audit", name="audit", help="Check that every job is in exactly one state.")
app.command("trio_worker.cli.doctor:doctor", name="doctor", help="Check everything that a worker needs; sends nothing.")
app.command("trio_worker.cli.schema:schema", name="schema", help="Print the JSON Schema of a job.")
app.command("trio_worker.cli.job:job", name="job", help="One job in any state: show, retry, cancel, find.")
app.command(
    "trio_worker.cli.queue:queue",
    name="queue",
    help="Queue: list, peek, age, pause, resume, drain-wait, export, purge, release.",
)
app.command(
    "trio_worker.cli.dead:dead", name="dead", help="Dead letters: groups, list, show, retry, edit, drop, export."
)
app.command(
    "trio_worker.cli.dead:held",
    name="held",
    help="Held jobs, whose mail may have arrived: the same commands as for dead.",
)
app.command(
    "trio_worker.cli.dead:delayed",
    name="delayed",
    help="Delayed jobs, which are tried again when due: the same commands as for dead.",
)
app.command(
    "trio_worker.cli.config:config_app", name="config", help="Configuration: check, show, explain, schema, init."
)
app.command("trio_worker.cli.health:health", name="health", help="Check whether a running worker is ready or alive.")
app.command(
    "trio_worker.cli.metrics:metrics",
    name="metrics",
    help="Metrics of a running worker, or a list of all metrics: show.",
)
app.command("trio_worker.cli.capture:capture", name="capture", help="Local mail catcher: run, ls, show, chaos, clear.")
app.command("trio_worker.cli.mail:mail", name="mail", help="Mails of each email type: preview.")
app.command(
    "trio_worker.cli.smtp:smtp",
    name="smtp",
    help="SMTP relay: check a session step by step, explain a reply, trace the commands of workers.",
)
app.command("trio_worker.cli.relay:relay", name="relay", help="The relay, as workers see it: probe, to try it now.")
app.command(
    "trio_worker.cli.completion:completion",
    name="completion",
    help="Print the completion script for bash, zsh or fish.",
)
app.command(
    "trio_worker.cli.shell:shell", name="shell", help="Open a Python prompt with await, the queue, Redis and the relay."
)
