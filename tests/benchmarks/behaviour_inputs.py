"""Inputs and tests from a problem's prompt alone: what the benchmark of behaviour runs programs on.

Reads ``prompt`` and ``entry_point`` of a HumanEval problem and nothing else; the hidden tests are never opened here.

- examples: every call of the function in its docstring whose arguments are literals, in order of appearance
- mutants: examples with one argument changed (an integer by 1 or 2, halved or negated; a float by a half, halved or
  negated; a string, list or tuple reversed, cut, or with a part doubled, gone or changed; a boolean turned; a dict
  without a key)
- where the docstring calls the function nowhere (23 of 164): combinations of a fixed pool of values, by annotation
- tests: examples with a literal after them (``==``, ``=>``, ``->``, ``returns``, or the line under a ``>>>``)
"""

from __future__ import annotations

import ast
import itertools
import random
import re
from collections.abc import Iterator
from typing import Any

Arguments = list[Any]
MOST_CHARS = 600
"""Of one example."""
_POOL: dict[str, list[Any]] = {
    "int": [0, 1, 2, 5, 10, 37],
    "float": [0.0, 0.5, 2.7, -1.2],
    "str": ["", "a", "Hello world", "aba", "ABC def 12"],
}
_ANY: list[Any] = [
    0,
    3,
    10,
    "",
    "abcab",
    "Hello World",
    [],
    [1, 2, 3],
    [3, -1, 2, 2],
    ["a", "bcd", "ab"],
    [[1, 2], [3, 4]],
]
_BETWEEN = re.compile(r"\s*(?:\n\s*|#\s*)?(?:===?>?|=+>|➞|→|-+>|=|returns?|should return|should be)?\s*", re.IGNORECASE)


def inputs_of(problem: dict[str, str], most: int) -> tuple[list[str], int]:
    """Up to ``most`` calls as source, and how many of them are examples of the docstring."""
    name, (function, doc) = problem["entry_point"], _function(problem)
    examples = [arguments for arguments, _ in _examples(doc, name)]
    rng = random.Random(problem["task_id"])
    begun = examples or list(_guesses(function, rng))
    found: dict[str, None] = dict.fromkeys(_call(name, arguments) for arguments in begun)
    known = len(found) if examples else 0
    for _ in range(20 * most):
        if len(found) >= most:
            break
        found.setdefault(_call(name, _mutant(rng.choice(begun), rng)))
    return list(found)[:most], min(known, most)


def tests_of(problem: dict[str, str]) -> list[str]:
    """The docstring's examples with their results, as assertions."""
    name, (_, doc) = problem["entry_point"], _function(problem)
    found: dict[str, None] = {}
    for arguments, rest in _examples(doc, name):
        for value in _literal(rest):
            found.setdefault(f"assert {_call(name, arguments)} == {value!r}")
    return list(found)


def _function(problem: dict[str, str]) -> tuple[ast.FunctionDef, str]:
    tree = ast.parse(problem["prompt"] + "    pass\n")
    [node] = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == problem["entry_point"]]
    return node, ast.get_docstring(node) or ""


def _call(name: str, arguments: Arguments) -> str:
    return f"{name}({', '.join(map(repr, arguments))})"


def _examples(doc: str, name: str) -> Iterator[tuple[Arguments, str]]:
    """Arguments, and the text after the call."""
    for match in re.finditer(rf"\b{re.escape(name)}\(", doc):
        for end in range(match.end(), min(len(doc), match.end() + MOST_CHARS)):
            if doc[end] != ")":
                continue
            try:
                call = ast.parse(doc[match.start() : end + 1], mode="eval").body
            except (SyntaxError, ValueError):
                continue
            try:
                if isinstance(call, ast.Call) and not call.keywords:
                    yield [ast.literal_eval(one) for one in call.args], doc[end + 1 :]
            except (ValueError, TypeError):
                pass
            break


def _literal(rest: str) -> Iterator[Any]:
    """The value at the beginning of a text, if there is one."""
    between = _BETWEEN.match(rest)
    if between is None or (not between.group().strip() and "\n" not in between.group()):
        return
    line = rest[between.end() :].split("\n")[0].strip()
    line = re.sub(r"\b(true|false|none)\b", lambda word: word.group().capitalize(), line)
    for end in range(len(line), 0, -1):
        try:
            yield ast.literal_eval(line[:end])
        except (ValueError, SyntaxError, TypeError):
            continue
        return


def _guesses(function: ast.FunctionDef, rng: random.Random) -> Iterator[Arguments]:
    kinds = [ast.unparse(one.annotation) if one.annotation else "" for one in function.args.args]
    options = list(itertools.islice(itertools.product(*(_POOL.get(kind, _ANY) for kind in kinds)), 500))
    yield from map(list, rng.sample(options, min(len(options), 12)))


def _mutant(arguments: Arguments, rng: random.Random) -> Arguments:
    changed = list(arguments)
    if changed:
        at = rng.randrange(len(changed))
        changed[at] = _changed(changed[at], rng)
    return changed


def _changed(value: Any, rng: random.Random) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([value + 1, value - 1, value + 2, value // 2, -value])
    if isinstance(value, float):
        return rng.choice([value + 0.5, value - 0.5, value / 2, -value])
    if isinstance(value, str):
        return _sequence(value, rng, lambda part: rng.choice([part.swapcase(), "a", " ", "1", part * 2]))
    if isinstance(value, list | tuple):
        return _sequence(value, rng, lambda part: type(value)([_changed(part[0], rng)]))
    if isinstance(value, dict) and value:
        gone = rng.choice(list(value))
        return {key: part for key, part in value.items() if key != gone}
    return value


def _sequence(value: Any, rng: random.Random, change: Any) -> Any:
    if not value:
        return value
    at = rng.randrange(len(value))
    part = value[at : at + 1]
    return rng.choice(
        [
            value[::-1],
            value[:at] + value[at + 1 :],
            value[:at],
            value[:at] + part + value[at:],
            value[:at] + change(part) + value[at + 1 :],
            value[:at] + change(part) + value[at + 1 :],
        ]
    )
