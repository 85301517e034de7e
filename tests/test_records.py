"""Records give the same as classes of attrs when they are compared, hashed and shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_worker import records

Make = Callable[..., Any]
VALUES = st.one_of(st.integers(0, 3), st.text(max_size=2), st.tuples(st.integers(0, 1)))


def _length(text: str) -> str:
    return f"{len(text)} long"


def point(make: Make, **options: Any) -> Any:
    """A class with fields of every sort."""

    @make(**options)
    class Point:
        x: object
        _private: object = None
        unseen: object = attrs.field(default=0, repr=False)
        length: object = attrs.field(default=0, repr=_length)
        uncompared: object = attrs.field(default=0, eq=False)
        made: object = attrs.field(init=False, default=7)
        unset: object = attrs.field(init=False, eq=False)

    return Point


OPTIONS: list[dict[str, Any]] = [{}, {"eq": False}, {"repr": False}, {"slots": False}]
MAKERS = [
    *((records.frozen, attrs.frozen, options) for options in OPTIONS),
    *((records.define, attrs.define, options) for options in [*OPTIONS, {"unsafe_hash": True}]),
]


@pytest.mark.parametrize(("ours", "theirs", "options"), MAKERS)
@given(x=VALUES, other=VALUES, texts=st.tuples(st.text(max_size=2), st.text(max_size=2)))
def test_records_are_equal_as_classes_of_attrs_are(
    ours: Make, theirs: Make, options: dict[str, Any], x: object, other: object, texts: tuple[str, str]
) -> None:
    """Also where a field is not compared; a record is never equal to one of another class."""
    found = []
    for make in (ours, theirs):
        one, two = point(make, **options), point(make, **options)
        left, same = one(x, length=texts[0]), one(x, length=texts[0], uncompared=1)
        pairs = [same, one(other, length=texts[0]), one(x, length=texts[1]), one(x, other, length=texts[0])]
        found.append([left == left, *(left == each for each in pairs), left == two(x, length=texts[0]), left == x])  # noqa: PLR0124

    assert found[0] == found[1]


@pytest.mark.parametrize(("ours", "theirs", "options"), MAKERS)
@given(x=VALUES, other=VALUES, text=st.text(max_size=2))
def test_records_are_shown_as_classes_of_attrs_are(
    ours: Make, theirs: Make, options: dict[str, Any], x: object, other: object, text: str
) -> None:
    """With the fields' own functions, and without the fields that are not shown."""
    shown = []
    for make in (ours, theirs):
        record = point(make, **options)(x, other, length=text)
        shown.append(repr(record).partition(" object at ")[0])

    assert shown[0] == shown[1]
    if options.get("repr", True):
        rest = f"length={len(text)} long, uncompared=0, made=7, unset=NOTHING"
        assert shown[0] == f"Point(x={x!r}, _private={other!r}, {rest})"


@pytest.mark.parametrize("options", [{"frozen": True}, {"unsafe_hash": True}])
@given(x=VALUES)
def test_equal_records_have_one_hash(options: dict[str, Any], x: object) -> None:
    """The field that is not compared has no part in it; records of two classes in one set are two."""
    one, two = point(records.define, **options), point(records.define, **options)

    assert len({one(x), one(x, uncompared=1)}) == 1
    assert len({one(x), two(x)}) == 2


def test_a_record_that_can_change_has_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(point(records.define)(1))


def test_a_record_that_is_not_compared_is_hashed_by_identity() -> None:
    made = point(records.define, eq=False)
    one = made(1)

    assert len({one, one, made(1)}) == 2


def test_a_frozen_record_is_not_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        point(records.frozen)(1).x = 2


def test_records_without_fields_are_equal() -> None:
    @records.frozen
    class Nothing:
        pass

    assert Nothing() == Nothing()
    assert len({Nothing(), Nothing()}) == 1
    assert repr(Nothing()) == "Nothing()"


def test_methods_of_a_class_itself_stay() -> None:
    @records.frozen
    class Own:
        x: int

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 3

    assert (repr(Own(1)), Own(1) == Own(2), hash(Own(1))) == ("own", True, 3)


def test_an_exception_is_compared_by_identity() -> None:
    @records.define
    class Failed(Exception):  # noqa: N818
        reason: str

    one = Failed("x")

    assert one != Failed("x")
    assert len({one, one}) == 1


def test_a_record_that_holds_itself_is_shown() -> None:
    @records.define
    class Ring:
        inside: list[Any]

    ring = Ring([])
    ring.inside.append(ring)

    assert repr(ring) == "Ring(inside=[...])"


def test_a_subclass_is_compared_by_all_fields() -> None:
    @records.frozen
    class Parent:
        x: int

    @records.frozen
    class Child(Parent):
        y: int

    assert Child(1, 2) == Child(1, 2)
    assert Child(1, 2) != Child(2, 2)
    assert Parent(1) != Child(1, 2)
