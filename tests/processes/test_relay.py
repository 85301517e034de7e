"""A relay that is down: what the screens say of it, and that it is tried at once when an operator has mended it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.processes.test_fleet import running
from tests.support.processes import Programs, patience, push, told
from trio_worker.capture.server import open_catcher
from trio_worker.redis.client import RedisClient


@pytest.fixture
def dead_port(programs: Programs) -> int:
    """The port of a relay that nothing listens at, in the configuration of the programs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    lines = programs.config.read_text().splitlines()
    Path(programs.config).write_text("\n".join(f"port = {port}" if line.startswith("port") else line for line in lines))
    return port


async def test_a_relay_that_is_down_is_named_with_its_error_and_its_next_probe_and_is_tried_on_request(
    programs: Programs, real_redis: RedisClient, dead_port: int
) -> None:
    """Nobody waits for a back-off after the relay was mended; a probe in vain says why, and when the next one is."""
    name = f"127.0.0.1:{dead_port}"
    with patience():
        worker, worker_name = await running(programs)
        await push(real_redis, 1)
        status = ""
        while "next probe" not in status:
            status = await told(programs, "status")
        assert f"relay: {name} cannot be reached; 1 of 1 worker, next probe in " in status
        assert "Connection refused" in status
        assert "DOWN" in status
        assert f"The relay {name} cannot be reached." in await told(programs, "why")

        in_vain = await told(programs, "relay", "probe", code=69)
        assert f"{worker_name}: {name} cannot be reached (" in in_vain
        assert "; next probe in " in in_vain
        (beat,) = json.loads(await told(programs, "worker", "list", "--json"))["workers"]
        assert beat["relay"] == name
        assert beat["relay_down"]["failures"] >= 2

        async with open_catcher(port=dead_port) as relay:
            assert f"{worker_name}: {name} works" in await told(programs, "relay", "probe", worker_name)
            await relay.wait_for_mails(1)
            assert "the relay works" in await told(programs, "relay", "probe")
            assert "relay:" not in await told(programs, "status")
            await told(programs, "worker", "drain", worker_name)
            assert await worker.end() == 0


async def test_a_relay_is_tried_on_request_when_no_mail_waits(
    programs: Programs, real_redis: RedisClient, dead_port: int
) -> None:
    """With a connection: whether it would take a mail is the next one's to find out."""
    with patience():
        worker, worker_name = await running(programs)
        while "next probe" not in await told(programs, "status"):
            pass
        await told(programs, "relay", "probe", code=69)

        async with open_catcher(port=dead_port):
            said = await told(programs, "relay", "probe")
            assert "takes a connection; no mail waits, so the next one is the probe" in said
            await told(programs, "worker", "drain", worker_name)
            assert await worker.end() == 0
