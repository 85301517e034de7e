"""A server that says one thing to everybody, in a thread of its own: for commands that run trio themselves."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def saying_server(says: bytes, first: bytes = b"") -> Iterator[int]:
    """Give the port of a server that says ``first`` to each client, and ``says`` after whatever it reads."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                if first:
                    self.request.sendall(first)
                while read := self.request.recv(65536):
                    # A command of Redis is an array, one of SMTP a line.
                    commands = sum(line.startswith(b"*") for line in read.split(b"\r\n")) or read.count(b"\r\n")
                    self.request.sendall(says * max(1, commands))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            serving.join()
