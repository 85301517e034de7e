"""Contenders: the usual job queues of Python, set up as their manuals say.

Run as ``others.py arq|SAQ|dramatiq|Celery push|work REDIS_PORT SMTP_PORT CONNECTIONS tls|plain COUNT``, in a virtual
environment that has that library and aiosmtplib.

arq and SAQ run as many coroutines as there are connections, and borrow one of the aiosmtplib connections for each mail.
dramatiq and Celery run threads; each thread keeps its own smtplib connection open. No results are stored. The first
three end when no job is left. Celery has no such end, so it is stopped.
"""

from __future__ import annotations

import asyncio
import json
import smtplib
import sys
import threading
import warnings
from typing import Any

from aiosmtplib_contender import TRUSTING, compose, connect

KIND, WHAT, REDIS_PORT, SMTP_PORT, CONNECTIONS, TLS, COUNT = sys.argv[1:]
REDIS_URL = f"redis://127.0.0.1:{REDIS_PORT}"
HANDS = int(CONNECTIONS)
LOCAL = threading.local()


def job_of(number: int) -> str:
    fields = {"email": f"user{number}@example.com", "username": "ann", "token": f"secret{number}"}
    return json.dumps({"task_type": "Email", "data": {"email_type": "Registration", "data": fields}})


async def open_connections() -> asyncio.Queue[Any]:
    found: asyncio.Queue[Any] = asyncio.Queue()
    for _ in range(HANDS):
        smtp = connect(int(SMTP_PORT), tls=TLS == "tls")
        await smtp.connect()
        found.put_nowait(smtp)
    return found


async def send_over(connections: asyncio.Queue[Any], raw: str) -> None:
    smtp = await connections.get()
    try:
        await smtp.send_message(compose(raw))
    finally:
        connections.put_nowait(smtp)


def send_in_thread(raw: str) -> None:
    smtp = getattr(LOCAL, "smtp", None)
    if smtp is None:
        if TLS == "tls":
            smtp = smtplib.SMTP_SSL("127.0.0.1", int(SMTP_PORT), context=TRUSTING)
        else:
            smtp = smtplib.SMTP("127.0.0.1", int(SMTP_PORT))
        LOCAL.smtp = smtp
    smtp.send_message(compose(raw))


def run_arq() -> None:
    from arq import create_pool
    from arq.connections import RedisSettings
    from arq.worker import Worker, func

    settings = RedisSettings(port=int(REDIS_PORT))

    async def send(context: dict[str, Any], raw: str) -> None:
        await send_over(context["connections"], raw)

    async def start(context: dict[str, Any]) -> None:
        context["connections"] = await open_connections()

    async def push() -> None:
        pool = await create_pool(settings)
        await asyncio.gather(*(pool.enqueue_job("send", job_of(number)) for number in range(int(COUNT))))

    if WHAT == "push":
        asyncio.run(push())
        return
    asyncio.set_event_loop(asyncio.new_event_loop())
    worker = Worker(
        [func(send, name="send", keep_result=0)],
        redis_settings=settings,
        on_startup=start,
        max_jobs=HANDS,
        burst=True,
        poll_delay=0.1,
        handle_signals=False,
    )
    worker.run()


def run_saq() -> None:
    from saq import Queue, Worker

    async def send(context: dict[str, Any], *, raw: str) -> None:
        await send_over(context["connections"], raw)

    async def start(context: dict[str, Any]) -> None:
        context["connections"] = await open_connections()

    async def push() -> None:
        queue = Queue.from_url(REDIS_URL)
        for number in range(int(COUNT)):
            await queue.enqueue("send", raw=job_of(number), ttl=-1)
        await queue.disconnect()

    async def work() -> None:
        queue = Queue.from_url(REDIS_URL)
        worker = Worker(
            queue, functions=[("send", send)], startup=start, concurrency=HANDS, burst=True, dequeue_timeout=1
        )
        await worker.start()
        await queue.disconnect()

    asyncio.run(push() if WHAT == "push" else work())


def run_dramatiq() -> None:
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    broker = RedisBroker(url=REDIS_URL)
    dramatiq.set_broker(broker)
    send = dramatiq.actor(send_in_thread, actor_name="send")
    if WHAT == "push":
        for number in range(int(COUNT)):
            send.send(job_of(number))
        return
    worker = dramatiq.Worker(broker, worker_threads=HANDS)
    worker.start()
    broker.join(send.queue_name)
    worker.join()
    worker.stop()


def run_celery() -> None:
    from celery import Celery

    app = Celery(broker=REDIS_URL)
    app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4, worker_hijack_root_logger=False)
    send = app.task(name="send")(send_in_thread)
    if WHAT == "push":
        for number in range(int(COUNT)):
            send.delay(job_of(number))
        return
    app.worker_main(
        [
            "worker",
            "--pool=threads",
            f"--concurrency={HANDS}",
            "--loglevel=error",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"arq": run_arq, "SAQ": run_saq, "dramatiq": run_dramatiq, "Celery": run_celery}[KIND]()
