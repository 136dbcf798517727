"""A run whose questions were asked in several ways, read as a recording."""

import dataclasses
from pathlib import Path

from pipeline.recording import Recording, Span
from pipeline.records import Answer, Shard, StopReason
from pipeline.store import Store
from tests.factories import make_sample, make_spec


class OneShard:
    shards = (Shard(0, 2),)
    items = 2


def test_of_each_question_the_way_most_samples_came_from_is_read(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "run"))
    store.begin(make_spec().model_dump(mode="json"), {})
    store.write_plan(OneShard())
    drawn = {"a": [("k1", 0), ("k1", 1), ("k2", 0)], "b": [("k3", 0), ("k4", 0), ("k4", 1)]}
    samples = [
        dataclasses.replace(make_sample(item_id, index, answer=key), prompt_key=key)
        for item_id, ways in drawn.items()
        for key, index in ways
    ]
    answers = [Answer(item_id, "1", "1", StopReason.CAPPED, 0.9, 1, 3, 30) for item_id in drawn]
    store.commit(0, 0, answers, samples, [], [], "w0")
    with Recording.open(store.url) as recording:
        columns = recording.read(Span(0, 2))
        found = [columns.answers[code] for code in columns.answer.tolist()]
        assert (columns.item_ids, columns.starts.tolist(), found) == (["a", "b"], [0, 2, 4], ["k1", "k1", "k4", "k4"])
