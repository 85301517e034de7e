"""A relay that repeats in each reply whatever it was sent so far, as it is and decoded."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import trio

MECHANISMS, VERBS = {"PLAIN", "LOGIN", "CRAM-MD5"}, {"EHLO", "AUTH", "MAIL", "RCPT", "DATA", "RSET", "QUIT"}


async def _lines(stream: trio.abc.Stream) -> AsyncIterator[str]:
    unread = b""
    while received := await stream.receive_some():
        *whole, unread = (unread + received).split(b"\r\n")
        for line in whole:
            yield line.decode()


async def play_repeating_relay(
    stream: trio.abc.Stream, login: tuple[str, str], mechanism: str, *, accepts: bool
) -> None:
    """Play a relay that repeats in each reply whatever it was sent so far, as it is and decoded."""
    heard: list[str] = []

    def answer(code: int) -> bytes:
        decoded = [base64.b64decode(word).decode().replace("\0", " ") for word in heard]
        return f"{code} got {' '.join(heard)} that is {' '.join(decoded)}\r\n".encode()

    await stream.send_all(b"220 echo\r\n")
    async for line in _lines(stream):
        verb, *words = line.split()
        if verb == "EHLO":
            said = "".join(f"250-{word}\r\n" for word in [login[1].upper().replace(" ", ""), "PIPELINING"])
            await stream.send_all(f"250-echo\r\n{said}250 AUTH {mechanism}\r\n".encode())
            continue
        heard += [word for word in (words if verb == "AUTH" else [verb]) if word not in MECHANISMS | VERBS]
        final = 235 if accepts else 535
        steps = {"PLAIN": [final], "LOGIN": [334, final], "CRAM-MD5": [334, final]}[mechanism]
        if verb not in VERBS:
            code = final
        elif verb == "AUTH":
            code = steps[0]
        else:
            code = 354 if verb == "DATA" else 550
        is_challenge = (mechanism, verb) == ("CRAM-MD5", "AUTH")
        await stream.send_all(b"334 PDFAZXhhbXBsZT4=\r\n" if is_challenge else answer(code))
