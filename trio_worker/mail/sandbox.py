"""Pure. The environment of templates: Jinja's sandbox, with fewer attributes, and a count of all work.

Whoever may write a folder of templates may write mails in our name, but shall not run code with our rights. And neither
he nor a producer, whose values a template is given, shall hang the worker, `config check` or `doctor` with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

from jinja2 import pass_context
from jinja2.runtime import BlockReference, LoopContext, Macro, TemplateReference, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

from trio_worker.mail.counted_filters import (
    COMPARING_TESTS,
    MAX_BITS,
    check_call,
    checked,
    count_method,
    counted_filter,
    few_words,
    size_of_format,
)
from trio_worker.mail.counted_tree import BODY, LOOP, VALUE
from trio_worker.mail.work import (
    TooMuchError,
    check_characters,
    counted_loop,
    counted_sum,
    counted_value,
    join_pieces,
    size_of,
    spend,
)

_MAX_POWER = 1_000
_CALL_STEPS = 24

# What a template may use of a value of a job beside its own members. Values are those of JSON, so there are no others.
_METHODS_OF_OBJECTS = frozenset({"get", "items", "keys", "values"})
_OWN_OBJECTS = (LoopContext, Macro, TemplateReference, BlockReference, Undefined, Cycler, Joiner, Namespace)

_Call: TypeAlias = Callable[..., Any]


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, in which values have no attributes but their members and a few methods.

    All that a template does is counted ([work.py](work.py)): what depends on a mail is bounded for each mail.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(join_pieces)  # of what a block yields that is called by its name

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.filters = {name: counted_filter(name, cast("_Call", call)) for name, call in self.filters.items()}
        self.filters.update({VALUE: counted_value, LOOP: counted_loop, BODY: _count_body})
        self.tests.update({name: counted_filter(name, cast("_Call", self.tests[name])) for name in COMPARING_TESTS})
        self.block_steps = 0
        """What a block that is called by its name may cost; set by who loads the templates."""
        self.globals.update(namespace=_Namespace, lipsum=few_words(cast("_Call", self.globals["lipsum"])))

    def call(self, context: Any, obj: Any, /, *args: Any, **named: Any) -> Any:
        """Call a macro, a block, a function or a method; what it makes has the same bounds as what a filter makes."""
        if isinstance(obj, BlockReference):
            spend(_CALL_STEPS + self.block_steps)
            return super().call(context, obj, *args, **named)
        text = getattr(obj, "__self__", None)
        if isinstance(text, str):
            count_method(text)
            name = obj.__name__
            check_call(name if name != "join" else "joined", text, (*args, *named.values()))
        else:
            spend(_CALL_STEPS)
        return checked(super().call(context, obj, *args, **named))

    def wrap_str_format(self, value: Any) -> Any:
        """Return Jinja's guarded method for ``str.format``, within the same bounds; None for anything else."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def formatted(*args: Any, **named: Any) -> Any:
            count_method(value.__self__)
            check_call("format", value.__self__, (*args, *named.values()))
            return wrapped(*args, **named)

        return formatted

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may use an attribute that is no member of ``obj``."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, dict):
            return attr in _METHODS_OF_OBJECTS
        if isinstance(obj, tuple):
            return attr in getattr(obj, "_fields", ())  # of what groupby yields
        # Methods of texts give texts; the sandbox guards str.format itself.
        return isinstance(obj, (str, *_OWN_OBJECTS)) or type(obj).__name__ == "TemplateModule"

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Add, multiply, raise to a power or format within bounds: one operation cannot be ended, and may take all."""
        if operator == "**" and not all(
            isinstance(each, int | float) and abs(each) <= _MAX_POWER for each in (left, right)
        ):
            raise TooMuchError(f"** is for numbers up to {_MAX_POWER:,}")
        if operator == "%" and isinstance(left, str):
            check_characters(size_of_format(left, right if isinstance(right, tuple) else (right,)))
        if operator == "*":
            _check_product(left, right)
        made = super().call_binop(context, operator, left, right)
        return counted_sum(made, left, right) if operator == "+" else counted_value(made)


class _Namespace(Namespace):
    """A namespace whose text does not hold the texts of its members, which may be further ones."""

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_product(left: object, right: object) -> None:
    for repeated, times in ((left, right), (right, left)):
        if isinstance(times, int):
            if isinstance(repeated, int) and repeated.bit_length() + times.bit_length() > MAX_BITS:
                raise TooMuchError(f"* would make a number of more than {MAX_BITS:,} bits")
            if isinstance(repeated, str | list | tuple):
                check_characters(size_of(repeated) * times)


@pass_context  # or Jinja would call it once, when it compiles the template
def _count_body(_context: Any, steps: int) -> None:
    spend(steps)
