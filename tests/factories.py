"""Small makers of records and jobs for tests."""

from __future__ import annotations

from typing import Any

from pipeline.records import Item, Sample
from pipeline.spec import JobSpec, parse


def make_spec(**sections: Any) -> JobSpec:
    """A valid job on the scripted engine; sections are merged into it."""
    raw: dict[str, Any] = {
        "dataset": {"path": "questions.jsonl"},
        "model": {"engine": "scripted", "max_model_len": 256, "max_num_seqs": 8},
        "sampling": {"max_tokens": 16, "temperature": 1.0},
        "budget": {"tokens": 1_000_000},
        "output": "runs/test",
    }
    for name, section in sections.items():
        raw[name] = {**raw.get(name, {}), **section} if isinstance(section, dict) else section
    return parse(raw)


def make_item(item_id: str = "q1", **fields: Any) -> Item:
    """An item with a prompt of five words."""
    return Item(item_id, **{"prompt": f"What is the answer, {item_id}?", **fields})


def make_sample(item_id: str = "q1", index: int = 0, answer: str | None = "1", **fields: Any) -> Sample:
    """A sample of 10 completion tokens and a fully cached prompt."""
    defaults = {"prompt_key": "k", "text": f"The answer is {answer}.", "completion_tokens": 10}
    return Sample(item_id=item_id, sample_index=index, answer=answer, **{**defaults, **fields})
