#!/usr/bin/env bash
# asyncio drops a reply that has arrived when the next write fails: the reason of a closing relay is never seen.
#
# Most people expect: what a peer sent before it broke the connection can be read, as it can from a plain socket. So a
# client learns "421 too many errors" before it learns that the connection is gone.
# What happens: a relay that closes with our bytes unread sends its last reply and then a reset. Linux keeps the reply
# for us. If our next write comes before the read, it fails, and asyncio closes the transport at once: the protocol gets
# connection_lost with the error, and data_received is never called with the reply.
# Why it matters to a mail worker: with several mails in flight there is nearly always a next write. Without the 421 all
# of them may or may not have been taken; with it none of them was (RFC 5321, 3.8).
#
# Guess written down before running: data_received gets the 421, then connection_lost is called.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/show.py" <<'PYTHON'
import asyncio
import platform
import socket
import sys

LAST = b"421 4.7.0 too many errors\r\n"


def broken_pair(listener: socket.socket, client: socket.socket) -> None:
    """Have the peer leave a reply, and close with our bytes unread."""
    peer, _ = listener.accept()
    client.send(b"MAIL FROM:<a@example.org>\r\n")
    peer.send(LAST)
    peer.close()


def plain(listener: socket.socket) -> bytes:
    client = socket.create_connection(listener.getsockname())
    broken_pair(listener, client)
    try:
        client.send(b"RSET\r\n")
    except ConnectionError as error:
        print(f"plain socket: the write fails ({type(error).__name__})")
    return client.recv(1000)


class Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.received, self.lost = b"", asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


async def with_asyncio(listener: socket.socket) -> tuple[bytes, Exception | None]:
    client = socket.create_connection(listener.getsockname())
    client.setblocking(False)
    transport, protocol = await asyncio.get_running_loop().create_connection(Client, sock=client)
    broken_pair(listener, client)
    transport.write(b"RSET\r\n")
    error = await protocol.lost
    return protocol.received, error


with socket.create_server(("127.0.0.1", 0)) as listener:
    print(f"Python {platform.python_version()}, {platform.system()} {platform.release()}")
    from_socket = plain(listener)
    print(f"plain socket: then it reads {from_socket!r}")
    received, error = asyncio.run(with_asyncio(listener))
    print(f"asyncio: data_received got {received!r}, connection_lost got {type(error).__name__}")

if from_socket == LAST and received == b"" and isinstance(error, ConnectionError):
    sys.exit(0)
print("this has changed")
sys.exit(1)
PYTHON
python3 "$folder/show.py"
