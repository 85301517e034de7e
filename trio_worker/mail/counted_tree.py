"""Pure. Puts the counting of steps into a template's syntax tree, where the work depends on what a mail holds.

What is written outside of loops, macros and includes is done once, and not counted. What one round of a loop or one
call of a macro costs is known beforehand: the nodes in it. So a loop that is too long is refused before its first
round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Filters that no template can name.
VALUE, LOOP, BODY = "counted value", "counted loop", "counted body"

_Body: TypeAlias = nodes.For | nodes.Macro | nodes.CallBlock
_CHARACTERS_PER_STEP = 64  # constant text is also written


def _steps_of(body: Iterable[nodes.Node]) -> int:
    """Return what one pass through nodes costs; what a loop or a macro in it costs is counted when it begins."""
    steps = 0
    rest = list(body)
    while rest:
        node = rest.pop()
        steps += 1
        if isinstance(node, nodes.TemplateData):
            steps += len(node.data) // _CHARACTERS_PER_STEP
            continue
        is_counted_alone = isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock)
        # As iter_child_nodes of Jinja, which takes several times as long.
        for field in node.fields:
            value = getattr(node, field, None)
            if isinstance(value, nodes.Node):
                rest.append(value)
            elif isinstance(value, list) and not (is_counted_alone and field == "body"):
                rest.extend(each for each in value if isinstance(each, nodes.Node))
    return steps


class Counting(NodeTransformer):
    """Changes trees, in their place, with ``visit``; ``trees`` are all that one may include, extend or import."""

    def __init__(self, trees: Mapping[str, nodes.Template]) -> None:
        self._trees = trees
        self._names_in_loops: frozenset[str] | None = None
        self._sizes: dict[str, int] = {}
        self._depth = 0  # of loops and macros around a node
        self._is_buffered = 0

    def steps_of_largest_block(self) -> int:
        """Return what a block that is called by its name may cost, besides the loops in it."""
        return max(
            (_steps_of(block.body) for tree in self._trees.values() for block in tree.find_all(nodes.Block)), default=0
        )

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  Jinja's names
        steps = _steps_of((*node.body, *([node.test] if node.test else ()))) + 1
        self._visit_repeated(node)
        node.iter = _filtered(cast("nodes.Expr", node.iter), LOOP, nodes.Const(steps))
        if node.recursive:
            node.body.insert(0, _counting(steps, node.lineno))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._visit_buffered(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self._visit_buffered(node)

    def visit_FilterBlock(self, node: nodes.FilterBlock) -> nodes.Node:  # noqa: N802
        self._is_buffered += 1
        self.generic_visit(node)
        self._is_buffered -= 1
        return node

    def visit_AssignBlock(self, node: nodes.AssignBlock) -> nodes.Node:  # noqa: N802
        self._is_buffered += 1
        self.generic_visit(node)
        self._is_buffered -= 1
        node.filter = _filtered(node.filter, VALUE)
        node.filter.lineno = node.lineno
        return node

    def visit_Block(self, node: nodes.Block) -> nodes.Node:  # noqa: N802
        if node.name in self._blocks_in_loops():
            steps = _steps_of(node.body)
            self.generic_visit(node)
            node.body.insert(0, _counting(steps, node.lineno))
            return node
        return self.generic_visit(node)

    def visit_Include(self, node: nodes.Include | nodes.Import | nodes.FromImport) -> list[nodes.Node]:  # noqa: N802
        return [_counting(self._steps_of_template(node.template), node.lineno), node]

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if self._depth and self._is_buffered:
            # What is written to a buffer is joined at its end, and nobody sees before how long it has become.
            node.nodes = [
                each if isinstance(each, nodes.TemplateData) else _filtered(each, VALUE) for each in node.nodes
            ]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if self._depth:
            node.expr = _counted_operand(node.expr)
            for operand in node.ops:
                operand.expr = _counted_operand(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, VALUE) if isinstance(node.arg, nodes.Slice) else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        return self._visit_making(node)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._visit_making(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return self._visit_making(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._visit_making(node) if node.ctx == "load" else node

    visit_Import = visit_Include  # noqa: N815
    visit_FromImport = visit_Include  # noqa: N815

    def _visit_making(self, node: nodes.Concat | nodes.List | nodes.Dict | nodes.Tuple) -> nodes.Node:
        """Count what is made of other values: of a text that is twice in itself, forty times, is made a terabyte."""
        self.generic_visit(node)
        return node if not any(node.find_all((nodes.Name, nodes.Call))) else _filtered(node, VALUE)

    def _visit_repeated(self, node: _Body) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    def _visit_buffered(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
        steps = _steps_of(node.body)
        self._is_buffered += 1
        self._visit_repeated(node)
        self._is_buffered -= 1
        node.body.insert(0, _counting(steps, node.lineno))
        return node

    def _blocks_in_loops(self) -> frozenset[str]:
        """Return the names of blocks that stand in a loop or a macro of some template; all others may replace them."""
        if self._names_in_loops is None:
            self._names_in_loops = frozenset(
                block.name
                for tree in self._trees.values()
                for body in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))
                for block in body.find_all(nodes.Block)
            )
        return self._names_in_loops

    def _steps_of_template(self, name: nodes.Expr) -> int:
        if not self._sizes:
            self._sizes = {name: _steps_of(tree.body) for name, tree in self._trees.items()}
        largest = max(self._sizes.values(), default=0)
        return 1 + (self._sizes.get(str(name.value), largest) if isinstance(name, nodes.Const) else largest)


def _counted_operand(node: nodes.Expr) -> nodes.Expr:
    is_short = isinstance(node, nodes.Const) or (
        isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name) and node.node.name == "loop"
    )
    return node if is_short else _filtered(node, VALUE)


def _filtered(node: nodes.Expr | None, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno if node is not None else 1)


def _counting(steps: int, line: int) -> nodes.ExprStmt:
    return nodes.ExprStmt(_filtered(nodes.Const(steps, lineno=line), BODY), lineno=line)
