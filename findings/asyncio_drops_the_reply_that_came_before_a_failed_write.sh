#!/usr/bin/env bash
# asyncio drops a reply that has arrived when the next write fails: the reason of a closing relay is never seen.
#
# Most people expect: what a peer sent before it broke the connection can be read, as it can from a plain socket. So a
# client learns "421 too many errors" before it learns that the connection is gone.
# What happens: a relay that closes with our bytes unread sends its last reply and then a reset. Linux keeps the reply
# for us. If our next write comes before the read, it fails, and asyncio closes the transport at once: the protocol gets
# connection_lost with the error, and data_received is never called with the reply. aiosmtplib then knows of a lost
# connection, and of no 421.
# Why it matters to a mail worker: with several mails in flight there is nearly always a next write. Without the 421 all
# of them may or may not have been taken; with it none of them was (RFC 5321, 3.8).
#
# Guess written down before running: data_received gets the 421, then connection_lost is called.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "aiosmtplib==5.1.3"
cat > "$folder/show.py" <<'PYTHON'
import asyncio
import platform
import socket
import sys
import threading
import time
from importlib.metadata import version

import aiosmtplib

LAST = b"421 4.7.0 too many errors\r\n"


def relay(listener: socket.socket, is_closed: threading.Event) -> None:
    """Greet, answer EHLO, then leave MAIL unread, say why, and close."""
    peer, _ = listener.accept()
    peer.send(b"220 relay.example\r\n")
    peer.recv(1000)
    peer.send(b"250 relay.example\r\n")
    while not peer.recv(1000, socket.MSG_PEEK):
        pass
    peer.send(LAST)
    peer.close()
    is_closed.set()


def plain(listener: socket.socket) -> bytes:
    """The same dialogue with a plain socket: the reply can be read after the write failed."""
    is_closed = threading.Event()
    threading.Thread(target=relay, args=(listener, is_closed), daemon=True).start()
    client = socket.create_connection(listener.getsockname())
    client.recv(1000)
    client.send(b"EHLO client.example\r\n")
    client.recv(1000)
    client.send(b"MAIL FROM:<a@example.org>\r\n")
    is_closed.wait()
    time.sleep(0.1)
    try:
        client.send(b"RSET\r\n")
    except ConnectionError as error:
        print(f"plain socket: the write fails ({type(error).__name__})")
    return client.recv(1000)


async def with_asyncio(listener: socket.socket) -> str:
    is_closed = threading.Event()
    threading.Thread(target=relay, args=(listener, is_closed), daemon=True).start()
    host, port = listener.getsockname()
    smtp = aiosmtplib.SMTP(hostname=host, port=port, start_tls=False, timeout=10, local_hostname="client.example")
    await smtp.connect()
    await smtp.ehlo()
    assert smtp.transport is not None
    smtp.transport.write(b"MAIL FROM:<a@example.org>\r\n")
    is_closed.wait()  # the loop does something else meanwhile
    time.sleep(0.1)
    try:
        return str(await smtp.rset())
    except aiosmtplib.SMTPException as error:
        return f"{type(error).__name__}: {error}"


with socket.create_server(("127.0.0.1", 0)) as listener:
    system = f"{platform.system()} {platform.release()}"
    print(f"aiosmtplib {version('aiosmtplib')}, Python {platform.python_version()}, {system}")
    from_socket = plain(listener)
    print(f"plain socket: then it reads {from_socket!r}")
    said = asyncio.run(with_asyncio(listener))
    print(f"aiosmtplib over asyncio: {said}")

if from_socket == LAST and "421" not in said and "too many" not in said:
    sys.exit(0)
print("this has changed")
sys.exit(1)
PYTHON
"$folder/venv/bin/python" "$folder/show.py"
