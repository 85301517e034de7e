"""Two versions of trio_worker on one queue, as during a rolling upgrade; then the sums.

First each version finishes what a killed worker of the other one left: dead letters, held jobs, a journal, delayed
jobs, leases. Then workers of both share a load, some are killed, and they obey orders of the other version. At the end
each version retries the dead letters of the other one, until the queue is empty.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count, cycle, product
from pathlib import Path
from typing import Any

import trio
from attrs import asdict, define, field, frozen
from redis import Redis

from proving_ground import QUEUE, CountingStore, Sums, Valkey, add_up, ending, write_config
from trio_worker.capture.catcher import Catcher
from trio_worker.capture.chaos import InjectedFaults, parse_faults
from trio_worker.capture.server import open_catcher
from versions import HERE, Version, build

# 0.1.0, the first version.
FIRST = "f2ee3b7"
# Timeout of waits that should take one or two seconds.
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.02
# Jobs of each kind that one version leaves to the other: as many as a worker of `write_config` has consumers.
LEFT = 10
# Of 100 pushed elements one is not a job, and of 5 jobs one has the type whose uncertain mails are held.
EVERY_BROKEN, EVERY_HELD_TYPE = 100, 5
LOAD_FAULTS = "final=delay-50ms rcpt=550:2% rcpt=451:2% final=accept-drop:2% final=drop:1%"
ORDERS = ("quiet", "drain", "tasks", "log-level")
# Longer than two heartbeats: after these every worker knows that there is a watcher.
WATCH_SECONDS = 8
BURIED = re.compile(r"Buried job\b.*?\bjob_id\W+([\w.:-]+)")


class StuckError(Exception):
    """A wait timed out."""


@frozen
class Side:
    """One of the two versions, with its configuration and its log."""

    version: Version
    number: str
    config: Path
    log: Path

    @property
    def title(self) -> str:
        return f"{self.number} ({self.version.name})"

    def command(self, *words: str) -> list[str]:
        return [str(self.version.python), "-m", "trio_worker", *words, "--config", str(self.config)]

    def buried(self) -> set[str]:
        """Return the ids of the jobs that workers of this version have made dead letters, by their log."""
        return set(BURIED.findall(self.log.read_text("utf-8", "replace"))) if self.log.exists() else set()


@frozen
class Process:
    """A running worker, and its name in the list of workers."""

    side: Side
    process: subprocess.Popen[bytes]

    @property
    def name(self) -> str:
        return f"{socket.gethostname()}:{self.process.pid}"


@define
class Findings:
    """What each version could do with the jobs and workers of the other one, and other problems."""

    wanted: dict[str, Counter[str]] = field(factory=dict)
    done: dict[str, Counter[str]] = field(factory=dict)
    problems: list[str] = field(factory=list)

    def note(self, what: str, by: Side, done: int, wanted: int) -> None:
        """Add to a row of the table: ``by`` has ``done`` this for so many of ``wanted`` things of the other version."""
        self.wanted.setdefault(what, Counter())[by.title] += wanted
        self.done.setdefault(what, Counter())[by.title] += done

    @property
    def holds(self) -> bool:
        """Whether both versions tried everything with the other one, and could do all of it."""
        return bool(self.wanted) and not self.problems and all(map(self._holds_for, self.wanted))

    def _holds_for(self, what: str) -> bool:
        wanted = self.wanted[what]
        return len(wanted) == 2 and min(wanted.values()) > 0 and wanted == self.done[what]


@define
class Ground:
    """The test bed that both versions share, and the counts so far."""

    folder: Path
    valkey: Valkey
    client: Redis
    relay: Catcher
    store: CountingStore
    sides: tuple[Side, Side]
    dice: random.Random
    found: Findings = field(factory=Findings)
    running: list[Process] = field(factory=list)
    processes: list[subprocess.Popen[bytes]] = field(factory=list)
    accepted: set[str] = field(factory=set)
    broken: int = 0  # pushed elements that are not jobs
    kills: Counter[str] = field(factory=Counter)
    _numbers: count[int] = field(factory=count)

    @property
    def pairs(self) -> tuple[tuple[Side, Side], tuple[Side, Side]]:
        """Both directions: the version that acts, and the one whose jobs or workers it acts on."""
        this, other = self.sides
        return (this, other), (other, this)

    def put_faults(self, text: str) -> None:
        parsed = parse_faults(text)
        if not isinstance(parsed, InjectedFaults):
            raise TypeError(text)
        self.relay.faults = parsed

    def push(self, email_types: Sequence[str], broken: int = 0) -> list[str]:
        """Push a job of each type, and ``broken`` elements that are not jobs; return the recipients."""
        numbers = [next(self._numbers) for _ in email_types]
        jobs = [job_of(*each) for each in zip(numbers, email_types, strict=True)]
        self.client.rpush(QUEUE, *jobs, *("{" for _ in range(broken)))
        emails = [email_of(number) for number in numbers]
        self.accepted.update(emails)
        self.broken += broken
        return emails

    def in_state(self, state: str) -> int:
        return int(self.client.zcard(f"{{{QUEUE}}}:{state}"))

    def ids(self, state: str) -> list[str]:
        found = self.client.zrange(f"{{{QUEUE}}}:{state}", 0, -1)
        return [each.decode() for each in found if isinstance(each, bytes)]

    def total(self, name: str) -> int:
        return int(self.client.hget(f"{{{QUEUE}}}:totals", name) or 0)

    def has_all(self, emails: Iterable[str]) -> bool:
        return all(self.store.delivered[each] for each in emails)

    @property
    def is_idle(self) -> bool:
        """Whether no job is waiting, leased or delayed; read in one transaction, because jobs move between these."""
        with self.client.pipeline(transaction=True) as look:
            look.llen(QUEUE)
            look.zcard(f"{{{QUEUE}}}:leased")
            look.zcard(f"{{{QUEUE}}}:delayed")
            return not any(look.execute())

    async def until(self, is_so: Callable[[], bool], what: str) -> None:
        """Poll until ``is_so``, because other processes make no event to wait for."""
        with trio.move_on_after(PATIENCE_SECONDS):
            while not is_so():  # noqa: ASYNC110  as above
                await trio.sleep(LOOK_SECONDS)
            return
        raise StuckError(f"after {PATIENCE_SECONDS:g} s not yet: {what}")

    async def start(self, side: Side) -> Process:
        """Start a worker, and wait until it is on the list of workers."""
        started = self._spawn(side)
        known = f"{{{QUEUE}}}:workers"
        await self.until(lambda: self.client.zscore(known, started.name) is not None, f"a worker of {side.title} runs")
        return started

    def _spawn(self, side: Side) -> Process:
        with (self.folder / f"{side.version.name}.out").open("ab") as out:
            process = subprocess.Popen(
                side.command("run", "--no-dashboard"),
                stdout=out,
                stderr=out,
                env=side.version.environment,
                cwd=self.folder,
                start_new_session=True,
            )
        started = Process(side, process)
        self.processes.append(process)
        self.running.append(started)
        return started

    def kill(self, worker: Process) -> None:
        self.running.remove(worker)
        worker.process.kill()
        worker.process.wait()
        self.kills[worker.side.title] += 1

    async def stop(self, worker: Process) -> None:
        """End a worker with SIGTERM, as a service manager does."""
        worker.process.terminate()
        await self.ended(worker)

    async def ended(self, worker: Process) -> None:
        """Wait for the end of a worker that is draining."""
        self.running.remove(worker)
        code = await trio.to_thread.run_sync(worker.process.wait, PATIENCE_SECONDS)
        if code:
            self.found.problems.append(f"a worker of {worker.side.title} ended with {code}")

    async def ask(self, side: Side, *words: str) -> str | None:
        """Run a command of one version; return its output, or None and note a problem if it fails."""
        shown = f"{side.title}: {' '.join(words)[:80]}"
        with trio.move_on_after(2 * PATIENCE_SECONDS) as patience:
            done = await trio.run_process(
                side.command(*words),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=side.version.environment,
                cwd=self.folder,
            )
        if patience.cancelled_caught:
            raise StuckError(f"{shown} does not end")
        complaints = done.stderr.decode("utf-8", "replace").strip()
        if done.returncode or "cannot read" in complaints:
            self.found.problems.append(f"{shown} ended with {done.returncode}: {complaints[:300]}")
            return None
        return done.stdout.decode("utf-8")

    async def ask_json(self, side: Side, *words: str) -> dict[str, Any]:
        printed = await self.ask(side, *words, "--json")
        document: dict[str, Any] = json.loads(printed) if printed is not None else {}
        return document


def email_of(number: int) -> str:
    return f"user{number}@example.com"


def job_of(number: int, email_type: str) -> str:
    fields = {"email": email_of(number), "username": f"user {number}"}
    if email_type == "Registration":
        fields["token"] = f"token{number}"
    return json.dumps({"task_type": "Email", "data": {"email_type": email_type, "data": fields}})


async def look(ground: Ground, by: Side, of: Side, *words: str) -> dict[str, dict[str, Any]]:
    """Show the workers of one version with a command of the other one; return them by name."""
    wanted = {each.name for each in ground.running if each.side == of}
    document = await ground.ask_json(by, *words)
    found = {each["worker"]: each for each in document.get("workers", []) if each["worker"] in wanted}
    well = [each for each in found.values() if each["version"] == of.number and not each["is_lost"]]
    ground.found.note("heartbeats read", by, len(well), len(wanted))
    return found


async def order(ground: Ground, by: Side, of: Side, what: str) -> None:
    """Give an order to a worker of one version with a command of the other one; check that the worker obeys."""
    worker = ground.dice.choice([each for each in ground.running if each.side == of])
    more = {"drain": ("--timeout", "60s"), "log-level": ("--for", "5s")}.get(what, ())
    level = ("debug",) if what == "log-level" else ()
    is_obeyed = await ground.ask(by, "worker", what, *level, worker.name, *more) is not None
    match what:
        case "drain":
            await ground.ended(worker)
            await ground.start(of)
        case "quiet":
            before = (await look(ground, by, of, "worker", "list")).get(worker.name, {})
            await trio.sleep(3)  # more than a heartbeat
            after = (await look(ground, by, of, "status")).get(worker.name, {})
            has_stopped = after.get("is_quiet") is True and before.get("claimed") == after.get("claimed")
            is_obeyed = is_obeyed and has_stopped
            is_obeyed = await ground.ask(by, "worker", "resume", worker.name) is not None and is_obeyed
        case _:
            pass
    ground.found.note("orders obeyed", by, is_obeyed, 1)


async def compare_shelves(ground: Ground, by: Side, of: Side, shelf: str, ids: Sequence[str]) -> None:
    """List dead or held jobs with both versions: ``by`` must show them as the other version does."""
    shown: dict[Side, dict[str, dict[str, Any]]] = {}
    for side in (by, of):
        document = await ground.ask_json(side, shelf, "list", "--limit", "1000000")
        shown[side] = {each["job_id"]: each for each in document.get("jobs", [])}
    alike = [each for each in ids if is_alike(shown[by].get(each, {}), shown[of].get(each, {}))]
    for job_id in ids[:1]:
        await compare_one(ground, by, of, shelf, job_id)
    groups = await ground.ask_json(by, shelf, "groups")
    if sum(each["count"] for each in groups.get("groups", [])) != ground.in_state(shelf):
        ground.found.problems.append(f"{by.title}: {shelf} groups does not count all")
    ground.found.note(f"{shelf} jobs shown", by, len(alike), len(ids))


async def compare_one(ground: Ground, by: Side, of: Side, noun: str, job_id: str) -> dict[str, Any]:
    """Show one job in full with both versions; return the document of ``by``.

    A job that a claim made dead or held, because its worker was killed, has no attempts to show.
    """
    this, other = [await ground.ask_json(side, noun, "show", job_id) for side in (by, of)]
    ground.found.note("jobs shown in full", by, is_alike(this, other), 1)
    return this


def is_alike(this: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two documents agree in the keys that both have; texts for people may differ between versions."""
    return bool(this and other) and all(
        facts_of(this[key]) == facts_of(other[key]) for key in this.keys() & other.keys() - {"schema"}
    )


def facts_of(value: Any) -> Any:
    """Return a value of a document without its text for people: the one in a cause."""
    return {key: each for key, each in value.items() if key != "text"} if isinstance(value, dict) else value


async def hand_over(ground: Ground, by: Side, of: Side) -> None:
    """Let one version finish the jobs that the other one left."""
    await hand_over_journal(ground, by, of)
    await hand_over_delayed(ground, by, of)
    await hand_over_leases(ground, by, of)
    await take_back(ground, by, of)
    for side in ground.sides:
        await ground.ask(side, "audit", "--deep")
    for worker in list(ground.running):
        await ground.stop(worker)


async def hand_over_journal(ground: Ground, by: Side, of: Side) -> None:
    """Leave dead letters, held jobs, and settlements that Redis did not take."""
    leaver = await ground.start(of)
    ground.put_faults("rcpt=550-5.1.1-No_such_user")
    ground.push(["Registration"] * LEFT)
    await ground.until(lambda: ground.in_state("dead") == LEFT, "refused jobs are dead")
    ground.put_faults("final=accept-drop")
    ground.push(["WeeklyRecap"] * LEFT)
    await ground.until(lambda: ground.in_state("held") == LEFT, "uncertain jobs are held")
    ground.put_faults("final=delay-1.5s")
    uncertain = ground.total("uncertain")
    emails = ground.push(["Registration"] * LEFT)
    await ground.until(partial(ground.has_all, emails), "the relay has the mails")
    ground.valkey.kill()
    await ground.until(lambda: settlements(ground.folder) == LEFT, "the journal has the settlements")
    ground.kill(leaver)
    await trio.to_thread.run_sync(ground.valkey.start)
    ground.put_faults("")

    finisher = await ground.start(by)
    await ground.until(lambda: not (ground.in_state("leased") or settlements(ground.folder)), "Redis has the journal")
    sent_once = sum(ground.store.delivered[each] == 1 for each in emails)
    is_known = ground.total("uncertain") == uncertain
    ground.found.note("settlements of a journal told", by, sent_once if is_known else 0, LEFT)
    await ground.stop(finisher)


def settlements(folder: Path) -> int:
    """Return how many settlements the journals hold; the first line of each is its header."""
    return sum(max(0, path.read_bytes().count(b"\n") - 1) for path in (folder / "journal").glob("*.journal"))


async def hand_over_delayed(ground: Ground, by: Side, of: Side) -> None:
    """Leave delayed jobs, by a worker that got the order to be quiet."""
    leaver = await ground.start(of)
    ground.put_faults("rcpt=451")
    delays = ground.total("delay")
    emails = ground.push(["Registration"] * LEFT)
    await ground.until(lambda: ground.total("delay") >= delays + LEFT, "jobs are delayed")
    is_obeyed = await ground.ask(by, "worker", "quiet", leaver.name) is not None
    ground.found.note("orders obeyed", by, is_obeyed, 1)
    await ground.until(lambda: ground.in_state("delayed") == LEFT, "all of them are delayed")
    ground.kill(leaver)
    ground.put_faults("")
    shown = await compare_one(ground, by, of, "job", ground.ids("delayed")[0])
    if not (shown.get("attempts") and shown.get("timeline")):
        ground.found.problems.append(f"{by.title}: job show does not tell of the attempts at {of.title}")

    finisher = await ground.start(by)
    await ground.until(lambda: ground.is_idle, "delayed jobs are tried again")
    sent_once = sum(ground.store.delivered[each] == 1 for each in emails)
    ground.found.note("delayed jobs sent", by, sent_once, LEFT)
    await ground.stop(finisher)


async def hand_over_leases(ground: Ground, by: Side, of: Side) -> None:
    """Leave jobs in flight; the worker that finishes them keeps running."""
    leaver = await ground.start(of)
    ground.put_faults("final=stall")
    uncertain = ground.total("uncertain")
    emails = ground.push(["Registration"] * LEFT)
    await ground.until(lambda: ground.in_state("leased") == LEFT, "jobs are leased")
    ground.kill(leaver)
    ground.put_faults("")

    await ground.start(by)
    await ground.until(lambda: ground.is_idle, "leases run out and are taken over")
    # Mails that the killed worker had written to its socket may arrive too: therefore the lease counts as uncertain.
    is_counted = ground.total("uncertain") == uncertain + LEFT
    sent = sum(ground.store.delivered[each] > 0 for each in emails)
    ground.found.note("leases taken over", by, sent if is_counted else 0, LEFT)


async def take_back(ground: Ground, by: Side, of: Side) -> None:
    """Pause the queue; let one version show and retry the dead and held jobs of the other one, and undo a retry."""
    dead, held = ground.ids("dead"), ground.ids("held")
    await compare_shelves(ground, by, of, "dead", dead)
    await compare_shelves(ground, by, of, "held", held)
    await ground.ask(by, "queue", "pause", "--reason", "rolling upgrade", "--for", "5m")
    status = await ground.ask_json(of, "status")
    if "rolling upgrade" not in status.get("counts", {}).get("paused", ""):
        ground.found.problems.append(f"{of.title}: status does not say that {by.title} has paused the queue")
    batch = (await ground.ask_json(of, "dead", "retry", *dead, "--yes")).get("batch") or "none"
    undone = (await ground.ask_json(by, "dead", "retry", "--undo", batch)).get("undone", [])
    ground.found.note("retries undone", by, len(set(undone) & set(dead)), len(dead))
    await ground.ask(of, "queue", "resume")
    await retry(ground, by, "dead", dead)
    await retry(ground, by, "held", held)
    await ground.until(lambda: ground.is_idle, "what was put back is sent")


async def retry(ground: Ground, by: Side, shelf: str, ids: Sequence[str]) -> None:
    retried = (await ground.ask_json(by, shelf, "retry", *ids, "--yes")).get("retried", []) if ids else []
    ground.found.note(f"{shelf} jobs put back", by, len(set(retried) & set(ids)), len(ids))


async def share_load(ground: Ground, jobs: int, kills: int, workers: int) -> None:
    """Send a load with workers of both versions; meanwhile kill some, and give orders to others."""
    for side in ground.sides * workers:
        await ground.start(side)
    ground.put_faults(LOAD_FAULTS)
    orders = [(*pair, what) for pair, what in product(ground.pairs, ORDERS)]
    ground.dice.shuffle(orders)
    turns = max(kills, len(orders))
    victims = cycle(ground.dice.sample(ground.sides, 2))
    for turn, (by, of, what) in zip(range(turns), cycle(orders), strict=False):
        share = jobs * (turn + 1) // turns - jobs * turn // turns
        ground.push([type_of(ground.dice) for _ in range(share)], broken=-(-share // EVERY_BROKEN))
        if turn < kills:
            await trio.sleep(ground.dice.uniform(0.05, 1))
            side = next(victims)
            ground.kill(ground.dice.choice([each for each in ground.running if each.side == side]))
            await trio.sleep(ground.dice.uniform(0, 2))
            await ground.start(side)
        await order(ground, by, of, what)
        progress = f"{turn + 1} of {turns}, {ground.kills.total()} kills, {len(ground.store.delivered):,} delivered"
        print(progress, file=sys.stderr, flush=True)
        for worker in ground.running:
            if worker.process.poll() is not None:
                raise StuckError(f"a worker of {worker.side.title} ended by itself with {worker.process.returncode}")


def type_of(dice: random.Random) -> str:
    return "WeeklyRecap" if not dice.randrange(EVERY_HELD_TYPE) else "Registration"


async def watch(ground: Ground) -> None:
    """Watch outcomes and SMTP traces of the workers of each version with the commands of the other one."""
    printed: dict[tuple[Side, str], str] = {}
    names = {of: {each.name for each in ground.running if each.side == of} for of in ground.sides}

    async def hear(side: Side, *words: str) -> None:
        printed[side, words[0]] = await ground.ask(side, *words, "--for", f"{WATCH_SECONDS}s", "--json") or ""

    async def keep_pushing() -> None:
        while True:
            ground.push(["Registration"] * 5 * LEFT)  # more than one worker claims at once
            await trio.sleep(0.5)

    async with trio.open_nursery() as pushing:
        pushing.start_soon(keep_pushing)
        async with trio.open_nursery() as hearing:
            for by, of in ground.pairs:
                hearing.start_soon(hear, by, "tail")
                # By name, because the command would wait for a worker that was just killed.
                hearing.start_soon(hear, by, "smtp", "trace", *names[of])
        pushing.cancel_scope.cancel()
    for by, of in ground.pairs:
        for word, what in (("tail", "outcomes heard"), ("smtp", "relay traces heard")):
            heard = {json.loads(line)["worker"] for line in printed[by, word].splitlines()}
            ground.found.note(what, by, bool(names[of] & heard), 1)


async def finish(ground: Ground) -> None:
    """End all faults, retry dead and held jobs, wait until the queue is empty, and end the workers with an order."""
    ground.put_faults("")
    await ground.until(lambda: ground.is_idle, "the load is finished")
    for by, of in ground.pairs:
        buried = of.buried()
        await compare_shelves(ground, by, of, "dead", [each for each in ground.ids("dead") if each in buried])
        await compare_shelves(ground, by, of, "held", ground.ids("held"))
        await ground.ask(by, "audit", "--deep")
    groups = await ground.ask_json(ground.sides[0], "dead", "list", "--limit", "1000000")
    refused = [each["job_id"] for each in groups.get("jobs", []) if each["cause"]["word"] == "refused"]
    held = ground.ids("held")
    # Each retries the dead letters of the other one. No record says which version held a job, so each retries half.
    for place, (by, of) in enumerate(ground.pairs):
        buried = of.buried()
        await retry(ground, by, "dead", [each for each in refused if each in buried])
        await retry(ground, by, "held", held[place::2])
    unlogged = set(refused) - ground.sides[0].buried() - ground.sides[1].buried()
    if unlogged:  # the worker was killed between the settlement and its log line
        await ground.ask(ground.sides[0], "dead", "retry", *sorted(unlogged), "--yes")
    await ground.until(lambda: ground.is_idle, "what was put back is sent")
    for by, of in ground.pairs:
        await ground.ask(by, "worker", "drain", *(each.name for each in ground.running if each.side == of))
    for worker in list(ground.running):
        await ground.ended(worker)
    for side in ground.sides:
        document = await ground.ask_json(side, "audit", "--deep")
        if document.get("balances") is not True:
            ground.found.problems.append(f"{side.title}: the audit is not clean")


def configure(folder: Path, version: Version, redis_port: int, relay_port: int, depth: int) -> Side:
    """Write the configuration of one version; only the log file differs."""
    command = [str(version.python), "-c", "import trio_worker; print(trio_worker.__version__)"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=version.environment, cwd=folder)
    config, log = folder / f"{version.name}.toml", folder / f"{version.name}.log"
    write_config(config, redis_port, relay_port, depth)
    text = config.read_text("utf-8").replace(f"{folder}/worker.log", str(log))
    held_type = '[mail.types.WeeklyRecap]\non_uncertain = "hold"\nmax_age_seconds = 1000000\n'
    config.write_text(text + held_type, encoding="utf-8")
    return Side(version, printed.stdout.strip(), config, log)


async def run(options: argparse.Namespace, other: Version, folder: Path) -> bool:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        valkey = Valkey(folder / "valkey", taken.getsockname()[1])
    valkey.start()
    store = CountingStore()
    async with open_catcher(store=store, seed=options.seed) as relay:
        this, that = (configure(folder, each, valkey.port, relay.port, options.depth) for each in (HERE, other))
        dice = random.Random(options.seed)
        try:
            with valkey.client() as client:
                ground = Ground(folder, valkey, client, relay, store, (this, that), dice)
                with ending(ground.processes):
                    await try_all(ground, options)
                    sums = add_up(ground.accepted, set(), store.delivered, client)
                    left = sums.left - ground.broken
        finally:
            valkey.kill()
        ground.found.problems += [f"violation of SMTP seen by the relay: {each}" for each in relay.violations[:5]]
    return tell(options, ground, sums, left)


async def try_all(ground: Ground, options: argparse.Namespace) -> None:
    """Run all stages in turn; a wait that times out ends the run."""
    stages: list[tuple[str, Callable[[], Awaitable[None]]]] = [
        *((f"{by.title} finishes what {of.title} left", partial(hand_over, ground, by, of)) for by, of in ground.pairs),
        ("both share a load", partial(share_load, ground, options.jobs, options.kills, options.workers)),
        ("both watch", partial(watch, ground)),
        ("the end", partial(finish, ground)),
    ]
    for side in ground.sides:
        await ground.ask(side, "config", "check")
    for what, stage in stages:
        print(what, file=sys.stderr, flush=True)
        try:
            await stage()
        except StuckError as stuck:
            ground.found.problems.append(f"{what}: {stuck}")
            return


def tell(options: argparse.Namespace, ground: Ground, sums: Sums, left: int) -> bool:
    """Print the table; return whether all promises held."""
    found, titles = ground.found, [each.title for each in ground.sides]
    is_kept = not (sums.lost or sums.unexpected or left) and sums.duplicated <= sums.uncertain
    holds = is_kept and found.holds
    if options.json:
        rows = {
            what: {title: {"done": found.done[what][title], "wanted": number} for title, number in wanted.items()}
            for what, wanted in found.wanted.items()
        }
        figures = {**asdict(sums), "left": left, "no_jobs": ground.broken, "kills": dict(ground.kills)}
        document = {"seed": options.seed, "versions": titles, **figures, "by": rows, "problems": found.problems}
        print(json.dumps({**document, "holds": holds}, indent=2))
        return holds
    print(f"seed         {options.seed}")
    print(f"kills        {ground.kills.total()}: " + ", ".join(f"{ground.kills[each]} of {each}" for each in titles))
    print(f"accepted     {sums.accepted:,} (and {ground.broken:,} that are no jobs)")
    for name in ("delivered", "lost", "unexpected", "duplicated", "uncertain"):
        print(f"{name:<12} {getattr(sums, name):,}")
    print(f"left         {left:,}")
    print()
    print(f"{'of the other version':<30}" + "".join(f"  {'by ' + title:>22}" for title in titles))
    for what, wanted in found.wanted.items():
        cells = (f"{found.done[what][title]:,} of {wanted[title]:,}" for title in titles)
        print(f"{what:<30}" + "".join(f"  {cell:>22}" for cell in cells))
    for problem in found.problems:
        print(f"PROBLEM: {problem}")
    print("holds" if holds else "DOES NOT HOLD")
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/two_versions", description="Two versions on one queue.")
    parser.add_argument("--against", metavar="COMMIT", default=FIRST, help=f"the other version ({FIRST}, 0.1.0)")
    parser.add_argument("--jobs", type=int, default=1000, help="jobs of the shared load (1000)")
    parser.add_argument("--kills", type=int, default=8, help="workers killed under that load (8)")
    parser.add_argument("--workers", type=int, default=2, help="workers of each version (2)")
    parser.add_argument("--depth", type=int, default=1, help="mails in flight on one connection (1)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--keep", type=Path, help="folder for logs; else they are deleted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="two-versions-") as temporary:
        folder = Path(temporary) if options.keep is None else options.keep.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return int(not trio.run(run, options, build(options.against, Path(temporary)), folder))


if __name__ == "__main__":
    # With SIGINT trio ends the workers and the server; but a shell starts background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    code = 130
    try:
        code = main()
    except* KeyboardInterrupt:
        pass
    sys.exit(code)
