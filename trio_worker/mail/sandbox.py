"""Pure. The environment of templates: Jinja's sandbox, with fewer attributes, and a limit of time for samples.

Whoever may write a folder of templates may write mails in our name, but shall not run code with our rights. And an
endless loop in a template must end `config check`, `doctor` and the start of a worker, not hang them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, LoopContext, Macro, TemplateReference, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

# A thousand times what the samples of the built-in types take, on a busy machine too.
SAMPLE_SECONDS = 2.0
# A longer text or list is no part of a mail, and one of a gigabyte would take the memory of the worker.
_MAX_REPEATED = 1_000_000
_MAX_POWER = 1_000

# What a template may use of a value of a job beside its own members. Values are those of JSON, so there are no others.
_METHODS_OF_OBJECTS = frozenset({"get", "items", "keys", "values"})
_OWN_OBJECTS = (LoopContext, Macro, TemplateReference, BlockReference, Undefined, Cycler, Joiner, Namespace)

_Trace: TypeAlias = Callable[[FrameType, str, Any], Any]


class SampleTooSlowError(RuntimeError):
    """A template was still rendering its samples when the time was over."""

    def __str__(self) -> str:
        return f"they take more than {SAMPLE_SECONDS:g} s"


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, in which values have no attributes but their members and a few methods."""

    intercepted_binops = frozenset({"*", "**"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may use an attribute that is no member of ``obj``."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if isinstance(obj, dict):
            return attr in _METHODS_OF_OBJECTS
        # Methods of texts give texts; the sandbox guards str.format itself.
        return isinstance(obj, (str, *_OWN_OBJECTS)) or type(obj).__name__ == "TemplateModule"

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiply, or raise to a power, within bounds: one such operation cannot be ended, and may take all memory."""
        if operator == "**" and not all(
            isinstance(each, int | float) and abs(each) <= _MAX_POWER for each in (left, right)
        ):
            raise SecurityError(f"** is for numbers up to {_MAX_POWER:,}")
        for repeated, times in ((left, right), (right, left)):
            if (
                isinstance(repeated, str | list | tuple)
                and isinstance(times, int)
                and len(repeated) * times > _MAX_REPEATED
            ):
                raise SecurityError(f"* would make more than {_MAX_REPEATED:,} characters or elements")
        return super().call_binop(context, operator, left, right)


@contextmanager
def within(seconds: float, names: Collection[str], clock: Callable[[], float]) -> Iterator[None]:
    """Raise `SampleTooSlowError` out of a template, one of ``names``, that still runs after this time.

    The interpreter calls us before each line of a template and for no line of anything else: a thread or a signal could
    come too late, when the template has ended.
    """
    ends_at = clock() + seconds

    def each_line(_frame: FrameType, _event: str, _argument: Any) -> _Trace:
        if clock() > ends_at:
            raise SampleTooSlowError
        return each_line

    def each_call(frame: FrameType, event: str, argument: Any) -> _Trace | None:
        return each_line(frame, event, argument) if frame.f_code.co_filename in names else None

    before = sys.gettrace()
    sys.settrace(each_call)
    try:
        yield
    finally:
        sys.settrace(before)
