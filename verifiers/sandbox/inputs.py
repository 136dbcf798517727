"""From a row's columns, or what a strategy hands over, to the inputs a program is looked at with. Pure, like ``cases``.

Promises: ``read_inputs`` returns inputs that can be run, or raises ``BadTests`` with what is wrong with them. Texts a
model wrote are parsed and never run here.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.records import Item
from verifiers.behaviour_spec import BehaviourSpec
from verifiers.sandbox.cases import MAX_TESTS, BadTests, call_of, decoded, entry_name, row_of, source_of, text_of


@dataclass(frozen=True, slots=True)
class Inputs:
    """``texts`` for scripts, otherwise ``cases`` for the observer. ``prefix`` begins the program.

    ``held[i]``: input i is an assertion, of which only whether it holds is told.
    """

    prefix: str
    held: tuple[bool, ...]
    texts: tuple[str, ...] = ()
    cases: tuple[Any, ...] = ()
    kind: str = ""
    entry: str | None = None

    @property
    def total(self) -> int:
        return len(self.held)

    def job(self, start: int) -> dict[str, Any]:
        """What the observer reads, from input ``start`` on."""
        return {"kind": self.kind, "cases": list(self.cases[start:]), "entry": self.entry}


def read_inputs(spec: BehaviourSpec, item: Item) -> Inputs:
    """The inputs of ``item``. Raises BadTests."""
    row = row_of(item)
    prefix = row.get(spec.prompt_column) if spec.prompt_column else ""
    if not isinstance(prefix, str):
        raise BadTests(f"column {spec.prompt_column!r} holds no code that the program goes on from")
    if item.given and spec.style != "source":
        raise BadTests(f"style {spec.style} takes its inputs from a column; what a model writes needs style source")
    found, where = _found(spec, item, row)
    chosen = found[: spec.max_inputs]
    if spec.style == "stdio":
        return Inputs(prefix, (False,) * len(chosen), texts=tuple(text_of(one, where) for one in chosen))
    entry = spec.entry_point or (row.get(spec.entry_point_column) if spec.entry_point_column else None)
    if entry is not None or spec.entry_point_column:
        entry = entry_name(entry)
    if spec.style == "function":
        cases = tuple(call_of(one) for one in chosen)
        return Inputs(prefix, (False,) * len(cases), cases=cases, kind="function", entry=entry)
    held = tuple(_is_assertion(source_of(one, where), where) for one in chosen)
    return Inputs(prefix, held, cases=tuple(chosen), kind="source", entry=entry)


def _found(spec: BehaviourSpec, item: Item, row: dict[str, Any]) -> tuple[Sequence[Any], str]:
    if item.given:
        return item.given, "what the strategy hands over"
    where = f"column {spec.inputs_column!r}"
    value = row.get(spec.inputs_column) if spec.inputs_column else None
    if spec.inputs_column is None:
        raise BadTests("there are no inputs: no column is named, and the strategy hands none over")
    if isinstance(value, str) and len(value) > MAX_TESTS:
        raise BadTests(f"{where} holds more than {MAX_TESTS} characters of inputs")
    found = decoded(value, where)
    if not isinstance(found, list) or not found:
        raise BadTests(f"{where} needs a list of inputs")
    return found, where


def _is_assertion(source: str, where: str) -> bool:
    body = ast.parse(source).body
    if len(body) != 1 or not isinstance(body[0], ast.Expr | ast.Assert):
        raise BadTests(f"{where}: an input must be one expression or one assert statement, not {source[:80]!r}")
    return isinstance(body[0], ast.Assert)
