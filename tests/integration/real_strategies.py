"""Every strategy once on the bundled model, and once more over its journal; run by ``test_vllm_strategies``.

A process of its own: vLLM reads the environment when it is imported. The real engine, market, store, journal and
verifiers; one engine serves all runs. Prints what came of each as one JSON object.
"""

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from actors.embedder import Embedder
from actors.engines import start_engine
from actors.engines.base import Completion, Request
from pipeline.spec import JobSpec, load
from tests.unit.actors.test_station import outcome, spent, work

ROOT = Path(__file__).resolve().parents[2]
# Ample: no strategy is refused what it asks for, so what it does depends on its samples alone.
ROWS, BUDGET = 6, 30_000
VOTE = {"kind": "self_consistency", "max_samples": 6}

STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {"kind": "greedy"},
    "self_consistency": {**VOTE, "verifier": "numeric", "temperatures": [0.8, 1.0]},
    "best_of_n": {"kind": "best_of_n", "score": "confidence", "stop": "pandora", "max_samples": 6},
    "deep_conf": {"kind": "deep_conf", "warmup": 3, "keep": 50, "group": 4, "max_samples": 8, "consensus": 1.0},
    "cascade": {"kind": "cascade", "stages": [{"max_samples": 3}, {"temperature": 0.5, "max_samples": 3}]},
    "diversified": {"kind": "diversified", "probes": 4, "probe_tokens": 4},
    "aggregate": {"kind": "aggregate", "method": "usc", "vote": VOTE, "max_tokens": 16},
    "adaptive": {
        "kind": "adaptive",
        "explore": 0.5,
        "probe": 2,
        "arms": [
            {"name": "vote", "strategy": VOTE},
            {"name": "hot", "temperature": 1.3, "strategy": {"kind": "best_of_n", "score": "confidence"}},
        ],
    },
    "behavioural_vote": {"kind": "behavioural_vote", "vote": {"max_samples": 5}},
}

PROGRAMS = {
    "double": "Return two times x.",
    "square": "Return x times x.",
    "negative": "Return minus x.",
    "third": "Return x divided by 3.",
    "next_one": "Return x plus one.",
    "same": "Return x.",
}


class Shut:
    """An engine that can only say how a question would be asked."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def generate(self, request: Request) -> Completion:
        raise AssertionError(f"drawn again: {request.request_id}")


def arithmetic(folder: Path, strategy: dict[str, Any]) -> JobSpec:
    overrides = [
        f"dataset.path={ROOT / 'jobs/examples/arithmetic.jsonl'}",
        f"dataset.limit={ROWS}",
        "model.max_num_seqs=16",
        "sampling.logprobs=20",
        f"strategy={json.dumps(strategy)}",
        f"budget.tokens={BUDGET}",
        "cluster.shard_size=4",
    ]
    return load(ROOT / "jobs/examples/arithmetic.yaml", overrides, str(folder / strategy["kind"]))


def programs(folder: Path, strategy: dict[str, Any]) -> JobSpec:
    """One-line functions, voted on by what they do."""
    spec = arithmetic(folder, strategy_without_checks := {"kind": "greedy"})
    assert strategy_without_checks
    data = folder / "programs.jsonl"
    rows = [
        {
            "id": name,
            "text": f'def {name}(x):\n    """{what}"""\n    return',
            "name": name,
            "inputs": [[1], [2], [5]],
        }
        for name, what in PROGRAMS.items()
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = spec.model_dump(mode="json") | {
        "dataset": {"path": str(data), "id": "id", "prompt": "{{ text }}"},
        "answer": {"extract": "text"},
        "strategy": strategy,
        "verifiers": [
            {
                "kind": "behaviour",
                "style": "function",
                "inputs_column": "inputs",
                "prompt_column": "text",
                "entry_point_column": "name",
            }
        ],
        "output": str(folder / strategy["kind"]),
    }
    return JobSpec.model_validate(raw)


def answers_of(spec: JobSpec) -> dict[str, Any]:
    answers, samples, dead = outcome(spec)
    assert dead == [], dead
    return {
        "answers": {row["item_id"]: [row["answer"], row["stop_reason"], row["samples"]] for row in answers},
        "samples": len(samples),
        "cut": sum(row["finish_reason"] in ("cut", "abort") for row in samples),
        "keys": len({row["prompt_key"] for row in samples}),
        "spent": spent(spec),
    }


async def main() -> None:
    folder = Path(sys.argv[1])
    engine = await start_engine(arithmetic(folder, {"kind": "greedy"}))
    embedder = Embedder()
    found: dict[str, dict[str, Any]] = {}
    try:
        for kind, strategy in STRATEGIES.items():
            spec = (programs if kind == "behavioural_vote" else arithmetic)(folder, strategy)
            await work(spec, ["w-0"], engine, embedder.embed)
            first = answers_of(spec)
            for name in ("commits", "answers", "samples", "decisions"):
                shutil.rmtree(Path(spec.output) / name)
            await work(spec, ["w-1"], Shut(engine), embedder.embed)
            found[kind] = {**first, "again": answers_of(spec) == first}
    finally:
        embedder.close()
        await engine.close()
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
