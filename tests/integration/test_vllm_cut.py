"""The real engine cuts a trace at the token where its confidence falls below the bar, and a run pays for just that."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# In a process of its own: vLLM reads the environment when it is imported and keeps processes.
SCRIPT = """
import asyncio, json, sys
from pathlib import Path
from actors.engines import start_engine
from actors.engines.base import Request
from actors.judge import RuleJudge
from actors.recovery import restore_market
from actors.station import Station
from pipeline.driver import prepare
from pipeline.records import Item
from pipeline.run import open_run
from tests.factories import make_spec

GROUP, LONG = 8, 60
# Greedy, so that a shorter request is the beginning of a longer one; one slot, so that nothing shares a batch.
PROMPT = "Once upon a time there was"

def job(folder):
    data = Path(folder, "questions.jsonl")
    rows = [{"id": str(i), "prompt": f"Question: What is {i} + 5, step by step?\\nAnswer:"} for i in range(4)]
    data.write_text("".join(json.dumps(row) + "\\n" for row in rows))
    return make_spec(
        dataset={"path": str(data), "id": "id"},
        model={"engine": "vllm", "max_num_seqs": 1},
        sampling={"max_tokens": 40, "logprobs": 20},
        strategy={"kind": "deep_conf", "warmup": 3, "keep": 50, "group": GROUP, "max_samples": 6, "consensus": 1.0},
        output=f"{folder}/run",
    )

async def main():
    spec = job(sys.argv[1])
    engine = await start_engine(spec)
    prompt = engine.prepare(Item("q", prompt=PROMPT))
    number = 0

    async def ask(tokens, bar=None):
        nonlocal number
        number += 1
        heat = 0.0
        return await engine.generate(
            Request(f"r{number}", prompt, heat, 0, "q", max_tokens=tokens, cut_below=bar, group=GROUP)
        )

    whole = await ask(LONG)
    bar = whole.min_group_confidence + 0.05
    cut = await ask(LONG, bar)
    until = [await ask(n) for n in range(max(1, cut.completion_tokens - 4), cut.completion_tokens + 1)]
    never = await ask(GROUP - 1, 1e9)
    at_once = await ask(LONG, 1e9)
    untouched = await ask(LONG, 0.0)
    found = {
        "bar": bar,
        "whole": [whole.finish_reason, whole.completion_tokens, whole.text],
        "cut": [cut.finish_reason, cut.completion_tokens, cut.text, cut.min_group_confidence, cut.mean_logprob],
        "until": [[one.completion_tokens, one.min_group_confidence, one.text] for one in until],
        "never": [never.finish_reason, never.completion_tokens],
        "at_once": [at_once.finish_reason, at_once.completion_tokens],
        "untouched": [untouched.finish_reason, untouched.completion_tokens, untouched.text],
        "confidence": [whole.min_group_confidence, untouched.min_group_confidence],
    }

    prepared = prepare(spec)
    market = restore_market(prepared.store, spec.budget.tokens, prepared.shards)

    async def sync(report):
        return market.sync(report)

    shards = {shard.shard_id: shard for shard in prepared.shards}
    await Station(spec, shards, engine, prepared.store, RuleJudge(spec), "w-0").run(sync)
    await engine.close()
    run = open_run(spec.output)
    columns = ["item_id", "prompt_key", "sample_index", "finish_reason", "answer", "prompt_tokens",
               "cached_prompt_tokens", "completion_tokens", "min_group_confidence"]
    found["samples"] = run.samples().to_table(columns=columns).to_pylist()
    found["facts"] = {row["item_id"]: json.loads(row["facts"]) for row in run.decisions().to_table().to_pylist()}
    found["spent"] = market.ledger.spent
    print(json.dumps(found))

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    script = folder / "cut_check.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, str(script), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.strip().splitlines()[-1])


def test_a_trace_is_cut_where_it_falls_below_the_bar(found):
    _, length, text = found["whole"]
    reason, tokens, begun, confidence, logprob = found["cut"]
    assert reason == "cut"
    assert 8 <= tokens < length
    assert text.startswith(begun)
    assert confidence < found["bar"]
    assert logprob < 0
    # The same greedy trace, a few tokens shorter: at the bar still. So no token was generated for nothing.
    (before, above, _), *_, (last, below, same) = found["until"]
    assert (before, last, same) == (tokens - 4, tokens, begun)
    assert above >= found["bar"] > below


def test_only_whole_groups_cut_and_a_bar_out_of_reach_changes_nothing(found):
    assert found["never"] == ["length", 7]
    reason, tokens = found["at_once"]
    assert reason == "cut"
    assert 8 <= tokens < 12
    assert found["untouched"] == found["whole"]
    whole, untouched = found["confidence"]
    assert untouched == pytest.approx(whole, abs=1e-3)


def test_a_run_pays_for_cut_traces_what_was_generated_and_counts_none_of_them(found):
    samples = found["samples"]
    keys = {(s["item_id"], s["prompt_key"], s["sample_index"]) for s in samples}
    assert len(keys) == len(samples)
    billed = sum(s["prompt_tokens"] - s["cached_prompt_tokens"] + s["completion_tokens"] for s in samples)
    assert billed == found["spent"]
    cut = [s for s in samples if s["finish_reason"] == "cut"]
    assert cut, "with half of the warm-up under the bar some later trace is"
    assert all(s["answer"] is None and 8 <= s["completion_tokens"] < 40 for s in cut)
    for name, facts in found["facts"].items():
        own = [s for s in cut if s["item_id"] == name]
        assert (facts["cut"], facts["cut tokens"]) == (len(own), sum(s["completion_tokens"] for s in own))
        assert all(s["min_group_confidence"] < facts["bar"] for s in own)
    print(f"{len(cut)} of {len(samples)} traces cut, after {sum(s['completion_tokens'] for s in cut)} tokens in all")
