"""Trio. Our name in EHLO: `smtp.ehlo_name`, else the full name of this host, else our address (RFC 5321, 4.1.1.1).

Relays may refuse a bare name or localhost, as Postfix does with reject_non_fqdn_helo_hostname; an address literal
(RFC 5321, 4.1.3) says no less, and is legal for a client without a name.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache

import trio

from trio_worker.smtp.options import is_full_name

# A name server that does not answer must not hold up a session for longer; the address is used then.
LOOKUP_SECONDS = 2.0


def address_literal(address: str) -> str:
    """Return an IP address as EHLO has it: ``[192.0.2.1]``, ``[IPv6:2001:db8::1]``."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return f"[IPv6:{parsed}]" if parsed.version == 6 else f"[{parsed}]"


async def ehlo_name(configured: str, connected: socket.socket) -> str:
    """Return our name for a session over a connected socket; ``configured`` is smtp.ehlo_name, or empty."""
    if configured:
        return configured
    with trio.move_on_after(LOOKUP_SECONDS):
        name = await _host_name()
        if name:
            return name
    return address_literal(connected.getsockname()[0])


async def _host_name() -> str:
    name = socket.gethostname()
    if is_full_name(name):
        return name
    return await trio.to_thread.run_sync(_canonical_name, name, abandon_on_cancel=True)


@lru_cache(8)
def _canonical_name(name: str) -> str:
    """Return the full name that the resolver knows for a bare one; empty if it knows none."""
    try:
        found = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)
    except (OSError, UnicodeError):
        return ""
    canonical = found[0][3] if found else ""
    return canonical if is_full_name(canonical) else ""
