"""``diversified`` against plain samples on the same questions, live: from which N on does structure pay?

    python -m tests.benchmarks.diversified [--questions 24] [--probes 4,8,16] [--n 24] [--seed 0] [--json]

The bundled model adds numbers step by step, about 60 to 100 tokens a trace, through a worker's whole inside. *plain*: a
weighted vote of n whole traces, n = 1 … ``--n``, each n averaged over orders of the traces that were drawn.
*diversified*: so many probes over its default arms (the prompt as it is and two instructions in front of it), cut where
they are alike, at several cosines, nothing settled early. Both are held against each other at equal tokens
a question, which is where plain's curve is read; tokens are those of the samples that were paid for, prompts that the
cache did not hold included. Also: questions with a right candidate (coverage), and the effective number of different
answers (the exponential of their entropy) at equal tokens. Intervals are 95%, over questions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from budgets.evidence import Evidence
from pipeline.comparison import Floats, Resamples
from pipeline.records import Sample
from pipeline.spec import JobSpec, parse
from strategies.clusters import effective_number
from tests.benchmarks.deep_conf import sums
from tests.benchmarks.throughput import _leave

ORDERS = 200
Row = dict[str, Any]
SIMILARITIES = (0.95, 0.99, 0.998)


def strategies(probes: list[int], n: int) -> dict[str, Row]:
    """The runs of one benchmark, by name."""
    plain = {"kind": "self_consistency", "rule": f"fixed:{n}", "min_samples": n, "max_samples": n}
    found: dict[str, Row] = {"plain": plain}
    for similarity in SIMILARITIES:
        for count in probes:
            # So sure that it never stops for being sure: every cluster is gone on with.
            common = {"kind": "diversified", "probes": count, "probe_tokens": 24, "confidence": 0.999999}
            found[f"{_alike(similarity)}, {count} probes"] = common | {"similarity": similarity}
    return found


def _alike(similarity: float) -> str:
    return f"similarity {similarity:g}"


def job(folder: Path, name: str, strategy: Row, questions: list[Row], slots: int) -> JobSpec:
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in questions))
    return parse(
        {
            "dataset": {"path": str(data), "id": "id", "reference": "gold"},
            "model": {"max_model_len": 1024, "max_num_seqs": slots},
            "sampling": {"temperature": 0.8, "max_tokens": 128, "stop": ["\n"]},
            "strategy": strategy,
            "budget": {"tokens": 10**9},
            "output": str(folder / name.replace(" ", "-").replace(",", "")),
        }
    )


async def live(folder: Path, arguments: argparse.Namespace) -> dict[str, list[Row]]:
    """Every run over one engine: by question what was answered, and every sample paid for."""
    from actors.embedder import Embedder
    from actors.engines import start_engine
    from actors.judge import RuleJudge
    from actors.recovery import restore_market
    from actors.station import Station
    from pipeline.driver import prepare
    from pipeline.run import open_run

    questions = sums(arguments.questions, arguments.seed)
    specs = {
        name: job(folder, name, strategy, questions, arguments.slots)
        for name, strategy in strategies(arguments.probes, arguments.n).items()
    }
    engine = await start_engine(specs["plain"])
    embedder = Embedder()
    found = {}
    for name, spec in specs.items():
        prepared = prepare(spec)
        market = restore_market(prepared.store, spec.budget.tokens or 0, prepared.shards)

        async def sync(report: Any, market: Any = market) -> Any:
            return market.sync(report)

        shards = {shard.shard_id: shard for shard in prepared.shards}
        judge = RuleJudge(spec)
        await Station(spec, shards, engine, prepared.store, judge, "bench", embed=embedder.embed).run(sync)
        run = open_run(spec.output)
        samples = run.samples().to_table().to_pylist()
        found[name] = [_row(answer, samples) for answer in run.answers().to_table().to_pylist()]
        # A run before must not have computed what the next one's prompts begin with.
        await engine._llm.reset_prefix_cache()
    embedder.close()
    await engine.close()
    return found


def _row(answer: Row, samples: list[Row]) -> Row:
    kept = ("answer", "completion_tokens", "prompt_tokens", "cached_prompt_tokens", "mean_logprob", "finish_reason")
    own = [sample for sample in samples if sample["item_id"] == answer["item_id"]]
    return {
        "id": answer["item_id"],
        "gold": answer["reference"],
        "answer": answer["answer"],
        "samples": [{name: sample[name] for name in kept} for sample in own],
    }


class Curve:
    """A way at one or more sizes, by question: tokens, right, covered, different answers. Sizes × questions."""

    def __init__(self, sizes: list[list[tuple[float, float, float, float]]]) -> None:
        self.tokens, self.right, self.covered, self.different = np.array(sizes).transpose(2, 0, 1)

    def at(self, tokens: float, of: Floats) -> Floats:
        """``of`` by question, at this mean number of tokens, read off between sizes."""
        means = self.tokens.mean(axis=1)
        place = int(np.clip(np.searchsorted(means, tokens), 1, len(means) - 1))
        share = np.clip((tokens - means[place - 1]) / (means[place] - means[place - 1]), 0.0, 1.0)
        return (1 - share) * of[place - 1] + share * of[place]


def plain(rows: list[Row], seed: int) -> Curve:
    """Weighted votes of the first n of each order, n = 1 … all."""
    rng = random.Random(seed)
    n = min(len(row["samples"]) for row in rows)
    totals = np.zeros((n, len(rows), 4))
    for column, row in enumerate(rows):
        for _ in range(ORDERS):
            order = rng.sample(row["samples"], n)
            tally, seen, tokens = Evidence("auto").tally(), Counter[str](), 0
            for size, sample in enumerate(order):
                tally.add_sample(_sample(sample))
                tokens += _billed(sample)
                if sample["answer"] is not None:
                    seen[sample["answer"]] += 1
                told = (tokens, tally.leader == row["gold"], row["gold"] in seen, effective_number(seen.values()))
                totals[size, column] += told
    return Curve((totals / ORDERS).tolist())


def diverse(rows: list[Row]) -> Curve:
    """One size: as it ran."""
    each = []
    for row in rows:
        # A probe that was gone on with is counted with its end; one that was cut gave no answer.
        ended = Counter(s["answer"] for s in row["samples"] if s["finish_reason"] == "stop" and s["answer"] is not None)
        tokens = sum(map(_billed, row["samples"]))
        told = (tokens, row["answer"] == row["gold"], row["gold"] in ended, effective_number(ended.values()))
        each.append(tuple(map(float, told)))
    return Curve([each])


def _sample(row: Row) -> Sample:
    return Sample(
        "",
        0,
        "",
        "",
        answer=row["answer"],
        completion_tokens=row["completion_tokens"],
        mean_logprob=row["mean_logprob"],
    )


def _billed(row: Row) -> int:
    # What every way computes once alike: the worked examples before the question. They are cached from then on.
    return int(row["completion_tokens"] + row["prompt_tokens"] - row["cached_prompt_tokens"])


def compared(runs: dict[str, list[Row]], seed: int) -> list[Row]:
    rows = {name: sorted(found, key=lambda row: row["id"]) for name, found in runs.items()}
    base = plain(rows["plain"], seed)
    again = Resamples(base.tokens.shape[1], seed)
    found = []
    for name in (name for name in rows if name != "plain"):
        curve = diverse(rows[name])
        tokens = float(curve.tokens.mean())
        same = float(np.interp(tokens, base.tokens.mean(axis=1), np.arange(1, len(base.tokens) + 1)))
        right = again.difference(base.at(tokens, base.right), curve.right[0])
        covered = again.difference(base.at(tokens, base.covered), curve.covered[0])
        found.append(
            {
                "name": name,
                "tokens": tokens,
                "plain_samples": same,
                "accuracy": 100 * float(curve.right.mean()),
                "difference": 100 * right.mean,
                "difference_interval": [100 * end for end in right.interval],
                "coverage": 100 * float(curve.covered.mean()),
                "coverage_difference": 100 * covered.mean,
                "coverage_interval": [100 * end for end in covered.interval],
                "different": float(curve.different.mean()),
                "plain_different": float(base.at(tokens, base.different).mean()),
                "beyond_plain": tokens > float(base.tokens.mean(axis=1)[-1]),
            }
        )
    return found


def critical(found: list[Row], similarity: float) -> str:
    """The fewest probes from which on, at every size tried, it is ahead of plain."""
    sizes = [row for row in found if row["name"].startswith(f"{_alike(similarity)},")]
    ahead = [row["name"] for at, row in enumerate(sizes) if all(r["difference"] > 0 for r in sizes[at:])]
    sure = ", ".join(row["name"] for row in sizes if row["difference_interval"][0] > 0) or "none"
    return f"{_alike(similarity)}: ahead from {ahead[0] if ahead else 'no size tried'} on; surely ahead at {sure}"


def show(found: list[Row], questions: int) -> None:
    print(f"{questions} questions; each against plain samples at the same tokens a question")
    print(
        "run                       tokens  plain N  right  and plain (95%)        covered  and plain (95%)      answers"
    )
    for row in found:
        low, high = row["difference_interval"]
        least, most = row["coverage_interval"]
        print(
            f"{row['name']:<25} {row['tokens']:6.0f}  {row['plain_samples']:7.1f}  {row['accuracy']:5.1f}  "
            f"{row['difference']:+5.1f} ({low:+.1f} to {high:+.1f})    {row['coverage']:7.1f}  "
            f"{row['coverage_difference']:+5.1f} ({least:+.1f} to {most:+.1f})   {row['different']:.2f} against "
            f"{row['plain_different']:.2f}{' (plain ends before)' if row['beyond_plain'] else ''}"
        )
    for similarity in SIMILARITIES:
        print(critical(found, similarity))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--probes", type=lambda text: [int(word) for word in text.split(",")], default=[4, 8, 16])
    parser.add_argument("--n", type=int, default=24, help="plain samples a question")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        with tempfile.TemporaryDirectory(prefix="ponder-diverse-") as folder:
            print(json.dumps(asyncio.run(live(Path(folder), arguments))), flush=True)
        _leave()
    # vLLM keeps processes and prints as it likes: a process of its own.
    command = [sys.executable, "-m", "tests.benchmarks.diversified", "--run", *sys.argv[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the run failed:\n{done.stderr[-4000:]}")
    runs = json.loads(done.stdout.strip().splitlines()[-1])
    found = compared(runs, arguments.seed)
    if arguments.json:
        print(json.dumps(found))
    else:
        show(found, len(runs["plain"]))


if __name__ == "__main__":
    main()
