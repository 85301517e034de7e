"""Pure. The environment of templates: Jinja's sandbox, with fewer attributes, and a limit of time for samples.

Whoever may write a folder of templates may write mails in our name, but shall not run code with our rights. And an
endless loop in a template must end `config check`, `doctor` and the start of a worker, not hang them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FrameType
from typing import Any, TypeAlias

from jinja2.exceptions import SecurityError
from jinja2.filters import do_format
from jinja2.runtime import BlockReference, LoopContext, Macro, TemplateReference, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace

# A thousand times what the samples of the built-in types take, on a busy machine too.
SAMPLE_SECONDS = 2.0
# A longer text or list is no part of a mail, and one of a gigabyte would take the memory of the worker.
_MAX_REPEATED = 1_000_000
_MAX_POWER = 1_000
# Filters that pad or fill up to a width or a number.
_FILLING_FILTERS = ("batch", "center", "indent", "slice", "wordwrap")
_FILLING_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "zfill"})
# In a format: %9999999d, %*d, {:9999999}, {:{}}.
_TOO_WIDE = re.compile(r"%[^a-zA-Z%]*(?:\d{7}|\*)|\{[^{}]*\d{7}|\{[^{}]+\{")

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

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.filters["format"] = _formatted_within_bounds
        self.filters.update({name: _filled_within_bounds(self.filters[name]) for name in _FILLING_FILTERS})

    def call(self, context: Any, obj: Any, /, *args: Any, **named: Any) -> Any:
        """Call a function or a method; those that fill up a text have the same bounds as the filters."""
        if getattr(obj, "__name__", "") in _FILLING_METHODS:
            _check_numbers(*args)
        return super().call(context, obj, *args, **named)

    def wrap_str_format(self, value: Any) -> Any:
        """Return Jinja's guarded method for ``str.format``, whose format is checked first; None for anything else."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
        return wrapped

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
        if operator == "%":
            _check_format(left)
            return super().call_binop(context, operator, left, right)
        for repeated, times in ((left, right), (right, left)):
            if (
                isinstance(repeated, str | list | tuple)
                and isinstance(times, int)
                and len(repeated) * times > _MAX_REPEATED
            ):
                raise SecurityError(f"* would make more than {_MAX_REPEATED:,} characters or elements")
        return super().call_binop(context, operator, left, right)


def _check_format(text: object) -> None:
    """Refuse a format with a width of seven digits, or with one that is itself a value."""
    if isinstance(text, str) and _TOO_WIDE.search(text):
        raise SecurityError("a width in a format has at most six digits, and is no value")


def _check_numbers(*numbers: object) -> None:
    if any(isinstance(each, int) and abs(each) > _MAX_REPEATED for each in numbers):
        raise SecurityError(f"a width or a number of elements is at most {_MAX_REPEATED:,}")


def _filled_within_bounds(fill: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(fill)  # with the marks of Jinja, as of a filter that wants the environment
    def filled(first: Any, *args: Any, **named: Any) -> Any:
        _check_numbers(*args, *named.values())
        return fill(first, *args, **named)

    return filled


def _formatted_within_bounds(text: Any, *args: Any, **named: Any) -> Any:
    _check_format(text)
    return do_format(text, *args, **named)


@contextmanager
def within(seconds: float, names: Collection[str], clock: Callable[[], float]) -> Iterator[None]:
    """Raise `SampleTooSlowError` out of a template, one of ``names``, that still runs after this time.

    The interpreter calls us before each line of a template and for no line of anything else: a thread or a signal could
    come too late, when the template has ended.
    """
    ends_at = clock() + seconds

    def each_line(_frame: FrameType, event: str, _argument: Any) -> _Trace:
        # A frame that begins or ends, as it does at each piece of text, is in no traceback: a fault had no place then.
        if event == "line" and clock() > ends_at:
            raise SampleTooSlowError
        return each_line

    def each_call(frame: FrameType, _event: str, _argument: Any) -> _Trace | None:
        return each_line if frame.f_code.co_filename in names else None

    before = sys.gettrace()
    sys.settrace(each_call)
    try:
        yield
    finally:
        sys.settrace(before)
