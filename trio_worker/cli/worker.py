"""Edge. ``worker``: lists the workers of a queue, and sends orders to them: quiet, resume, drain, tasks, log-level."""

from __future__ import annotations

from cyclopts import App

worker = App(name="worker", help="The workers that share the queue: list, quiet, resume, drain, tasks, log-level.")
worker.command("trio_worker.cli.worker_list:list_workers", name="list")
worker.command("trio_worker.cli.worker_orders:quiet_workers", name="quiet")
worker.command("trio_worker.cli.worker_orders:resume_workers", name="resume")
worker.command("trio_worker.cli.worker_orders:drain_workers", name="drain")
worker.command("trio_worker.cli.worker_orders:show_tasks", name="tasks")
worker.command("trio_worker.cli.worker_orders:set_log_level", name="log-level")
