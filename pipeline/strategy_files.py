"""The strategies of a comparison: a YAML file each, with a ``strategy`` section and what it brings along.

Promises: every file is read and checked before anything is spent; a strategy is called by its file's stem, and no two
by one. Owns no job: ``StrategyFile.into`` merges one into a job that is not checked yet.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from pipeline.errors import SpecError, UsageError
from pipeline.section import Section
from pipeline.spec import ModelSpec, explain, read_mapping
from pipeline.strategy_spec import StrategySpec
from pipeline.verifier_spec import VerifierSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class StrategyFile(Section):
    """What a strategy file holds."""

    strategy: StrategySpec = Field(description="As in a job file")
    verifiers: list[VerifierSpec] | None = Field(None, description="In place of the job's; default: the job's")
    models: dict[str, ModelSpec] | None = Field(None, description="In place of the job's further models")

    def into(self, job: dict[str, Any]) -> dict[str, Any]:
        """``job`` with these sections in place of its own."""
        return {**job, **self.model_dump(mode="json", exclude_none=True)}


@dataclass(frozen=True, slots=True)
class Strategy:
    """One strategy to compare: its file's stem, its path as given, and what it holds."""

    name: str
    path: str
    file: StrategyFile


def load_strategies(paths: str) -> list[Strategy]:
    """``a.yaml,b.yaml`` as strategies, in order.

    Raises:
        UsageError: none is named, or two have one stem.
        SpecError: a file cannot be read, or a field is wrong.
    """
    words = [word.strip() for word in paths.split(",") if word.strip()]
    if not words:
        raise UsageError("--strategies is empty; name YAML files with a strategy section: a.yaml,b.yaml")
    found: list[Strategy] = []
    for path in words:
        name = Path(path).stem
        if not _NAME.fullmatch(name):
            raise UsageError(f"--strategies {path!r}: {name!r} names no folder: use letters, digits, _, . and -")
        twin = next((one for one in found if one.name == name), None)
        if twin is not None:
            raise UsageError(f"--strategies: {twin.path} and {path} are both called {name!r}; rename one of them")
        found.append(Strategy(name, path, _load(path)))
    return found


def parse_amounts(flag: str, text: str) -> list[float]:
    """``1e5,2e5`` as distinct finite numbers > 0, ascending. Raises UsageError naming ``flag``."""
    found: list[float] = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        try:
            amount = float(word.replace("_", ""))
        except ValueError:
            raise UsageError(f"{flag}: {word!r} is no number; write a list like 1e5,2e5") from None
        if not 0.0 < amount < math.inf:
            raise UsageError(f"{flag}: {word} must be a finite number > 0")
        if amount in found:
            raise UsageError(f"{flag}: {word} is given twice; leave one out")
        found.append(amount)
    return sorted(found)


def _load(path: str) -> StrategyFile:
    raw = read_mapping(path, "the strategy file", "a strategy section")
    try:
        return StrategyFile.model_validate(raw)
    except ValidationError as error:
        raise SpecError(explain(error, f"the strategy file {path}")) from None
