"""Asynchronous generators of ours are closed by who reads them, also if reading ends half way, as when Redis fails."""

from __future__ import annotations

import ast
import gc
from contextlib import aclosing
from functools import cache
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from trio_worker.queue.dead_letters import walk_shelf
from trio_worker.queue.waiting import walk_bodies
from trio_worker.redis.client import RedisClient

MODULES = sorted((ROOT / "trio_worker").rglob("*.py"))


@cache
def generators() -> set[str]:
    """The names of all asynchronous generators; those behind asynccontextmanager close themselves."""
    found = set()
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text("utf-8"))):
            if isinstance(node, ast.AsyncFunctionDef) and not node.decorator_list and _yields(node):
                found.add(node.name)
    return found


def _yields(function: ast.AsyncFunctionDef) -> bool:
    inner = [node for node in ast.walk(function) if isinstance(node, ast.AsyncFunctionDef) and node is not function]
    of_inner = {id(each) for node in inner for each in ast.walk(node)}
    return any(isinstance(node, ast.Yield) and id(node) not in of_inner for node in ast.walk(function))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_generator_is_read_inside_of_aclosing(module: Path) -> None:
    """One that is left open ends at some later moment, in some other task, with a ResourceWarning under trio."""
    names = generators()
    assert {"walk_shelf", "walk_bodies", "walk_waiting", "find_strays", "order_workers"} <= names
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.AsyncFor) and isinstance(node.iter, ast.Call):
            called = node.iter.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            assert name not in names, f"{module}:{node.lineno}: read {name}() inside of aclosing()"


@pytest.mark.filterwarnings("error::ResourceWarning")
async def test_a_walk_that_ends_half_way_is_closed(redis: RedisClient) -> None:
    """With a page still to come."""
    await redis.command("HSET", "{jobs}:body", *(word for number in range(900) for word in (f"id{number}", "x" * 80)))
    await redis.command("ZADD", "{jobs}:dead", *(word for number in range(900) for word in (number, f"id{number}")))
    for walk in (walk_bodies(redis, "jobs"), walk_shelf(redis, "jobs", "dead")):
        async with aclosing(walk) as pages:
            async for page in pages:
                assert page
                break
    gc.collect()
