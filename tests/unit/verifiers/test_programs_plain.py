"""What candidate and referee say to each other: builtin values only, whatever arrives."""

from __future__ import annotations

import collections
import enum
import json
import os
from collections import deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifiers.sandbox import plain
from verifiers.sandbox.plain import MAX_FRAME, MAX_ITERATOR, Hangup, NotPlain, dumps, loads, receive, send

hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.fractions(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)
values = st.recursive(
    hashable | st.complex_numbers(allow_nan=False) | st.decimals(allow_nan=False) | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(hashable, inner, max_size=3)
        | st.sets(hashable, max_size=3)
        | st.lists(inner, max_size=3).map(deque)
    ),
    max_leaves=12,
)


@given(values)
def test_what_is_carried_arrives(value: Any) -> None:
    arrived = loads(dumps(value))
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.0, -(2**63), "\ud800", range(3, 9, 2)])
def test_corners(value: Any) -> None:
    assert repr(loads(dumps(value))) == repr(value)


def test_integers_of_any_size() -> None:
    assert loads(dumps(7**20_000)) == 7**20_000


def test_views_and_iterators() -> None:
    assert loads(dumps({1: 2}.keys())) == {1}
    assert loads(dumps({1: 2}.items())) == {(1, 2)}
    assert list(loads(dumps({1: 2}.values()))) == [2]
    arrived = loads(dumps(one for one in "ab"))
    assert arrived != ["a", "b"]
    assert list(arrived) == ["a", "b"]
    assert list(loads(dumps(map(str, [1, 2])))) == ["1", "2"]


class Sly(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__

    def __index__(self) -> int:
        return 99


class SlyText(str):
    def __str__(self) -> str:
        return "forged"

    def __getitem__(self, _: Any) -> str:
        return "forged"


class SlyList(list[int]):
    def __iter__(self) -> Any:
        return iter([9])


class Colour(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Sly(7), 7),
        (SlyText("seven"), "seven"),
        (SlyList([1, 2]), [1, 2]),
        (Colour.RED, 1),
        (Point(1, 2), (1, 2)),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
    ],
)
def test_subclasses_arrive_as_what_they_extend(value: Any, expected: Any) -> None:
    arrived = loads(dumps(value))
    assert type(arrived) is type(expected)
    assert repr(arrived) == repr(expected)


def loop() -> list[Any]:
    inside: list[Any] = []
    inside.append(inside)
    return inside


@pytest.mark.parametrize(
    "value", [object(), len, int, loop(), iter(range(MAX_ITERATOR + 1)), [lambda: 1], "x" * (MAX_FRAME + 1)]
)
def test_what_cannot_be_carried(value: Any) -> None:
    with pytest.raises(NotPlain):
        dumps(value)


ALLOWED = (
    type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, deque,
    Fraction, Decimal, type({}.keys()), type({}.items()), type(iter([])),
)  # fmt: skip


def types_in(value: Any) -> set[type]:
    found = {type(value)}
    if isinstance(value, dict):
        return found.union(*(types_in(part) for pair in value.items() for part in pair))
    if isinstance(value, list | tuple | set | frozenset | deque):
        return found.union(*(types_in(part) for part in value))
    return found


tags = st.sampled_from([tag for _, tag in plain._TAGS] + ["int", "dict", "tuple", "no such"])
wire = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=2)
        | st.tuples(tags, inner | st.lists(inner, max_size=3)).map(lambda pair: {pair[0]: pair[1]})
    ),
    max_leaves=12,
)


@given(wire.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_any_bytes_are_plain_values_or_refused(data: bytes) -> None:
    try:
        arrived = loads(data)
    except NotPlain:
        return
    assert types_in(arrived) <= set(ALLOWED)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"tuple":[' * 5_000,
        b"1" * 10_000,
        b'{"fraction":"1e999999999"}',
        b'{"decimal":"' + b"1" * 10_000 + b'"}',
        b'{"set":[[1]]}',
        b'{"range":[1,2,0]}',
        b'{"dict":[[1]]}',
    ],
)
def test_hostile_messages(data: bytes) -> None:
    with pytest.raises(NotPlain):
        loads(data)


def test_messages_over_a_pipe() -> None:
    ours, theirs = os.pipe()
    send(theirs, b"one")
    send(theirs, b"")
    assert (receive(ours), receive(ours)) == (b"one", b"")
    os.write(theirs, b"\xff\xff\xff\xff")
    with pytest.raises(NotPlain, match="bytes"):
        receive(ours)
    os.write(theirs, b"\x00\x00\x00\x09cut")
    os.close(theirs)
    with pytest.raises(Hangup):
        receive(ours)
    os.close(ours)
    with pytest.raises(Hangup):
        send(theirs, b"nobody")
