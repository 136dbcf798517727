"""Questions that ``reasoning_gym`` generates: ``dataset.path: reasoning_gym:TASK``.

Promises: the same task, size, seed, options and version of the package give the same questions; planning generates
none of them. Owns the package, which is imported on first use. May not know of shards or files.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from pipeline.errors import SourceError
from pipeline.prompts import PromptTemplate, RowFault, compile_template
from pipeline.readers import canonical, text_of
from pipeline.records import DeadLetter, Item
from pipeline.spec import DatasetSpec

PREFIX = "reasoning_gym:"
COLUMNS = ("metadata", "question")
"""What a prompt template may use. The answer is not among them: it would be told to the model."""


def is_gym(spec: DatasetSpec) -> bool:
    """Does this dataset name a generated task rather than files?"""
    return isinstance(spec.path, str) and spec.path.startswith(PREFIX)


def count_tasks(spec: DatasetSpec) -> int:
    """How many questions there are, after checking that they can be generated.

    Raises:
        SourceError: the package or the task is missing, an option is wrong, or a field does not apply.
    """
    for field in ("id", "messages", "reference", "stakes"):
        value = getattr(spec, field)
        if value is not None:
            raise SourceError(
                f"dataset.{field}: {value!r} names a column, but {spec.path} has none: ids and references are "
                "generated; leave the field out"
            )
    _template(spec)
    _generator(spec)
    return spec.size if spec.limit is None else min(spec.size, spec.limit)


def fingerprint(spec: DatasetSpec) -> str:
    """Hex digest of all that determines the questions. They are not generated for it."""
    import hashlib

    parts = [spec.path, spec.size, spec.seed, spec.options, count_tasks(spec), metadata.version("reasoning-gym")]
    return hashlib.blake2b(canonical(parts).encode("utf-8"), digest_size=16).hexdigest()


def read_tasks(spec: DatasetSpec, start: int, stop: int) -> Iterator[Item | DeadLetter]:
    """Questions ``[start, stop)``. One that cannot be generated or asked is a dead letter."""
    template, generator = _template(spec), _generator(spec)
    for index in range(start, stop):
        item_id = f"{_task(spec)}-{spec.seed}-{index}"
        try:
            entry = generator[index]
        except Exception as error:  # a generator is a stranger's code; what one question raises is that question's
            yield DeadLetter(item_id, "source", f"generating it failed: {type(error).__name__}: {error}")
            continue
        payload = canonical(entry["metadata"])
        try:
            prompt = template.render({name: entry[name] for name in COLUMNS})
        except RowFault as fault:
            yield DeadLetter(item_id, "source", str(fault), payload=payload)
            continue
        yield Item(item_id, prompt=prompt, reference=text_of(entry["answer"]), payload=payload)


def _task(spec: DatasetSpec) -> str:
    return str(spec.path).removeprefix(PREFIX)


def _template(spec: DatasetSpec) -> PromptTemplate:
    template = compile_template("{{ question }}" if spec.prompt is None else spec.prompt)
    unknown = sorted(set(template.columns) - set(COLUMNS))
    if unknown:
        raise SourceError(
            f"dataset.prompt: {template.text!r} needs {unknown[0]!r}, but {spec.path} has only {', '.join(COLUMNS)}"
        )
    return template


def _generator(spec: DatasetSpec) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise SourceError(
            f"dataset.path: {spec.path} needs the reasoning-gym package ({error}); run pip install ponder[tasks]"
        ) from None
    task = _task(spec)
    if task not in DATASETS:
        close = difflib.get_close_matches(task, DATASETS, n=3, cutoff=0.5)
        mend = f"did you mean {' or '.join(close)}?" if close else "see the list of tasks in reasoning-gym's gallery"
        raise SourceError(f"dataset.path: reasoning_gym has no task {task!r}; {mend}")
    taken = sorted({"size", "seed"} & spec.options.keys())
    if taken:
        raise SourceError(f"dataset.options: {taken[0]!r} does not belong here; set dataset.{taken[0]} instead")
    try:
        return reasoning_gym.create_dataset(task, size=spec.size, seed=spec.seed, **spec.options)
    except Exception as error:  # each of the 106 tasks checks its options in its own way, asserts among them
        raise SourceError(
            f"dataset.options: {task} does not take {spec.options}: {type(error).__name__}: {error}; mend the options"
        ) from None
