"""The process in which JSON Schemas and reasoning_gym's scorers run: one check at a time, and nothing to lose.

Run as a script with the package it serves as argument; limits and protocol are ``child_limits``'s. Schemas may hold
patterns that backtrack without end, and some of reasoning_gym's scorers hand a completion to SymPy, which evaluates
strings: the parent gives this process no credentials. It is bounded, not confined: it can read what its user can read.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from verifiers.child_limits import serve

MAX_PROBLEM = 300
"""Characters of a problem that is told: it quotes hostile text."""
_scorers: dict[str, Any] = {}


def main(package: str) -> None:
    """Serve checks until standard input ends."""
    logging.disable(logging.CRITICAL)
    if package == "jsonschema":
        serve(_load_jsonschema, meets_schema)
    else:
        serve(_load_gym, gym_score)


def meets_schema(request: dict[str, Any]) -> dict[str, Any]:
    """``{"definition", "text"}``: does the JSON in ``text`` meet the schema? ``{"problem": where and why or None}``."""
    from jsonschema import SchemaError  # type: ignore[import-untyped]
    from jsonschema.exceptions import best_match  # type: ignore[import-untyped]
    from jsonschema.validators import validator_for  # type: ignore[import-untyped]
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    try:
        instance = json.loads(request["text"], parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return {"problem": f"not JSON: {error}"[:MAX_PROBLEM]}
    try:
        # An empty registry: a $ref to elsewhere is not fetched.
        found = best_match(
            validator_for(request["definition"])(request["definition"], registry=Registry()).iter_errors(instance)
        )
    except Unresolvable as error:
        return {"error": f"the schema refers to what it does not hold: {error}"[:MAX_PROBLEM]}
    except SchemaError as error:
        return {"error": f"no JSON Schema: {error.message}"[:MAX_PROBLEM]}
    except (MemoryError, RecursionError, OverflowError) as error:
        return {"error": f"{type(error).__name__} while checking the schema"}
    if found is None:
        return {"problem": None}
    where = "/".join(str(part) for part in found.absolute_path) or "top"
    return {"problem": f"at {where}: {found.message}"[:MAX_PROBLEM]}


def gym_score(request: dict[str, Any]) -> dict[str, Any]:
    """``{"task", "answer", "entry"}``: the task's own score of the answer, ``{"score": s}`` or ``{"error": why}``.

    A row's metadata has been JSON, which has no tuples, and some scorers compare with one. So the reference is scored
    first, with the metadata as it is and then with tuples; where neither gets it full marks, nothing is judged by it.
    """
    import reasoning_gym

    task, entry = request["task"], request["entry"]
    try:
        if task not in _scorers:
            _scorers[task] = reasoning_gym.get_score_answer_fn(task)
    except Exception as error:  # an unknown task, or one that cannot be built
        return {
            "error": f"reasoning_gym has no scorer for task {task!r}: {type(error).__name__}: {error}"[:MAX_PROBLEM]
        }
    try:
        if entry["answer"] is not None and _score(task, entry["answer"], entry) < 1:
            entry = {**entry, "metadata": _tuples(entry["metadata"])}
            if _score(task, entry["answer"], entry) < 1:
                return {"error": f"the scorer of {task!r} does not accept the row's own reference"}
        return {"score": _score(task, request["answer"], entry)}
    except MemoryError:
        return {"error": "MemoryError while scoring"}
    except Exception as error:  # a stranger's code on a stranger's text
        return {"error": f"the scorer of {task!r} failed: {type(error).__name__}: {error}"[:MAX_PROBLEM]}


def _score(task: str, answer: str, entry: dict[str, Any]) -> float:
    return float(_scorers[task](answer=answer, entry=entry))


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(part) for part in value)
    return {name: _tuples(part) for name, part in value.items()} if isinstance(value, dict) else value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _load_jsonschema() -> None:
    import jsonschema  # noqa: F401


def _load_gym() -> None:
    import reasoning_gym  # noqa: F401


if __name__ == "__main__":
    main(sys.argv[1])
