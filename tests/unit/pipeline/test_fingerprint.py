"""What belongs to a run's fingerprint, and what a diff says."""

from typing import Any

import pytest

from pipeline.fingerprint import SECTIONS, diff, fingerprint_of
from pipeline.spec import JobSpec, parse

JOB: dict[str, Any] = {"dataset": {"path": "q.jsonl"}, "budget": {"tokens": 1000}, "output": "out"}


def job(**changes: Any) -> JobSpec:
    return parse({**JOB, **changes})


def changed(spec: JobSpec, data: str = "data") -> set[str]:
    old, new = fingerprint_of(job(), "data"), fingerprint_of(spec, data)
    return {name for name in old if old[name] != new[name]}


def test_digests_are_stable_hex() -> None:
    digests = fingerprint_of(job(), "data")
    assert digests.keys() == SECTIONS.keys()
    assert all(len(digest) == 64 and int(digest, 16) >= 0 for digest in digests.values())
    assert digests == fingerprint_of(job(), "data")


@pytest.mark.parametrize(
    ("changes", "sections"),
    [
        ({"model": {"name": "other"}}, {"model"}),
        ({"model": {"revision": "abc"}}, {"model"}),
        ({"dataset": {"path": "q.jsonl", "prompt": "{{ q }}"}}, {"prompts"}),
        ({"sampling": {"temperature": 0.5}}, {"sampling"}),
        ({"strategy": {"kind": "greedy"}}, {"strategy"}),
        ({"answer": {"extract": "boxed"}}, {"answer"}),
        (
            {"dataset": {"path": "q.jsonl", "reference": "gold"}, "verifiers": [{"kind": "exact"}]},
            {"prompts", "verifiers"},
        ),
        ({"seed": 1}, {"seed"}),
        ({"budget": {"tokens": 2000}}, set()),
        ({"cluster": {"workers": 4, "shard_size": 7}}, set()),
        ({"output": "elsewhere"}, set()),
        ({"model": {"max_num_seqs": 8, "kv_cache_gib": 2, "tensor_parallel": 2}}, set()),
        # Where the same rows lie is no other run: the source's digest says whether they are the same.
        ({"dataset": {"path": "moved/q.jsonl"}}, set()),
    ],
)
def test_sections(changes: dict[str, Any], sections: set[str]) -> None:
    assert changed(job(**changes)) == sections


def test_data_is_the_sources_digest() -> None:
    assert changed(job(), data="other rows") == {"data"}


def dump(**changes: Any) -> dict[str, Any]:
    return job(**changes).model_dump(mode="json")


def test_diff_names_field_and_both_values() -> None:
    old = dump(sampling={"temperature": 0.8}, model={"revision": "a"})
    new = dump(sampling={"temperature": 0.5, "stop": ["\n"]})
    assert diff(old, new, ["model", "sampling"]).splitlines() == [
        'model.revision: "a" (run) → (not set) (job)',
        'sampling.stop: (not set) (run) → ["\\n"] (job)',
        "sampling.temperature: 0.8 (run) → 0.5 (job)",
    ]


def test_diff_inside_lists_and_only_in_named_sections() -> None:
    gold = {"path": "q.jsonl", "reference": "gold"}
    old = dump(dataset=gold, verifiers=[{"kind": "numeric"}], seed=1)
    new = dump(dataset=gold, verifiers=[{"kind": "numeric", "tolerance": 0.1}], seed=2)
    assert diff(old, new, ["verifiers"]) == "verifiers[0].tolerance: 1e-06 (run) → 0.1 (job)"


def test_diff_where_only_the_content_changed() -> None:
    assert diff(dump(), dump(), ["data"]).startswith("data: changed, though the job's fields are equal")
