"""The referee's process: it holds the tests and says how many passed. The program never runs here.

Runs inside a jail of its own, after ``jail.enter``: tests come from datasets. A test calls the candidate's functions
through proxies, which send plain data to the candidate's process and get plain data back (``plain``), so a test
compares builtin values with builtin values. An exception of the candidate is raised again here as the nearest builtin
one; ``SystemExit``, a dead process and values that cannot be carried raise what no ``except Exception`` of a test
catches, and the case has failed whatever the test makes of it.

Free names in tests mean, in this order: what the tests or the trusted set-up code define, a standard module of that
name, a function of the candidate (any, or only the entry point where one is named).
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import math
import os
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .candidate import MAX_TEXT, SEED, read_all
from .limits import ENDED
from .plain import Hangup, NotPlain, dumps, loads, receive, send

_HIDDEN = (StopIteration, StopAsyncIteration)
"""An exception of these would end a loop of the test (``all(map(candidate, …))``) instead of failing it."""


class CandidateError(Exception):
    """The candidate raised an exception of a class of its own."""


class Foul(BaseException):
    """The case has failed, whatever catches this."""


class TestNotPlain(BaseException):
    """The test passes something to the candidate that cannot be carried: nothing is known of the candidate."""


class Candidate:
    """The candidate's process as the tests see it."""

    def __init__(self, calls: int, replies: int) -> None:
        self._calls, self._replies = calls, replies
        self.foul: str | None = None
        """Why the present case has failed already, or None."""
        self.gone: str | None = None
        self.unfit: TestNotPlain | None = None
        """What a test tried to pass and could not; a test that catches it is no fitter."""

    def begin(self) -> None:
        """Wait until the program is loaded. Raises what it raised."""
        reply = self._receive()
        if "raised" in reply:
            said = reply["raised"]
            names = said.get("names") if isinstance(said, dict) else None
            name = names[0] if isinstance(names, list) and names else "an exception"
            self._lost(f"the program does not load: {name}: {_text(said)}")

    def function(self, name: str) -> Callable[..., Any]:
        """A proxy."""

        def proxy(*positional: Any, **named: Any) -> Any:
            return self._call(name, list(positional), named)

        proxy.__name__ = name
        return proxy

    def _call(self, name: str, positional: list[Any], named: dict[str, Any]) -> Any:
        if self.gone:
            self._fail(self.gone)
        try:
            question = dumps({"name": name, "args": positional, "kwargs": named})
        except NotPlain as error:
            self.unfit = TestNotPlain(f"the test passes {error} to {name}, which cannot be carried")
            raise self.unfit from None
        try:
            send(self._calls, question)
        except Hangup:
            self._lost(ENDED)
        reply = self._receive()
        if "raised" in reply:
            self._raise(reply["raised"])
        if "misfit" in reply or "value" not in reply:
            self._fail(f"{name} returned {str(reply.get('misfit', 'nothing'))[:MAX_TEXT]}, which cannot be carried")
        changed = reply.get("changed")
        if isinstance(changed, list) and len(changed) == 2:
            _graft(positional, changed[0])
            _graft(named, changed[1])
        return reply["value"]

    def _receive(self) -> dict[str, Any]:
        try:
            reply = loads(receive(self._replies))
        except Hangup:
            self._lost(ENDED)
        except NotPlain as error:
            self._lost(f"the program sent {error}")
        except MemoryError:
            self._lost("the program sent more than there is memory for")
        if not isinstance(reply, dict):
            self._lost("the program sent a malformed message")
        return dict(reply)

    def _raise(self, said: Any) -> None:
        names = said.get("names") if isinstance(said, dict) else None
        for name in names if isinstance(names, list) else ():
            kind = getattr(builtins, name, None) if isinstance(name, str) else None
            if not isinstance(kind, type) or not issubclass(kind, BaseException):
                continue
            if kind is Exception or issubclass(kind, _HIDDEN):
                break
            if issubclass(kind, Exception):
                raise _make(kind, said)
            self._fail(f"the program raised {name}")
        name = names[0] if isinstance(names, list) and names else "an exception"
        raise CandidateError(f"{name}: {_text(said)}")

    def _lost(self, why: str) -> Any:
        self.gone = why
        self._fail(why)

    def _fail(self, why: str) -> Any:
        self.foul = self.foul or why
        raise Foul(why)


def judge(job: int, verdict: int, calls: int, replies: int) -> None:
    """Run the tests ``job`` holds and write one JSON object: ``passed`` of ``total``, and the first failing case."""
    tests = json.loads(read_all(job))
    os.close(job)
    random.seed(SEED)
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 2_000))
    candidate = Candidate(calls, replies)
    try:
        cases = _cases(tests, candidate)
    except BaseException as error:
        _tell(verdict, {"error": f"the set-up code of the tests fails: {type(error).__name__}: {error}"[:MAX_TEXT]})
        return
    passed = 0
    first: dict[str, Any] | None = None
    said: dict[str, Any]
    try:
        candidate.begin()
        for number, case in enumerate(cases):
            problem = _run(candidate, case)
            passed += problem is None
            if problem is not None and first is None:
                first = {"case": number, "why": problem[:MAX_TEXT]}
            if problem is not None and (not tests["partial"] or candidate.gone):
                break
        said = {"passed": passed, "first": first}
    except Foul as foul:
        said = {"passed": 0, "first": {"case": 0, "why": str(foul)[:MAX_TEXT]}}
    except TestNotPlain as error:
        said = {"error": str(error)[:MAX_TEXT]}
    _tell(verdict, said)


def _tell(verdict: int, said: dict[str, Any]) -> None:
    os.write(verdict, json.dumps(said).encode())


def _run(candidate: Candidate, case: Callable[[], str | None]) -> str | None:
    """Why the case failed, or None."""
    candidate.foul = None
    try:
        problem = case()
    except TestNotPlain:
        raise
    except Foul as foul:
        return str(foul)
    except AssertionError as error:
        return f"assertion failed{f': {error}' if str(error) else ''}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        if candidate.unfit is not None:
            raise candidate.unfit
    # A test that swallowed a foul has not passed.
    return candidate.foul or problem


def _cases(tests: dict[str, Any], candidate: Candidate) -> list[Callable[[], str | None]]:
    if tests["kind"] == "function":
        function = candidate.function(tests["entry"])
        return [_value_case(function, case, tests["tolerance"]) for case in tests["cases"]]
    space: dict[str, Any] = {"__name__": "tests"}
    if tests["setup"]:
        exec(compile(tests["setup"], "<prompt>", "exec", dont_inherit=True), space)  # noqa: S102 - in a jail
    bind(space, tests["cases"], tests["entry"], candidate)
    return [_source_case(space, source) for source in tests["cases"]]


def _source_case(space: dict[str, Any], source: str) -> Callable[[], str | None]:
    def run() -> None:
        exec(compile(source, "<tests>", "exec", dont_inherit=True), space)  # noqa: S102 - in a jail

    return run


def _value_case(function: Callable[..., Any], case: dict[str, Any], tolerance: float) -> Callable[[], str | None]:
    def run() -> str | None:
        got = function(*case["args"], **case["kwargs"])
        if _same(got, case["expected"], tolerance):
            return None
        return f"expected {repr(case['expected'])[:100]}, got {repr(got)[:100]}"

    return run


def _same(got: Any, expected: Any, tolerance: float) -> bool:
    """Equal, where JSON can tell: a tuple is a list, floats are close; True is not 1."""
    if isinstance(expected, list) and isinstance(got, list | tuple):
        return len(got) == len(expected) and all(
            _same(one, other, tolerance) for one, other in zip(got, expected, strict=True)
        )
    if isinstance(expected, dict) and isinstance(got, dict):
        keyed = {key if isinstance(key, str) else json.dumps(key, default=str): value for key, value in got.items()}
        return keyed.keys() == expected.keys() and all(
            _same(keyed[key], value, tolerance) for key, value in expected.items()
        )
    if isinstance(expected, bool) or isinstance(got, bool):
        return got is expected
    if isinstance(expected, float) or isinstance(got, float):
        numbers = isinstance(expected, int | float) and isinstance(got, int | float)
        return numbers and math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)
    return type(got) is type(expected) and bool(got == expected)


def bind(space: dict[str, Any], sources: list[str], entry: str | None, candidate: Candidate) -> None:
    """Put into ``space`` what the free names of the sources mean."""
    for name in dict.fromkeys(free_names(sources)):
        if name == entry or name in space:
            continue
        if name in sys.stdlib_module_names:
            space[name] = importlib.import_module(name)
        elif entry is None:
            space[name] = candidate.function(name)
    if entry is not None:
        # Last: the prompt defines the entry point too, without a body.
        space[entry] = candidate.function(entry)


def free_names(sources: list[str]) -> Iterator[str]:
    """Names the sources read and do not define, in order of appearance."""
    trees = [ast.parse(source) for source in sources]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    defined = {name for node in nodes for name in _defines(node)}
    for node in nodes:
        if (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Load)
            and node.id not in defined
            and not hasattr(builtins, node.id)
        ):
            yield node.id


def _defines(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.ExceptHandler) and node.name:
        return [node.name]
    if isinstance(node, ast.alias):
        return [(node.asname or node.name).partition(".")[0]]
    return []


def _make(kind: type[Exception], said: dict[str, Any]) -> Exception:
    arguments = said.get("arguments")
    try:
        return kind(*arguments) if isinstance(arguments, list) else kind(_text(said))
    except Exception:
        return CandidateError(f"{kind.__name__}: {_text(said)}")


def _text(said: Any) -> str:
    text = said.get("text") if isinstance(said, dict) else None
    return text[:MAX_TEXT] if isinstance(text, str) else ""


def _graft(mine: Any, theirs: Any) -> Any:
    """Make my container equal theirs in place, as a call in one process would have; what to put in its place."""
    if type(mine) is not type(theirs):
        return theirs
    if isinstance(mine, list):
        shared = [_graft(one, other) for one, other in zip(mine, theirs, strict=False)]
        mine[:] = shared + theirs[len(shared) :]
    elif isinstance(mine, dict):
        kept = {key: _graft(mine[key], value) if key in mine else value for key, value in theirs.items()}
        mine.clear()
        mine.update(kept)
    elif isinstance(mine, set | bytearray):
        mine.clear()
        mine.update(theirs) if isinstance(mine, set) else mine.extend(theirs)
    elif isinstance(mine, tuple) and len(mine) == len(theirs):
        for one, other in zip(mine, theirs, strict=True):
            _graft(one, other)
        return mine if mine == theirs else theirs
    else:
        return theirs
    return mine
