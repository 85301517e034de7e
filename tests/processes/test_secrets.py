"""Secrets: whole runs against a relay that repeats the login, and none of it in any output."""

from __future__ import annotations

import base64
import re
import signal
import ssl
from functools import partial

import pytest
import trio
import trio.testing
import trustme

from tests.support.processes import Programs, patience, push
from tests.support.repeating_relay import play_repeating_relay
from trio_worker.queue.keys import keys_of
from trio_worker.redis.client import RedisClient

LOGIN = ("mailer", "Correct+horse/battery9")
PASSWORD = LOGIN[1].encode()
FORMS = (
    LOGIN[1],
    base64.b64encode(PASSWORD).decode(),
    base64.b64encode(b"\0mailer\0" + PASSWORD).decode(),
    PASSWORD.hex(),
)
# Each starts twenty programs.
SLOW = pytest.mark.slow
COMMANDS = (
    ("status",),
    ("status", "--json"),
    ("why",),
    ("doctor",),
    ("doctor", "--json"),
    ("smtp", "check"),
    ("smtp", "check", "--json"),
    ("smtp", "trace", "--for", "2s"),
    ("top", "--once"),
    ("top", "--json"),
    ("worker", "list"),
    ("worker", "list", "--json"),
    ("dead", "groups"),
    ("dead", "list", "--json"),
    ("held", "list", "--json"),
    ("delayed", "list", "--json"),
    ("dead", "export"),
    ("tail", "--for", "1s"),
    ("config", "show"),
)


@pytest.mark.parametrize(
    ("mechanism", "accepts"),
    [("PLAIN", False), pytest.param("LOGIN", True, marks=SLOW), pytest.param("CRAM-MD5", False, marks=SLOW)],
)
async def test_nothing_that_is_shown_or_kept_has_the_password(
    programs: Programs, real_redis: RedisClient, nursery: trio.Nursery, mechanism: str, *, accepts: bool
) -> None:
    """Log, commands that read, heartbeats, outcomes, records of jobs; the relay refuses the login or each mail."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(programs.folder / "ca.pem")
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
    port = listeners[0].transport_listener.socket.getsockname()[1]  # type: ignore[attr-defined]  # of TCP
    relay = partial(play_repeating_relay, login=LOGIN, mechanism=mechanism, accepts=accepts)
    nursery.start_soon(trio.serve_listeners, relay, listeners)
    (programs.folder / "password").write_text(LOGIN[1])
    (programs.folder / "password").chmod(0o600)
    smtp = f'[smtp]\nhost = "localhost"\nport = {port}\ntls = "implicit"\nca_file = "{programs.folder}/ca.pem"\n'
    smtp += f'username = "{LOGIN[0]}"\npassword_file = "{programs.folder}/password"\n'
    config = re.sub(r"\[smtp\]\n.*?\n\[", smtp + "[", programs.config.read_text(), flags=re.DOTALL)
    programs.config.write_text(config + '[log]\nlevel = "debug"\n')
    keys = keys_of("jobs")

    with patience():
        worker = await programs.start("run", "--no-dashboard")
        await push(real_redis, 5)
        await worker.until_printed("running")
        while not re.search("Buried job|Relay in trouble|Connection failed", programs.log):
            await trio.testing.wait_all_tasks_blocked(0.05)
        shown = []
        for words in COMMANDS:
            program = await programs.start(*words)
            await program.end()
            shown.append((program.printed + program.complained, " ".join(words)))
        kept = [await real_redis.command("HGETALL", key) for key in (keys.heartbeats, keys.record)]
        kept.append(await real_redis.command("XRANGE", keys.latest, "-", "+"))
        worker.signal(signal.SIGTERM)
        await worker.end()
    nursery.cancel_scope.cancel()
    shown += [(programs.log, "log"), (worker.printed + worker.complained, "worker"), (str(kept), "redis")]

    assert sum("got" in text and "…" in text for text, _ in shown) >= 4, "the relay was not heard"
    for text, where in shown:
        for form in FORMS:
            assert form.lower() not in text.lower(), (where, form)
        assert not re.search(r"mailer [0-9a-f]{32}|that is [^\n]*\b[0-9a-f]{32}\b", text), where
