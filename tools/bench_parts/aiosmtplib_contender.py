"""A contender, as people write it without a mail worker: asyncio tasks with BLPOP and aiosmtplib connections.

Run as ``aiosmtplib_contender.py pool|each REDIS_PORT SMTP_PORT CONNECTIONS tls|plain``. ``pool`` keeps one connection
for each task, ``each`` opens one for each mail. It ends when a BLPOP finds no job.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from email.message import EmailMessage

import aiosmtplib
from redis.asyncio import Redis

_NOTHING_SECONDS = 1.0


def compose(raw: bytes | str) -> EmailMessage:
    payload = json.loads(raw)["data"]["data"]
    message = EmailMessage()
    message["From"] = "no-reply@example.com"
    message["To"] = payload["email"]
    message["Subject"] = "Welcome"
    link = f"http://localhost:8081/confirm?token={payload['token']}"
    message.set_content(f"Hello {payload['username']},\n\nplease confirm your address: {link}\n")
    message.add_alternative(f"<p>Hello {payload['username']},</p><p><a href='{link}'>Confirm</a></p>", subtype="html")
    return message


def trusting_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


# Made once: it costs 20 ms of CPU.
TRUSTING = trusting_context()


def connect(port: int, *, tls: bool) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(
        hostname="127.0.0.1", port=port, use_tls=tls, start_tls=False, tls_context=TRUSTING if tls else None, timeout=60
    )


async def consume(kind: str, redis_port: int, smtp_port: int, *, tls: bool) -> None:
    client = Redis(port=redis_port)
    smtp = connect(smtp_port, tls=tls)
    if kind == "pool":
        await smtp.connect()
    while found := await client.blpop(["jobs"], timeout=_NOTHING_SECONDS):
        message = compose(found[1])
        if kind == "each":
            smtp = connect(smtp_port, tls=tls)
            await smtp.connect()
        await smtp.send_message(message)
        if kind == "each":
            await smtp.quit()
    if kind == "pool":
        await smtp.quit()
    await client.aclose()


async def main() -> None:
    kind, redis_port, smtp_port, connections, tls = sys.argv[1:]
    await asyncio.gather(
        *(consume(kind, int(redis_port), int(smtp_port), tls=tls == "tls") for _ in range(int(connections)))
    )


if __name__ == "__main__":
    asyncio.run(main())
