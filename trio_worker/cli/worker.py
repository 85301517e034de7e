"""Edge. ``worker``: lists the workers of a queue, and sends orders to them: quiet, resume, drain, tasks, log-level."""

from __future__ import annotations

from cyclopts import App

worker = App(name="worker", help="The workers that share the queue: list, quiet, resume, drain, tasks, log-level.")
worker.command(
    "trio_worker.cli.worker_list:list_workers",
    name="list",
    help="List the workers with their state, load and rates. A worker without a heartbeat for 15 s is LOST.",
)
worker.command(
    "trio_worker.cli.worker_orders:quiet_workers",
    name="quiet",
    help="Order workers to claim no more jobs, but to finish theirs and keep running. `worker resume` ends this.",
)
worker.command(
    "trio_worker.cli.worker_orders:resume_workers", name="resume", help="Order quiet workers to claim jobs again."
)
worker.command(
    "trio_worker.cli.worker_orders:drain_workers",
    name="drain",
    help="Order workers to finish their jobs and exit, as after SIGTERM, and wait until they have exited.",
)
worker.command(
    "trio_worker.cli.worker_orders:show_tasks",
    name="tasks",
    help="Print the state of workers: figures, connections, and the tree of tasks with the line where each task waits.",
)
worker.command(
    "trio_worker.cli.worker_orders:set_log_level",
    name="log-level",
    help="Change the log level of workers for some time. Then it is log.level again.",
)
