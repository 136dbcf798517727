"""DeepConf against a vote of as many whole traces on the same questions: tokens generated, and answers right.

    python -m tests.benchmarks.deep_conf recorded [--repeats 10] [--json]     needs ../shared/data
    python -m tests.benchmarks.deep_conf record TRACES.parquet [--questions 20] [--n 20]
    python -m tests.benchmarks.deep_conf recorded TRACES.parquet --warmup 8 --groups 8,16,32
    python -m tests.benchmarks.deep_conf live [--questions 20] [--n 20] [--keep 90,10] [--save ROWS.json] [--json]
    python -m tests.benchmarks.deep_conf pooled ROWS.json …                   several live runs as one

*recorded*: whole traces whose every token's confidence is known, cut where an engine would have cut them: every way to
vote sees the same traces, reshuffled. Without a file, those of the bundled model in ../shared/data, whose answers are
about 18 tokens long; *record* makes others, of sums that are talked through and worked out twice, about 80 tokens long.
*live*: the same sums through a worker's whole inside; a run a way of voting, each in a process of its own, with traces
of its own, and tokens are those of the samples that were paid for, real aborts included. Every question DeepConf
settles early runs on to the cap too (the audit), so that one run shows both what cutting alone saves and what it saves
with the consensus stop.

Intervals are 95%, over questions; p is of the paired difference in right answers (``pipeline.comparison``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from budgets.evidence import AUTO, Evidence
from budgets.stopping import FixedN
from pipeline.comparison import Floats, Resamples
from pipeline.records import Item, Sample
from pipeline.spec import JobSpec, parse
from strategies.base import Draw, Strategy
from strategies.deep_conf import DeepConf
from strategies.self_consistency import SelfConsistency
from tests.benchmarks.deep_conf_recorded import DATA, Question, course, load, orders, record
from tests.benchmarks.throughput import _leave

KEEPS = (10.0, 50.0, 90.0)
AUDIT = 1.0 - 1e-9
"""As good as every question; a job's audit is a part of them."""

Row = dict[str, Any]


# -- recorded --------------------------------------------------------------------------------------------------------


def recorded(path: Path, warmup: int, groups: Sequence[int], repeats: int, seed: int) -> list[Row]:
    """Every group size and share kept, with and without the consensus stop, against a weighted vote of all traces."""
    questions = load(path)
    shuffles = orders(questions, repeats, seed)
    pool = min(len(question.traces) for question in questions)
    base = _courses(SelfConsistency(max_samples=pool, rule=FixedN(pool)), questions, shuffles, warmup)
    rows = [_compared(f"vote of {pool}, weighted", base, base, seed)]
    for name, evidence in (("", AUTO), (", votes count alike", Evidence("votes"))):
        vote = SelfConsistency(max_samples=pool, evidence=evidence)
        found = _courses(vote, questions, shuffles, warmup)
        rows.append(_compared(f"adaptive consistency .95{name}", found, base, seed))
    for group in groups:
        for keep in KEEPS:
            strategy = DeepConf(warmup, keep, max_samples=pool, group=group)
            for name, one in ((", to the cap", strategy.unstopped()), ("", strategy)):
                found = _courses(one, questions, shuffles, warmup)
                rows.append(_compared(f"deep_conf group {group} keep {keep:g}{name}", found, base, seed))
    return rows


def _courses(
    strategy: Strategy, questions: Sequence[Question], shuffles: list[list[list[int]]], warmup: int = 0
) -> dict[str, Floats]:
    """By question, means over the repeats."""
    runs = [
        [course(strategy, question, order, warmup) for question, order in zip(questions, each, strict=True)]
        for each in shuffles
    ]
    names = ("right", "tokens", "traces", "cut", "cut_tokens")
    return {name: np.array([[getattr(one, name) for one in run] for run in runs], float).mean(axis=0) for name in names}


# -- live ------------------------------------------------------------------------------------------------------------


SHOTS = ((7, 5), (3, 4), (8, 6), (2, 9), (5, 5), (6, 3))


def sums(count: int, seed: int) -> list[Row]:
    """Sums of two numbers, a third each of one digit, of up to 19 and of up to 39; six worked ones before each."""
    rng = random.Random(seed)
    head = "".join(f"{_asked(*terms)} {_worked(*terms)}\n\n" for terms in SHOTS)
    rows = []
    for number in range(count):
        most = (9, 19, 39)[number % 3]
        terms = rng.randint(2, most), rng.randint(2, most)
        rows.append({"id": f"sum-{seed}-{number:03d}", "prompt": head + _asked(*terms), "gold": str(sum(terms))})
    return rows


def _asked(a: int, b: int) -> str:
    return f"Question: What is {a} + {b}?\nAnswer:"


def _worked(a: int, b: int) -> str:
    """About 80 tokens, as long as the bundled model can be led to reason and still be right more often than not."""
    return (
        f"We want to know what we get when we add {a} and {b}. We write the sum down and work it out: "
        f"{a} + {b} = {a + b}. To be sure we turn it around and work it out again: {b} + {a} = {a + b}. "
        f"Both ways give the same, so it is right. The answer is {a + b}."
    )


def sections(way: str, n: int, warmup: int, group: int) -> Row:
    """The strategy and audit of a job, of one way to vote."""
    if way == "whole":
        vote = {"kind": "self_consistency", "rule": f"fixed:{n}", "min_samples": n, "max_samples": n}
        return {"strategy": vote, "budget": {"tokens": 10**9}}
    deep = {"kind": "deep_conf", "keep": float(way), "warmup": warmup, "min_samples": warmup}
    return {"strategy": deep | {"group": group, "max_samples": n}, "budget": {"tokens": 10**9, "audit": AUDIT}}


def job(arguments: argparse.Namespace, folder: str) -> tuple[JobSpec, list[Row]]:
    """The job of one way to vote, and its questions."""
    questions = sums(arguments.questions, arguments.seed)
    data = Path(folder, "questions.jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in questions))
    return parse(
        {
            "dataset": {"path": str(data), "id": "id", "reference": "gold"},
            "model": {"max_model_len": 1024, "max_num_seqs": arguments.slots},
            "sampling": {"temperature": arguments.temperature, "max_tokens": 160, "stop": ["\n"], "logprobs": 20},
            "cluster": {"workers": arguments.share},
            "output": f"{folder}/run",
            **sections(arguments.way, arguments.n, arguments.warmup, arguments.group),
        }
    ), questions


async def live(spec: JobSpec, questions: list[Row], warming: Draw) -> list[Row]:
    """One run: by question what was answered at the stop and at the cap, and every sample paid for."""
    from actors.engines import start_engine
    from actors.judge import RuleJudge
    from actors.recovery import restore_market
    from actors.station import Station
    from actors.ways import Ways
    from pipeline.driver import prepare
    from pipeline.run import open_run

    engine = await start_engine(spec)
    prepared = prepare(spec)
    market = restore_market(prepared.store, spec.budget.tokens, prepared.shards)

    async def sync(report: Any) -> Any:
        return market.sync(report)

    shards = {shard.shard_id: shard for shard in prepared.shards}
    await Station(spec, shards, engine, prepared.store, RuleJudge(spec), "bench").run(sync)
    run = open_run(spec.output)
    samples = run.samples().to_table().to_pylist()
    keys = {
        row["id"]: Ways(spec, Item(row["id"], prompt=row["prompt"]), lambda item, _: engine.prepare(item))
        .of(warming)
        .key
        for row in questions
    }
    await engine.close()
    return [_row(answer, samples, keys[answer["item_id"]]) for answer in run.answers().to_table().to_pylist()]


def _row(answer: Row, samples: list[Row], warming: str) -> Row:
    """``warming``: the prompt key of whole traces of DeepConf."""
    kept = ("sample_index", "answer", "completion_tokens", "mean_logprob", "min_group_confidence", "finish_reason")
    own = [sample for sample in samples if sample["item_id"] == answer["item_id"]]
    # In the order of drawing: the warm-up, then what was watched.
    own.sort(key=lambda sample: (sample["prompt_key"] != warming, sample["sample_index"]))
    drawn = [{name: sample[name] for name in kept} for sample in own]
    stopped = answer["samples"] - answer["audit_samples"]
    ran_on = answer["flipped"] is not None
    return {
        "id": answer["item_id"],
        "gold": answer["reference"],
        "stopped": stopped,
        "right": answer["answer"] == answer["reference"],
        "right_at_cap": (answer["audit_answer"] if ran_on else answer["answer"]) == answer["reference"],
        "samples": drawn,
    }


def measured(rows: list[Row], at_cap: bool) -> dict[str, Floats]:
    """By question, in the order of ids: what was right and what was generated, up to the stop or to the cap."""
    rows = sorted(rows, key=lambda row: row["id"])
    drawn = [row["samples"] if at_cap else row["samples"][: row["stopped"]] for row in rows]
    cut = [[sample for sample in each if sample["finish_reason"] == "cut"] for each in drawn]
    return {
        "right": np.array([row["right_at_cap" if at_cap else "right"] for row in rows], float),
        "tokens": np.array([_tokens(each) for each in drawn], float),
        "traces": np.array([len(each) for each in drawn], float),
        "cut": np.array([len(each) for each in cut], float),
        "cut_tokens": np.array([_tokens(each) for each in cut], float),
    }


def adaptive(rows: list[Row]) -> dict[str, Floats]:
    """What adaptive consistency would have made of the whole traces that were drawn."""
    rows = sorted(rows, key=lambda row: row["id"])
    questions = [
        Question(
            row["id"], row["gold"], [Sample(row["id"], prompt_key="", text="", **one) for one in row["samples"]], []
        )
        for row in rows
    ]
    shuffles = [[list(range(len(question.traces))) for question in questions]]
    return _courses(SelfConsistency(), questions, shuffles)


def _tokens(samples: list[Row]) -> int:
    return sum(sample["completion_tokens"] for sample in samples)


def compared(runs: dict[str, list[Row]], seed: int) -> list[Row]:
    """Every way against the vote of whole traces."""
    base = measured(runs["whole"], at_cap=True)
    rows = [_compared("vote of whole traces, weighted", base, base, seed)]
    rows.append(_compared("adaptive consistency .95, of the same traces", adaptive(runs["whole"]), base, seed))
    for way in (way for way in runs if way != "whole"):
        rows.append(_compared(f"deep_conf keep {way}, to the cap", measured(runs[way], at_cap=True), base, seed))
        rows.append(_compared(f"deep_conf keep {way}", measured(runs[way], at_cap=False), base, seed))
    return rows


# -- both ------------------------------------------------------------------------------------------------------------


def _compared(name: str, found: dict[str, Floats], base: dict[str, Floats], seed: int) -> Row:
    again = Resamples(len(base["right"]), seed)
    means = again.means(found["tokens"], base["tokens"])
    difference = again.difference(base["right"], found["right"])
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975])
    cut, whole = found["cut"].sum(), (found["traces"] - found["cut"]).sum()
    return {
        "name": name,
        "accuracy": 100.0 * float(found["right"].mean()),
        "difference": 100.0 * difference.mean,
        "difference_interval": [100.0 * end for end in difference.interval],
        "p": difference.p,
        "tokens": float(found["tokens"].mean()),
        "ratio": float(found["tokens"].sum() / base["tokens"].sum()),
        "ratio_interval": [float(low), float(high)],
        "traces": float(found["traces"].mean()),
        "cut": float(cut / (cut + whole)),
        "tokens_cut": float(found["cut_tokens"].sum() / cut) if cut else None,
        "tokens_whole": float((found["tokens"] - found["cut_tokens"]).sum() / whole),
    }


def shown(rows: list[Row]) -> str:
    heads = (
        ("right", 6),
        ("difference", 22),
        ("p", 6),
        ("tokens", 7),
        ("ratio", 20),
        ("cut", 5),
        ("at", 5),
        ("whole", 6),
    )
    lines = [f"{'':44} " + " ".join(f"{head:>{width}}" for head, width in heads)]
    for row in rows:
        low, high = row["difference_interval"]
        least, most = row["ratio_interval"]
        at = f"{row['tokens_cut']:.0f}" if row["tokens_cut"] is not None else "-"
        lines.append(
            f"{row['name']:44} {row['accuracy']:6.2f} {row['difference']:+6.2f} ({low:+6.2f} {high:+6.2f}) "
            f"{row['p']:6.3f} {row['tokens']:7.0f} {row['ratio']:6.3f} ({least:.3f}–{most:.3f}) {row['cut']:5.0%} "
            f"{at:>5} {row['tokens_whole']:6.1f}"
        )
    return "\n".join(lines)


def in_a_process(way: str, arguments: argparse.Namespace) -> list[Row]:
    """The rows of one way to vote, from a fresh process."""
    options = [
        f"--{name}={getattr(arguments, name)}"
        for name in ("questions", "n", "warmup", "group", "temperature", "slots", "share", "seed")
    ]
    command = [sys.executable, "-m", "tests.benchmarks.deep_conf", "live", "--way", way, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stderr[-4000:]}")
    rows: list[Row] = json.loads(done.stdout.strip().splitlines()[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["recorded", "record", "live", "pooled"])
    parser.add_argument("files", nargs="*", help="traces; pooled: what live runs of other seeds saved")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--warmup", type=int, help="default: 16 recorded, 8 live")
    parser.add_argument("--groups", default="4,8,16", help="recorded: group sizes")
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--keep", default="90,10")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument(
        "--share", type=int, default=1, help="how many the machine's cores are shared by: fewer threads"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", help="live: a file for the rows")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.warmup = arguments.warmup or (16 if arguments.what == "recorded" else 8)
    if arguments.way:
        with tempfile.TemporaryDirectory() as folder:
            rows = asyncio.run(live(*job(arguments, folder), Draw(group=arguments.group)))
            print(json.dumps(rows), flush=True)
        _leave()
    if arguments.what == "record":
        arguments.way = "whole"
        with tempfile.TemporaryDirectory() as folder:
            record(*job(arguments, folder), arguments.n, Path(arguments.files[0]))
        _leave()
    if arguments.what == "recorded":
        path = Path(arguments.files[0]) if arguments.files else DATA
        if not path.exists():
            raise SystemExit(f"{path} is not there: recorded traces are needed")
        groups = [int(word) for word in arguments.groups.split(",")]
        found = recorded(path, arguments.warmup, groups, arguments.repeats, arguments.seed)
    else:
        if arguments.what == "live":
            runs = {}
            for way in ("whole", *arguments.keep.split(",")):
                runs[way] = in_a_process(way, arguments)
                if arguments.save:
                    Path(arguments.save).write_text(json.dumps(runs))
        else:
            loaded = [json.loads(Path(path).read_text()) for path in arguments.files]
            runs = {way: [row for one in loaded for row in one[way]] for way in loaded[0]}
        found = compared(runs, arguments.seed)
        lengths = [one["completion_tokens"] for row in runs["whole"] for one in row["samples"]]
        if not arguments.json:
            print(
                f"{len(runs['whole'])} questions; a whole trace has a median of {statistics.median(lengths):.0f} tokens"
            )
    print(json.dumps(found) if arguments.json else shown(found))


if __name__ == "__main__":
    main()
