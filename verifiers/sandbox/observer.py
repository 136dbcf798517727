"""The observer's process: it holds inputs and tells what a program does with each. The program never runs here.

The referee's place and its proxies, but no expectation: a candidate's outputs are its own words, so what comes of this
is a description and no verdict. One line a message: first that the program has loaded, or why not; then a word an
input, written as soon as it is known, so that an input which hangs does not take along what was seen before it.

Words: sixteen hexadecimal digits, a hash of the value; ``+`` an assertion that holds; ``!`` one that does not, or with
the name of a builtin exception (of the nearest, where the program raised one of its own), with ``foul`` (SystemExit, or
a value that cannot be carried), ``input`` (the input itself cannot be carried) or ``ended`` (the process went away).
Values that ``==`` calls equal have one hash, floats to ten digits.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
import math
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

from .candidate import MAX_TEXT, SEED, read_all
from .plain import NotPlain
from .referee import Candidate, Foul, TestNotPlain, bind

DIGITS = 10
"""Of a float: two ways to compute one number must not be two behaviours."""
_HASH_BYTES = 8


def observe(job: int, report: int, calls: int, replies: int) -> None:
    """Run the inputs ``job`` holds and write what was seen."""
    inputs = json.loads(read_all(job))
    os.close(job)
    random.seed(SEED)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 2_000))
    candidate = Candidate(calls, replies)
    try:
        runs = _runs(inputs, candidate)
    except BaseException as error:
        _tell(report, {"error": f"the inputs cannot be run: {type(error).__name__}: {error}"[:MAX_TEXT]})
        return
    try:
        candidate.begin()
    except Foul as foul:
        _tell(report, {"load": str(foul)[:MAX_TEXT]})
        return
    _tell(report, {"ready": True})
    for run in runs:
        _tell(report, _word(candidate, run))
        if candidate.gone:
            return


def digest(value: Any) -> str:
    """A hash of a value as ``plain.loads`` makes them. Raises NotPlain."""
    try:
        data = _shape(value).encode("utf-8", "surrogatepass")
    except RecursionError:
        raise NotPlain("a value nested too deeply") from None
    return hashlib.blake2b(data, digest_size=_HASH_BYTES).hexdigest()


def _tell(report: int, said: Any) -> None:
    os.write(report, json.dumps(said).encode() + b"\n")


def _runs(inputs: dict[str, Any], candidate: Candidate) -> list[Callable[[], str]]:
    if inputs["kind"] == "function":
        function = candidate.function(inputs["entry"])
        return [_call(function, case) for case in inputs["cases"]]
    space: dict[str, Any] = {"__name__": "inputs"}
    bind(space, inputs["cases"], inputs["entry"], candidate)
    return [_source(space, case) for case in inputs["cases"]]


def _call(function: Callable[..., Any], case: dict[str, Any]) -> Callable[[], str]:
    return lambda: digest(function(*case["args"], **case["kwargs"]))


def _source(space: dict[str, Any], source: str) -> Callable[[], str]:
    [statement] = ast.parse(source).body
    if isinstance(statement, ast.Expr):
        expression = compile(ast.Expression(statement.value), "<inputs>", "eval", dont_inherit=True)
        return lambda: digest(eval(expression, space))  # noqa: S307 - in a jail

    def hold() -> str:
        exec(compile(source, "<inputs>", "exec", dont_inherit=True), space)  # noqa: S102 - in a jail
        return "+"

    return hold


def _word(candidate: Candidate, run: Callable[[], str]) -> str:
    candidate.foul = candidate.unfit = None
    try:
        word = run()
    except NotPlain:
        word = "!foul"
    except (Foul, TestNotPlain):
        word = "!"
    except BaseException as error:
        name = type(error).__name__
        word = f"!{name if hasattr(builtins, name) else 'Exception'}"
    # A test that swallowed one of these has not passed.
    if candidate.unfit is not None:
        return "!input"
    if candidate.foul is not None:
        return "!ended" if candidate.gone else "!foul"
    return word


def _shape(value: Any) -> str:
    """A text that equal values share and others do not."""
    if isinstance(value, int | float | Fraction | Decimal):
        return _number(value)
    if isinstance(value, complex):
        return _number(value.real) if value.imag == 0 else f"c({_number(value.real)},{_number(value.imag)})"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, bytes | bytearray):
        return f"b{bytes(value).hex()}"
    if isinstance(value, dict):
        pairs = sorted(f"{_shape(key)}:{_shape(part)}" for key, part in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, set | frozenset | type({}.keys()) | type({}.items())):
        return "s(" + ",".join(sorted(map(_shape, value))) + ")"
    if isinstance(value, range):
        return f"r({len(value)},{value[0]},{value.step if len(value) > 1 else 0})" if len(value) else "r(0)"
    if isinstance(value, list):
        return "[" + ",".join(map(_shape, value)) + "]"
    if isinstance(value, tuple | deque | Iterator):
        tag = "t" if isinstance(value, tuple) else "d" if isinstance(value, deque) else "i"
        return f"{tag}(" + ",".join(map(_shape, value)) + ")"
    if value is None:
        return "null"
    raise NotPlain(f"a value of type {type(value).__name__}")


def _number(value: Any) -> str:
    if isinstance(value, Fraction | Decimal):
        try:
            number = float(value)
        except (OverflowError, ValueError):
            return f"n({value})"
        if math.isinf(number) and isinstance(value, Decimal) and value.is_finite():
            return f"n({value})"
        value = number
    if isinstance(value, float):
        if not math.isfinite(value):
            return repr(value)
        value = value if value.is_integer() else float(f"{value:.{DIGITS}g}")
        if not value.is_integer():
            return repr(value)
    return hex(int(value))
