"""One door: what is printed passes trio_worker/printing.py, and nothing prints beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.support.paths import ROOT

PACKAGE = ROOT / "trio_worker"
DOOR = "printing.py"
# What else holds a stream, and why that is no way around the door.
KEPT = {
    "__main__.py": "opens closed streams again",
    "telemetry/logbook.py": "each line is made visible before it is written; a test holds it",
    "dashboard/frame.py": "draws into memory from cells, whose text is printable",
    "dashboard/screen.py": "writes these frames",
    "cli/run_display.py": "gives the stream to the screen, and replaces it when its reader has gone",
    "cli/top.py": "gives the stream to the screen",
}
WAYS = {"print", "input", "pprint", "pp", "Console", "echo", "print_exc", "print_exception", "print_stack", "getpass"}
STREAMS = {"stdout", "stderr", "__stdout__", "__stderr__"}
HARMLESS = {"isatty", "fileno", "encoding", "errors"}


def ways_out(tree: ast.AST) -> Iterator[str]:
    """Give each call that prints, and each use of a standard stream but for a question about it."""
    asked = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in HARMLESS}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in WAYS:
                yield f"{name}:{node.lineno}"
            case ast.Attribute(value=ast.Name(id="sys"), attr=name) if name in STREAMS and id(node) not in asked:
                yield f"sys.{name}:{node.lineno}"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="write")):
                yield f"os.write:{node.lineno}"
            case ast.ImportFrom(module="sys", names=names) if STREAMS & {each.name for each in names}:
                yield f"from sys:{node.lineno}"


def test_nothing_prints_beside_the_door() -> None:
    """No module but the door calls what prints, or touches a standard stream; the few others are named with reasons."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        ways = list(ways_out(ast.parse(path.read_text("utf-8"))))
        if ways:
            found[str(path.relative_to(PACKAGE))] = ways

    assert found.pop(DOOR)
    assert {name: ways for name, ways in found.items() if name not in KEPT} == {}
    assert sorted(found) == sorted(KEPT), "the list has a module that no longer needs it"


def test_the_check_sees_every_way() -> None:
    """Each way out is found, and a question whether a stream is a terminal is none."""
    source = """
from sys import stderr
print(1), sys.stdout.write(x), os.write(1, x), Console(), say(sys.stdout), sys.stderr.isatty()
"""

    assert sorted(way.partition(":")[0] for way in ways_out(ast.parse(source))) == [
        "Console",
        "from sys",
        "os.write",
        "print",
        "sys.stdout",
        "sys.stdout",
    ]
