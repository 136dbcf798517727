"""Generated questions: the same for the same settings, each scored against the reference it came with."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from pipeline.errors import SourceError
from pipeline.records import DeadLetter, Item, Segment, Shard
from pipeline.source import plan_dataset, read_shard
from pipeline.spec import DatasetSpec

reasoning_gym = pytest.importorskip("reasoning_gym", reason="needs the tasks extra: pip install ponder[tasks]")


def gym(task: str = "leg_counting", **more: Any) -> DatasetSpec:
    return DatasetSpec(path=f"reasoning_gym:{task}", **{"size": 5, "seed": 3, **more})


def read_all(spec: DatasetSpec, shard_size: int = 2) -> list[Item | DeadLetter]:
    return [record for shard in plan_dataset(spec, shard_size).shards for record in read_shard(spec, shard)]


def refusal(spec: DatasetSpec) -> str:
    with pytest.raises(SourceError) as caught:
        plan_dataset(spec, 2)
    return str(caught.value)


def test_a_task_is_planned_as_one_virtual_file() -> None:
    plan = plan_dataset(gym(), 3)
    path = "reasoning_gym:leg_counting"
    assert plan.shards == (Shard(0, 3, (Segment(path, 0, 3),)), Shard(1, 2, (Segment(path, 3, 5),)))
    assert plan.items == 5
    assert plan.has_reference


def test_questions_are_those_of_the_package() -> None:
    entries = list(reasoning_gym.create_dataset("leg_counting", size=5, seed=3))
    items = read_all(gym())
    assert [item.item_id for item in items] == [f"leg_counting-3-{index}" for index in range(5)]
    for item, entry in zip(items, entries, strict=True):
        assert isinstance(item, Item)
        assert (item.prompt, item.reference) == (entry["question"], entry["answer"])
        assert json.loads(item.payload)["total_legs"] == entry["metadata"]["total_legs"]
    assert read_all(gym(), 5) == items


def test_limit_and_template() -> None:
    items = read_all(gym(limit=2, prompt="{{ metadata.num_animals }} kinds. {{ question }}Legs:"))
    assert len(items) == 2
    for item in items:
        assert isinstance(item, Item)
        assert item.prompt is not None
        assert item.prompt.startswith(f"{json.loads(item.payload)['num_animals']} kinds. Your task")


def test_options_reach_the_task() -> None:
    items = read_all(gym(options={"min_animals": 2, "max_animals": 2}))
    assert {json.loads(item.payload)["num_animals"] for item in items} == {2}


def test_the_fingerprint_follows_the_settings() -> None:
    specs = [
        gym(),
        gym(seed=4),
        gym(size=6),
        gym(limit=2),
        gym("chain_sum"),
        gym(options={"max_animals": 4}),
    ]
    assert len({plan_dataset(spec, 2).fingerprint for spec in specs}) == len(specs)
    assert plan_dataset(gym(), 2).fingerprint == plan_dataset(gym(), 5).fingerprint


def test_unknown_tasks_suggest_close_names() -> None:
    assert "no task 'leg_count'; did you mean leg_counting" in refusal(gym("leg_count"))
    assert "no task 'zzzzqqqq'" in refusal(gym("zzzzqqqq"))


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"bogus": 1}, "unexpected keyword argument 'bogus'"),
        ({"min_animals": 9, "max_animals": 1}, "max_animals must be >= min_animals"),
        ({"seed": 1}, "set dataset.seed instead"),
    ],
)
def test_wrong_options(options: dict[str, Any], cause: str) -> None:
    text = refusal(gym(options=options))
    assert text.startswith("dataset.options: ")
    assert cause in text


def test_columns_do_not_apply() -> None:
    assert refusal(gym(id="qid")).startswith("dataset.id: 'qid' names a column")
    assert "needs 'answer', but" in refusal(gym(prompt="{{ question }} {{ answer }}"))


def test_a_blank_prompt_is_a_dead_letter() -> None:
    spec = gym(size=3, prompt="{{ question if metadata.source_index != 1 else '' }}")
    assert [type(record) for record in read_all(spec)] == [Item, DeadLetter, Item]


def test_without_the_package_the_mend_is_named() -> None:
    code = (
        "import sys; sys.modules['reasoning_gym'] = None\n"
        "from pipeline.source import plan_dataset\n"
        "from pipeline.spec import DatasetSpec\n"
        "plan_dataset(DatasetSpec(path='reasoning_gym:leg_counting'), 2)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "SourceError: dataset.path: reasoning_gym:leg_counting needs the reasoning-gym package" in done.stderr
    assert "pip install ponder[tasks]" in done.stderr
