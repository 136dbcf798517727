"""Plain values over a pipe: what candidate and referee say to each other.

Promises: ``decode`` makes exact builtin (or standard library value) types only, whatever bytes it is given, so nothing
that arrives can run code: no ``__eq__``, no ``__hash__``, no pickle. Values are JSON with a tag where JSON has no word.

Carried: None, bool, int of any size, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range,
deque, Fraction, Decimal, views of dicts, and iterators and generators (read to their end, and iterators again on the
other side). Subclasses arrive as the type they extend. Identity is not carried: two names for one list become two
lists. Anything else (functions, instances of the candidate's classes) raises ``NotPlain``.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

MAX_FRAME = 8 * 2**20
"""Bytes of one message. Decoded it may take some twenty times that, which the referee's memory must hold."""
MAX_ITERATOR = 100_000
"""Elements read from an iterator: it may have no end."""
_SMALL = 2**63
_DIGITS = 2_000
"""Characters of a Decimal or Fraction: parsing is not linear."""


class NotPlain(Exception):
    """A value that cannot be carried, or bytes that carry none. The message says what."""


class Hangup(Exception):
    """The other side is gone."""


def dumps(value: Any) -> bytes:
    """Bytes of ``value``. Raises NotPlain."""
    try:
        data = json.dumps(_encode(value), separators=(",", ":")).encode()
    except RecursionError:
        raise NotPlain("a value nested too deeply, or inside itself") from None
    if len(data) > MAX_FRAME:
        raise NotPlain(f"a value of more than {MAX_FRAME} bytes")
    return data


def loads(data: bytes) -> Any:
    """The value, of builtin types only. Raises NotPlain for any bytes that ``dumps`` does not make."""
    try:
        return _decode(json.loads(data))
    except RecursionError:
        raise NotPlain("a value nested too deeply") from None
    except (ValueError, TypeError, KeyError, ArithmeticError, UnicodeError) as error:
        raise NotPlain(f"a malformed value ({type(error).__name__})") from None


def send(fd: int, data: bytes) -> None:
    """One message. Raises Hangup."""
    rest = memoryview(len(data).to_bytes(4, "big") + data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        raise Hangup from None


def receive(fd: int) -> bytes:
    """One message. Raises Hangup; NotPlain where it announces more than MAX_FRAME."""
    size = int.from_bytes(_exactly(fd, 4), "big")
    if size > MAX_FRAME:
        raise NotPlain(f"a value of more than {MAX_FRAME} bytes")
    return _exactly(fd, size)


def _exactly(fd: int, size: int) -> bytes:
    parts = []
    while size:
        try:
            part = os.read(fd, min(size, 2**20))
        except OSError:
            raise Hangup from None
        if not part:
            raise Hangup
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _encode(value: Any) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        value = int.__index__(value)
        return value if -_SMALL <= value < _SMALL else {"int": hex(value)}
    if isinstance(value, float):
        return float.__pos__(value)
    if isinstance(value, str):
        return str.__getitem__(value, slice(None))
    if isinstance(value, list):
        return [_encode(part) for part in list.__iter__(value)]
    if isinstance(value, tuple):
        return {"tuple": [_encode(part) for part in tuple.__iter__(value)]}
    if isinstance(value, dict):
        return {"dict": [[_encode(key), _encode(part)] for key, part in dict.items(value)]}
    return {_tag(value): _body(value)}


def _tag(value: Any) -> str:
    for kind, tag in _TAGS:
        if isinstance(value, kind):
            return tag
    raise NotPlain(f"a value of type {type(value).__name__}")


def _body(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, range):
        return [_encode(value.start), _encode(value.stop), _encode(value.step)]
    if isinstance(value, Fraction | Decimal):
        return str(value)
    parts = list(islice(value, MAX_ITERATOR + 1))
    if len(parts) > MAX_ITERATOR:
        raise NotPlain(f"a {type(value).__name__} of more than {MAX_ITERATOR} elements")
    return [_encode(part) for part in parts]


_TAGS: tuple[tuple[Any, str], ...] = (
    (bytes, "bytes"),
    (bytearray, "bytearray"),
    (complex, "complex"),
    (set, "set"),
    (frozenset, "frozenset"),
    (range, "range"),
    (deque, "deque"),
    (Fraction, "fraction"),
    (Decimal, "decimal"),
    (type({}.keys()), "keys"),
    (type({}.items()), "items"),
    (type({}.values()), "iterator"),
    (Iterator, "iterator"),
)


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise NotPlain("a malformed value")
    [(tag, body)] = value.items()
    if tag in ("int", "fraction", "decimal", "bytes", "bytearray"):
        return _decode_text(tag, body)
    if not isinstance(body, list):
        raise NotPlain("a malformed value")
    if tag == "dict":
        return {_decode(key): _decode(part) for key, part in body}
    parts = [_decode(part) for part in body]
    if tag in _MAKERS:
        return _MAKERS[tag](parts)
    raise NotPlain("a malformed value")


def _decode_text(tag: str, body: Any) -> Any:
    if not isinstance(body, str):
        raise NotPlain("a malformed value")
    if tag == "int":
        return int(body, 16)
    if tag == "bytes":
        return bytes.fromhex(body)
    if tag == "bytearray":
        return bytearray.fromhex(body)
    if len(body) > _DIGITS or (tag == "fraction" and "e" in body.lower()):
        raise NotPlain(f"a {tag} of more than {_DIGITS} characters")
    return Fraction(body) if tag == "fraction" else Decimal(body)


_MAKERS: dict[str, Any] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "deque": deque,
    "iterator": iter,
    "complex": lambda parts: complex(*parts),
    "range": lambda parts: range(*parts),
    "keys": lambda parts: dict.fromkeys(parts).keys(),
    "items": lambda parts: dict(parts).items(),
}
