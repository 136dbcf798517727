"""What makes two jobs the same run: named digests of everything that changes which samples a run draws and judges.

Pure. Budget, cluster, output and ``reuse`` are left out: a run may be topped up, moved to other machines, given samples
of other runs, or resumed with another shard size (the stored plan then holds). ``data`` is digested by the source,
which alone has seen the rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipeline.errors import RunMismatch
from pipeline.spec import JobSpec

MODEL_FIELDS = ("name", "revision", "tokenizer", "dtype", "engine", "max_model_len", "options")
"""Fields of a model that decide its samples; the others say how fast it runs."""

SECTIONS: dict[str, tuple[str, ...]] = {
    "model": tuple(f"model.{name}" for name in MODEL_FIELDS),
    "prompts": ("dataset.prompt", "dataset.messages", "dataset.id", "dataset.reference", "dataset.stakes"),
    "sampling": ("sampling",),
    "strategy": ("strategy",),
    "answer": ("answer",),
    "verifiers": ("verifiers",),
    "data": ("dataset.path", "dataset.limit", "dataset.size", "dataset.seed", "dataset.options"),
    "seed": ("seed",),
}
"""Each section's fields of the job. ``data`` is compared by the source's digest; its fields only explain a diff."""

MODELS = "models"
"""The section of a job's further models; a job without them has none, so that runs of before keep their fingerprint."""

RULE = "strategy"
"""The section that says how answers are selected: a finished run may be selected again by another one."""

MISSING = "(not set)"


def fingerprint_of(spec: JobSpec, data: str) -> dict[str, str]:
    """Section name → SHA-256 (hex) of its canonical JSON. ``data`` is the source's digest of what it will read."""
    job = spec.model_dump(mode="json")
    digests = {name: _digest([_field(job, path) for path in paths]) for name, paths in SECTIONS.items()}
    if spec.models:
        digests[MODELS] = _digest({path: _field(job, path) for path in _model_paths(job)})
    return {**digests, "data": _digest(data)}


def changed_sections(theirs: Mapping[str, str], ours: Mapping[str, str]) -> list[str]:
    """Names of the sections in which two fingerprints differ, sorted."""
    return [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]


def mismatch(url: str, old_job: dict[str, Any], new_job: dict[str, Any], changed: Iterable[str]) -> RunMismatch:
    """What is raised where the run at ``url`` is another job's."""
    changes = diff(old_job, new_job, changed).replace("\n", "\n  ")
    return RunMismatch(
        f"output {url}: holds another run; undo these changes to resume it, or name another output:\n  {changes}"
    )


def diff(old_job: dict[str, Any], new_job: dict[str, Any], sections: Iterable[str]) -> str:
    """One line a changed field of ``sections``, like ``sampling.temperature: 0.8 (run) → 0.5 (job)``."""
    lines: list[str] = []
    for section in sections:
        paths = SECTIONS.get(section, (section,))
        if section == MODELS:
            paths = tuple(dict.fromkeys([*_model_paths(old_job), *_model_paths(new_job)]))
        changed = [line for path in paths for line in _changes(path, old_job, new_job)]
        lines += changed or [f"{section}: changed, though the job's fields are equal (the content behind them is not)"]
    return "\n".join(lines)


def _model_paths(job: dict[str, Any]) -> list[str]:
    return [f"{MODELS}.{model}.{name}" for model in sorted(job.get(MODELS) or {}) for name in MODEL_FIELDS]


def _changes(path: str, old_job: dict[str, Any], new_job: dict[str, Any]) -> Iterator[str]:
    old, new = (dict(_leaves(path, _field(job, path))) for job in (old_job, new_job))
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, MISSING), new.get(name, MISSING)
        if before != after:
            yield f"{name}: {before} (run) → {after} (job)"


def _leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from _leaves(f"{path}.{name}", below)
    elif isinstance(value, list) and any(isinstance(below, dict) for below in value):
        for position, below in enumerate(value):
            yield from _leaves(f"{path}[{position}]", below)
    elif value not in (None, [], {}):
        yield path, json.dumps(value, ensure_ascii=False)


def _field(job: dict[str, Any], path: str) -> Any:
    value: Any = job
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
