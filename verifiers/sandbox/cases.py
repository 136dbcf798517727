"""From a row's columns to the cases a program is tested with. Pure: nothing is run here.

Promises: ``read_cases`` returns cases that can be run, or raises ``BadTests`` with what is wrong with the row, so that
it can be told before anything is spent. Parsing is Python's and JSON's own; both bound their depth.
"""

from __future__ import annotations

import ast
import json
import keyword
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.records import Item
from verifiers.programs_spec import ProgramsSpec

MAX_TESTS = 4 * 2**20
"""Characters of tests in one row."""
CHECK = "check"
"""HumanEval's name for the function that tests a candidate."""


class BadTests(Exception):
    """Why this row's tests cannot be run."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What a script is given and must print."""

    given: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Cases:
    """A row's cases: ``dialogues`` for scripts, otherwise ``tests`` for the referee. ``prefix`` begins the program."""

    prefix: str
    total: int
    dialogues: tuple[Dialogue, ...] = ()
    tests: dict[str, Any] | None = None


def read_cases(spec: ProgramsSpec, item: Item) -> Cases:
    """The cases of ``item``. Raises BadTests."""
    row = row_of(item)
    found = item.reference if spec.tests_column is None else row.get(spec.tests_column)
    where = "the reference" if spec.tests_column is None else f"column {spec.tests_column!r}"
    if found is None or found == "":
        raise BadTests(f"{where} holds no tests")
    if isinstance(found, str) and len(found) > MAX_TESTS:
        raise BadTests(f"{where} holds more than {MAX_TESTS} characters of tests")
    prefix = _prefix(spec, row, item)
    if spec.style == "stdio":
        dialogues = tuple(
            Dialogue(text_of(one, where), text_of(two, where)) for one, two in _pairs(decoded(found, where), where)
        )
        return Cases(prefix, len(dialogues), dialogues)
    entry = _entry(spec, row, found)
    if spec.style == "function":
        cases = [call_of(one) | {"expected": two} for one, two in _pairs(decoded(found, where), where)]
        return _for_referee(spec, prefix, cases, entry, "")
    if spec.style == "humaneval":
        source = source_of(found, where)
        if not any(isinstance(node, ast.FunctionDef) and node.name == CHECK for node in ast.parse(source).body):
            raise BadTests(f"{where} does not define {CHECK}(candidate)")
        return _for_referee(spec, prefix, [f"{source}\n\n{CHECK}({entry})\n"], entry, _parsable(prefix))
    setup = row.get(spec.setup_column) if spec.setup_column else None
    return _for_referee(
        spec, prefix, _asserts(found, where), entry, source_of(setup, "the set-up code") if setup else ""
    )


def _for_referee(spec: ProgramsSpec, prefix: str, cases: list[Any], entry: str | None, setup: str) -> Cases:
    kind = "function" if spec.style == "function" else "source"
    tests = {"kind": kind, "cases": cases, "entry": entry, "setup": setup}
    return Cases(prefix, len(cases), tests=tests | {"partial": spec.partial, "tolerance": spec.tolerance})


def row_of(item: Item) -> dict[str, Any]:
    """The row's other columns. Raises BadTests."""
    try:
        row = json.loads(item.payload)
    except (ValueError, RecursionError):
        raise BadTests("the row's other columns are not JSON") from None
    return row if isinstance(row, dict) else {}


def _prefix(spec: ProgramsSpec, row: dict[str, Any], item: Item) -> str:
    name = spec.prompt_column or ("prompt" if spec.style == "humaneval" else None)
    if name is None:
        return ""
    found = row.get(name)
    if found is None and spec.prompt_column is None:
        # The prompt is the item's own where the job's template is the column itself.
        found = item.prompt
    if not isinstance(found, str):
        raise BadTests(f"column {name!r} holds no code that the program goes on from")
    return found


def _entry(spec: ProgramsSpec, row: dict[str, Any], found: Any) -> str | None:
    column = spec.entry_point_column or ("entry_point" if spec.style == "humaneval" else None)
    entry = spec.entry_point or (row.get(column) if column else None)
    if entry is None and spec.style == "function":
        whole = decoded(found, "the tests")
        entry = whole.get("fn_name") if isinstance(whole, dict) else None
    if entry is None:
        if spec.style == "asserts" and column is None:
            return None
        raise BadTests(f"no name of the tested function: set entry_point, or entry_point_column (now {column!r})")
    return entry_name(entry)


def entry_name(entry: Any) -> str:
    """The name of a function. Raises BadTests."""
    if not isinstance(entry, str) or not entry.isidentifier() or keyword.iskeyword(entry):
        raise BadTests(f"the tested function's name {str(entry)[:80]!r} is not a Python name")
    return entry


def decoded(found: Any, where: str) -> Any:
    """A column's value, of JSON text what it says. Raises BadTests."""
    if not isinstance(found, str):
        return found
    try:
        return json.loads(found)
    except (ValueError, RecursionError):
        raise BadTests(f"{where} is not JSON") from None


def _pairs(found: Any, where: str) -> Iterable[tuple[Any, Any]]:
    if isinstance(found, dict):
        given, wanted = found.get("inputs"), found.get("outputs")
        if not isinstance(given, list) or not isinstance(wanted, list) or not given or len(given) != len(wanted):
            raise BadTests(f"{where} needs inputs and outputs, two lists of one length")
        return list(zip(given, wanted, strict=True))
    if not isinstance(found, list) or not found:
        raise BadTests(f"{where} needs a list of cases")
    if not all(isinstance(case, dict) and "input" in case and "output" in case for case in found):
        raise BadTests(f"{where}: every case needs input and output")
    return [(case["input"], case["output"]) for case in found]


def text_of(value: Any, where: str) -> str:
    """Standard input or output of a program: text, or a list of lines. Raises BadTests."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    raise BadTests(f"{where}: input and output of a program must be text, or a list of lines")


def call_of(given: Any) -> dict[str, Any]:
    """One call: a list of arguments, or an object of named ones. Raises BadTests."""
    if isinstance(given, dict):
        return {"args": [], "kwargs": given}
    if not isinstance(given, list):
        raise BadTests(f"a case's input must be a list of arguments or an object of named ones, not {given!r:.80}")
    return {"args": given, "kwargs": {}}


def source_of(found: Any, where: str) -> str:
    """Python source that parses. Raises BadTests."""
    if not isinstance(found, str):
        raise BadTests(f"{where} must be Python source")
    try:
        ast.parse(found)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadTests(f"{where} does not parse as Python: {error}") from None
    return found


def _parsable(prompt: str) -> str:
    """A prompt that is a whole program is set-up for the tests; one that stops within a function has none to offer."""
    try:
        return source_of(prompt, "the prompt")
    except BadTests:
        return ""


def _asserts(found: Any, where: str) -> list[str]:
    if isinstance(found, str) and found.lstrip().startswith("["):
        found = decoded(found, where)
    if isinstance(found, list):
        if not found:
            raise BadTests(f"{where} needs a list of cases")
        return [source_of(case, where) for case in found]
    cases: list[str] = []
    gathered: list[ast.stmt] = []
    for statement in ast.parse(source_of(found, where)).body:
        # Statements between two asserts belong to the later one.
        gathered.append(statement)
        if isinstance(statement, ast.Assert):
            cases.append(ast.unparse(ast.Module(gathered, [])))
            gathered = []
    if gathered:
        cases.append(ast.unparse(ast.Module(gathered, [])))
    if not cases:
        raise BadTests(f"{where} holds no statement")
    return cases
