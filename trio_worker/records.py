"""Pure. Records: classes of attrs that are compared, hashed and shown by shared functions instead of compiled ones.

attrs writes the source of these methods for each class and compiles it when the class is made. For the classes that a
worker imports this took a tenth of its start; ``__repr__`` alone took half the time of making a class. The shared
functions give the same results.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

import attrs

__all__ = ["define", "frozen"]

if TYPE_CHECKING:
    from attrs import define, frozen  # type checkers know them by these names
else:

    def define(
        record: type | None = None,
        *,
        eq: bool = True,
        unsafe_hash: bool = False,
        repr: bool = True,  # noqa: A002  as attrs names it
        frozen: bool = False,
        **options: Any,
    ) -> Any:
        """Make a record with `attrs.define`; the arguments are those of attrs. ``eq`` of a field is a bool.

        ``unsafe_hash``: hashed by its fields although it is not frozen; it must not change once it is in a set.
        """

        def make(cls: type) -> type:
            written, is_compared = set(vars(cls)), eq and not issubclass(cls, BaseException)
            made = attrs.define(cls, eq=False, repr=False, frozen=frozen, **options)
            if repr and "__repr__" not in written:
                made.__repr__ = _shown
            if is_compared and "__eq__" not in written:
                values = _values_of(made)
                made.__eq__ = _comparing(values)
                made.__hash__ = _hashing(values) if frozen or unsafe_hash else None
            return made

        return make if record is None else make(record)

    def frozen(record: type | None = None, **options: Any) -> Any:
        """Make a record with `attrs.frozen`; see `define`."""
        return define(record, frozen=True, **options)


def _values_of(record: type) -> Callable[[Any], Any]:
    """Return a function that returns the values that records are compared by: of one field itself, of more a tuple."""
    names = [each.name for each in attrs.fields(record) if each.eq]
    return attrgetter(*names) if names else lambda _record: ()


def _comparing(values: Callable[[Any], Any]) -> Callable[[Any, object], bool]:
    def __eq__(self: Any, other: object) -> bool:  # noqa: N807
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hashing(values: Callable[[Any], Any]) -> Callable[[Any], int]:
    def __hash__(self: Any) -> int:  # noqa: N807
        return hash((self.__class__, values(self)))

    return __hash__


@recursive_repr()
def _shown(self: Any) -> str:
    """Return ``Name(field=value, ...)`` without the fields that are not to be shown."""
    cls = self.__class__
    shown = [
        f"{each.name}={(repr if each.repr is True else each.repr)(getattr(self, each.name, attrs.NOTHING))}"
        for each in attrs.fields(cls)
        if each.repr
    ]
    return f"{cls.__qualname__.rpartition('>.')[2]}({', '.join(shown)})"
