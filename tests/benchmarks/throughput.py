"""Tokens a second through Ponder against a plain ``vllm.LLM.generate`` call: same model, prompts, n and limits.

    python -m tests.benchmarks.throughput [--questions 48] [--n 8] [--max-tokens 64] [--rounds 3] [--json]

Each side runs in a process of its own, one after the other, round by round, so that a machine whose speed drifts slows
both. Engine start and one warm-up generation are excluded from both. Ponder's side is a worker's whole inside: market,
ledger, strategy, journal and commits on a local disk, with every sample a request of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from actors.guardian import descendants

WARM_UP = "Once upon a time there was a"


def prompts(count: int) -> list[str]:
    return [f"Write a short story about the number {i} and a friend it meets on the road.\n\n" for i in range(count)]


def job(arguments: argparse.Namespace, folder: str) -> Any:
    from pipeline.spec import parse

    data = Path(folder, "prompts.jsonl")
    data.write_text(
        "".join(json.dumps({"id": str(i), "prompt": p}) + "\n" for i, p in enumerate(prompts(arguments.questions)))
    )
    return parse(
        {
            "dataset": {"path": str(data), "id": "id"},
            "model": {"max_model_len": 512, "max_num_seqs": arguments.slots},
            "sampling": {"temperature": 1.0, "max_tokens": arguments.max_tokens},
            # Never settles: as many samples as the plain call draws, no more and no fewer.
            "strategy": {
                "kind": "self_consistency",
                "min_samples": arguments.n,
                "max_samples": arguments.n,
            },
            "answer": {"extract": "text"},
            "budget": {"tokens": 100_000_000},
            "output": f"{folder}/run",
        }
    )


def plain(arguments: argparse.Namespace) -> dict[str, float]:
    """One ``LLM.generate`` call over all prompts."""
    with tempfile.TemporaryDirectory() as folder:
        spec = job(arguments, folder)
        from actors.engines.bundled import resolve_model
        from actors.engines.devices import environment
        from actors.engines.vllm_engine import _arguments, _own_environment, prepare_environment

        prepare_environment(spec)
        from vllm import LLM, SamplingParams

        settings = {
            k: v for k, v in _arguments(spec, resolve_model(spec.model.name)).items() if k != "disable_log_stats"
        }
        with environment(_own_environment(spec, None)):
            llm = LLM(**settings)
        params = SamplingParams(temperature=1.0, max_tokens=arguments.max_tokens, n=arguments.n, logprobs=0)
        llm.generate([WARM_UP] * 4, SamplingParams(max_tokens=16), use_tqdm=False)
        began = time.perf_counter()
        outputs = llm.generate(prompts(arguments.questions), params, use_tqdm=False)
        seconds = time.perf_counter() - began
        tokens = sum(len(sample.token_ids) for output in outputs for sample in output.outputs)
        return {"tokens": tokens, "seconds": seconds}


def ponder(arguments: argparse.Namespace) -> dict[str, float]:
    """The same samples through a station."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_ponder(job(arguments, folder)))


async def _ponder(spec: Any) -> dict[str, float]:
    from actors.engines import start_engine
    from actors.engines.base import Request
    from actors.judge import RuleJudge
    from actors.recovery import restore_market
    from actors.station import Station
    from pipeline.driver import prepare
    from pipeline.records import Item
    from pipeline.run import open_run

    engine = await start_engine(spec)
    warm = engine.prepare(Item("w", prompt=WARM_UP))
    await asyncio.gather(*(engine.generate(Request(f"w{i}", warm, 1.0, i, "w")) for i in range(4)))
    began = time.perf_counter()
    prepared = prepare(spec)
    market = restore_market(prepared.store, spec.budget.tokens, prepared.shards)

    async def sync(report: Any) -> Any:
        return market.sync(report)

    shards = {shard.shard_id: shard for shard in prepared.shards}
    await Station(spec, shards, engine, prepared.store, RuleJudge(spec), "bench").run(sync)
    seconds = time.perf_counter() - began
    column = open_run(spec.output).samples().to_table(columns=["completion_tokens"])["completion_tokens"]
    await engine.close()
    return {"tokens": sum(column.to_pylist()), "seconds": seconds}


def in_a_process(side: str, options: list[str]) -> float:
    """Tokens a second of one side, measured in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.throughput", "--side", side, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-4000:]}")
    measured = json.loads(done.stdout.strip().splitlines()[-1])
    return float(measured["tokens"] / measured["seconds"])


def _leave() -> None:
    """End at once: a plain ``LLM`` waits for its engine processes at exit, which wait for it."""
    for pid, _ in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=48)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--slots", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=["plain", "ponder"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps({"plain": plain, "ponder": ponder}[arguments.side](arguments)), flush=True)
        _leave()
    options = [
        f"--{name}={getattr(arguments, name.replace('-', '_'))}" for name in ("questions", "n", "max-tokens", "slots")
    ]
    rounds = []
    for _ in range(arguments.rounds):
        rate = {side: in_a_process(side, options) for side in ("plain", "ponder")}
        rounds.append(rate | {"ratio": rate["ponder"] / rate["plain"]})
        if not arguments.json:
            print(
                f"tokens/s: plain {rate['plain']:.0f}, ponder {rate['ponder']:.0f}, ratio {rounds[-1]['ratio']:.3f}",
                flush=True,
            )
    ratios = [one["ratio"] for one in rounds]
    result = {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios), "rounds": rounds}
    print(
        json.dumps(result)
        if arguments.json
        else f"ratio {result['ratio']:.3f} ({result['lowest']:.3f}–{result['highest']:.3f})"
    )


if __name__ == "__main__":
    main()
