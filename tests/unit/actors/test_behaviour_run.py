"""A vote by behaviour through everything real but the model: programs run, and nothing is run again over a journal."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest

from pipeline.run import open_run
from pipeline.store import Store
from tests.unit.actors.test_every_strategy import RUN_PROGRAMS, Closed
from tests.unit.actors.test_station import make_job, outcome, work
from verifiers.sandbox.observer import digest


def journalled(spec) -> Counter[tuple]:
    """What was said of each sample, as the journal has it."""
    store = Store.open(spec.output)
    shards = [shard.shard_id for shard in store.read_plan()]
    return Counter(
        (sample.item_id, sample.prompt_key, sample.sample_index, verdict.given, verdict.detail)
        for shard in shards
        for sample in store.read_journal(shard)
        for verdict in sample.verdicts
    )


def checks_files(spec) -> list[str]:
    return sorted(path.name for path in Path(spec.output).glob("journal/*/verdicts-*"))


@pytest.mark.parametrize(
    ("generate", "words"), [("inputs", {digest(6), digest(9)}), ("tests", {"+ +", "+ !", "! +", "+", "!"})]
)
async def test_programs_are_run_once_and_vote_by_what_they_did(tmp_path, generate, words):
    strategy = {"kind": "behavioural_vote", "generate": generate, "generations": 3, "vote": {"max_samples": 6}}
    spec = make_job(tmp_path, 8, strategy=strategy, **RUN_PROGRAMS)
    await work(spec, ["w-0"])
    answers, samples, dead = outcome(spec)
    assert (len(answers), dead) == (8, [])
    said, files = journalled(spec), checks_files(spec)
    assert {detail for *_, detail in said} <= words
    assert len({detail for *_, detail in said}) >= 2
    by_item = {item: {given for one, _, _, given, _ in said if one == item} for item, *_ in said}
    assert all(len(given) == 1 and None not in given for given in by_item.values())
    # The two texts of one behaviour vote together somewhere.
    texts = {answer["item_id"]: answer["answer"] for answer in answers}
    own = Counter((s["item_id"], s["answer"]) for s in samples)
    assert any(answer["votes"] > own[(answer["item_id"], texts[answer["item_id"]])] for answer in answers)
    for folder in ("commits", "answers", "samples", "decisions"):
        shutil.rmtree(Path(spec.output) / folder)
    await work(spec, ["w-1"], Closed(spec))
    assert outcome(spec)[0] == answers
    assert (journalled(spec), checks_files(spec)) == (said, files)


async def test_rows_whose_inputs_cannot_be_run_are_answered_and_say_why(tmp_path):
    inputs = {"q000": ["f(3)", "f(0)"], "q001": None, "q002": ["f("], "q003": ["g(1)", "f(1, 2)"]}
    rows = [{"id": name, "prompt": f"Write {name}", "gold": "1", "inputs": given} for name, given in inputs.items()]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    verifier = {**RUN_PROGRAMS["verifiers"][0], "inputs_column": "inputs"}
    strategy = {"kind": "behavioural_vote", "vote": {"max_samples": 5}}
    spec = make_job(tmp_path, strategy=strategy, **{**RUN_PROGRAMS, "verifiers": [verifier]})
    await work(spec, ["w-0"])
    answers, _, dead = outcome(spec)
    assert ([row["item_id"] for row in answers], dead) == (list(inputs), [])
    assert all(row["answer"].startswith("def f(x):") for row in answers)
    decided = open_run(spec.output).decisions().to_table().to_pylist()
    facts = {row["item_id"]: json.loads(row["facts"]) for row in decided}
    assert "unknown" not in facts["q000"]
    assert "needs a list of inputs" in facts["q001"]["unknown"]
    assert "does not parse" in facts["q002"]["unknown"]
    assert "no program did anything but fail" in facts["q003"]["fallback"]
    reasons = {row["item_id"]: (row["stop_reason"], row["confidence"]) for row in answers}
    assert reasons["q003"] == ("hopeless", 0.0)
