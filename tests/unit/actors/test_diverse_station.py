"""``diversified`` through a station: near-duplicates are cut, the others gone on with, and the decisions say so."""

import json
from collections import Counter

from pipeline.run import open_run
from tests.unit.actors.test_station import ALL, ids, make_job, outcome, spent, work

PROBES = 6
STRATEGY = {
    "kind": "diversified",
    "probes": PROBES,
    "probe_tokens": 6,
    "arms": [{"name": "plain"}, {"name": "hot", "temperature": 1.5}],
    # Nothing settles early: what is not gone on with was cut as a near-duplicate.
    "confidence": 0.999,
}


def facts_of(spec) -> dict[str, dict]:
    rows = open_run(spec.output).decisions().to_table().to_pylist()
    return {row["item_id"]: json.loads(row["facts"]) for row in rows if json.loads(row["facts"])}


async def test_alike_beginnings_are_cut_and_different_ones_gone_on_with(tmp_path):
    spec = make_job(tmp_path, strategy=STRATEGY)
    market = await work(spec, ["w-0", "w-1"])
    answers, samples, dead = outcome(spec)
    assert (ids(answers), dead) == (ALL, [])
    assert market.ledger.spent == spent(spec)
    facts = facts_of(spec)
    assert sorted(facts) == ALL
    drawn = Counter(ids(samples))
    for name, told in facts.items():
        assert told["probes"] == PROBES
        assert drawn[name] == PROBES + told["continued"]
        # Probes that ended by themselves need no second part.
        ended = sum(
            s["item_id"] == name and s["finish_reason"] == "stop" and s["completion_tokens"] <= 6 for s in samples
        )
        assert told["cut"] <= PROBES - told["continued"]
        assert ended + told["continued"] + told["cut"] >= PROBES
        assert 1 <= told["effective_clusters"] <= told["clusters"] <= 3
    assert sum(told["cut"] for told in facts.values()) > 20
    assert any(told["clusters"] > 1 for told in facts.values())


async def test_two_arms_are_asked_equally_often(tmp_path):
    spec = make_job(tmp_path, strategy=STRATEGY)
    await work(spec, ["w-0"])
    samples = outcome(spec)[1]
    for name in ALL:
        probes = Counter(s["prompt_key"] for s in samples if s["item_id"] == name and s["completion_tokens"] <= 6)
        assert [count for _, count in probes.most_common(2)] == [PROBES // 2, PROBES // 2]
