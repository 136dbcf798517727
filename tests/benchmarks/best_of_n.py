"""Best-of-N on recorded samples: Pandora's stop, retiring on a pass, and the selection rules.

    python -m tests.benchmarks.best_of_n [--repeats 20] [--seed 0] [--json]

Reads ``../shared/data``: 360 arithmetic questions × 40 samples of the bundled model, whose reward is the model's own
confidence, and 100 Games of 24 × 100 samples of GPT-4, whose reward is ``passed``. Every repeat draws in another order,
the same for both sides of a comparison; intervals come from resampling questions. Draws are without replacement, so
everything agrees at the size of the pool. Reports

- (a) Pandora's stop against a fixed N at equal mean best reward: target at least 15% fewer samples. Cost and prior are
  chosen on one half of the questions and reported on the other; a fixed N between whole numbers is interpolated
- (b) a market of questions that retire on a pass against the same N for all: puzzles solved at equal budgets; target
  never fewer
- (c) every selection rule at equal N, against majority vote and the oracle (pass@N)
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from budgets.evidence import Evidence
from budgets.stopping import FixedN
from strategies.best_of_n import BestOfN
from strategies.scored import Selection
from strategies.self_consistency import SelfConsistency
from tests.benchmarks.best_of_n_replay import (
    DATA,
    Data,
    Outcome,
    alone,
    best_of_first,
    first_n,
    game24,
    grid,
    interval,
    market,
    ratio_interval,
    samples_for,
    smollm2,
    uniform_passes,
)

FIXED = {"SmolLM2 arithmetic": (2, 3, 4, 6, 8, 12, 16), "Game of 24": (5, 10, 20, 40, 80)}
TARGET = 0.85
COSTS = tuple(0.1 * 0.7**step for step in range(14))
COUNTS = (2.0, 8.0, 32.0)
CHOOSING_REPEATS = 4
BUDGETS = (2, 5, 10, 20, 40, 80)
SELECTION_SIZES = (4, 8, 16, 32)
RULES: tuple[Selection, ...] = ("argmax", "weighted", "soft", "pessimistic", "majority_of_the_bests")
STRENGTHS = (0.01, 0.03, 0.1)


def pandora(data: Data, repeats: int, seed: int) -> list[dict[str, Any]]:
    """(a): for each N and each half of the questions."""
    curves, hints = best_of_first(data, repeats, seed), best_of_first(data, CHOOSING_REPEATS, seed + 1)
    found = []
    for fold in (0, 1):
        chosen_on, reported_on = data.fold == fold, data.fold != fold
        rewards = data.rewards[chosen_on]
        mean, spread = float(rewards.mean()), float(rewards.std())
        # As spread as all scores of the half are, and as those of one question are on average.
        within = float(rewards.std(axis=1).mean())
        tried = []
        for setting in grid(((mean, spread), (mean, within)), COUNTS, COSTS):
            strategy = replace(setting, score=data.score, max_samples=data.pool)
            outcome = alone(data, strategy, CHOOSING_REPEATS, seed + 1)
            tried.append((strategy, *_means(outcome, chosen_on)))
        for n in FIXED[data.name]:
            goal = float(hints[chosen_on, n - 1].mean())
            enough = [one for one in tried if one[2] >= goal]
            if not enough:
                continue
            strategy = min(enough, key=lambda one: one[1])[0]
            outcome = alone(data, strategy, repeats, seed)
            found.append({"fold": 1 - fold, "n": n, **_compared(data, curves, outcome, reported_on, n, seed)})
            found[-1]["setting"] = _shown(strategy)
    return found


def _means(outcome: Outcome, who: np.ndarray) -> tuple[float, float]:
    return float(outcome.samples[:, who].mean()), float(outcome.rewards[:, who].mean())


def _shown(strategy: BestOfN) -> dict[str, float]:
    names = ("cost_per_sample", "prior_mean", "prior_spread", "prior_samples")
    return {name: round(getattr(strategy, name), 5) for name in names}


def _compared(data: Data, curves: np.ndarray, outcome: Outcome, who: np.ndarray, n: int, seed: int) -> dict[str, Any]:
    samples, rewards = outcome.samples[:, who].mean(axis=0), outcome.rewards[:, who].mean(axis=0)
    fixed = curves[who]
    needs = samples_for(fixed.mean(axis=0), float(rewards.mean()))
    gap = rewards - fixed[:, n - 1]
    return {
        "samples": float(samples.mean()),
        "reward": float(rewards.mean()),
        "reward_of_fixed": float(fixed[:, n - 1].mean()),
        "reward_gap": float(gap.mean()),
        "reward_gap_interval": interval(gap, seed),
        "fixed_needs": needs,
        "ratio": float(samples.mean()) / needs,
        "ratio_interval": ratio_interval(fixed, samples, rewards, seed),
        "samples_of_n": float(samples.mean()) / n,
    }


def untuned(data: Data, repeats: int, seed: int) -> dict[str, Any]:
    """(a) with the shipped defaults, over all questions."""
    strategy = BestOfN(data.score, max_samples=data.pool)
    everyone = np.ones(len(data.fold), dtype=bool)
    compared = _compared(
        data, best_of_first(data, repeats, seed), alone(data, strategy, repeats, seed), everyone, 1, seed
    )
    return {name: compared[name] for name in ("samples", "reward", "fixed_needs", "ratio", "ratio_interval")}


def retiring(data: Data, repeats: int, seed: int) -> list[dict[str, Any]]:
    """(b): puzzles solved by the market, and by the same number for all."""
    strategy = BestOfN(data.score, stop="pass", max_samples=data.pool)
    found = []
    for budget in BUDGETS:
        outcome = market(data, strategy, budget, repeats, seed)
        uniform = uniform_passes(data, budget, repeats, seed)
        solved, same = outcome.rewards.sum(axis=1), uniform.sum(axis=1)
        gap = (outcome.rewards - uniform).mean(axis=0) * len(data.fold)
        found.append(
            {
                "budget": budget,
                "spent": float(outcome.samples.mean()),
                "solved": float(solved.mean()),
                "uniform": float(same.mean()),
                "gain": float(gap.mean()),
                "gain_interval": interval(gap, seed),
                "spread": float((solved - same).std()),
                "least_gain": float((solved - same).min()),
                "repeats_behind": int((solved < same).sum()),
            }
        )
    return found


def selecting(data: Data, repeats: int, seed: int) -> list[dict[str, Any]]:
    """(c): accuracy in points, paired against majority vote."""
    found = []
    for n in SELECTION_SIZES:
        vote = SelfConsistency(max_samples=n, rule=FixedN(n), evidence=Evidence("votes"))
        weighing = SelfConsistency(max_samples=n, rule=FixedN(n))
        graded = data.recording.has_reference
        base = alone(data, vote, repeats, seed).right if graded else _plain_vote(data, n, repeats, seed)
        rows: dict[str, np.ndarray] = {"majority vote": base, "oracle (pass@N)": _oracle(data, n, repeats, seed)}
        if graded:
            rows["self_consistency, evidence auto"] = alone(data, weighing, repeats, seed).right
        fixed = BestOfN(data.score, stop="fixed", max_samples=n)
        for rule in RULES:
            if rule in ("soft", "pessimistic"):
                for strength in STRENGTHS:
                    strategy = replace(fixed, selection=rule, softness=strength, pessimism=strength)
                    rows[f"{rule} {strength}"] = alone(data, strategy, repeats, seed).right
            else:
                rows[rule] = alone(data, replace(fixed, selection=rule), repeats, seed).right
        for name, right in rows.items():
            gap = 100.0 * (right - base).mean(axis=0)
            found.append(
                {"n": n, "rule": name, "accuracy": 100.0 * float(right.mean()), "against_vote": float(gap.mean()),
                 "interval": interval(gap, seed)}
            )  # fmt: skip
    return found


def _plain_vote(data: Data, n: int, repeats: int, seed: int) -> np.ndarray:
    """Without a reference, a vote is right where the first sample that gives the leading answer passed."""
    answers, rewards = first_n(data, n, repeats, seed)
    right = np.zeros(answers.shape[:2])
    for place in np.ndindex(*right.shape):
        codes = answers[place]
        valid = codes[codes >= 0]
        if len(valid):
            values, first, counts = np.unique(valid, return_index=True, return_counts=True)
            leader = max(range(len(values)), key=lambda at: (counts[at], -first[at]))
            right[place] = rewards[place][np.flatnonzero(codes == values[leader])[0]]
    return right


def _oracle(data: Data, n: int, repeats: int, seed: int) -> np.ndarray:
    answers, rewards = first_n(data, n, repeats, seed)
    if not data.recording.has_reference:
        return rewards.max(axis=2)
    gold = [data.columns.answers.index(one) if one in data.columns.answers else -2 for one in data.columns.references]
    return (answers == np.array(gold)[None, :, None]).any(axis=2).astype(float)


def show(result: dict[str, Any]) -> None:
    for name, rows in result["pandora"].items():
        print(f"(a) Pandora's stop, {name}: samples at equal mean best reward, chosen on the other half")
        print("  fold   N   reward of N  reward (gap, 95%)                samples  N at its reward  ratio (95%)")
        for row in rows:
            gap, ratio = row["reward_gap_interval"], row["ratio_interval"]
            print(
                f"  {row['fold']:>4} {row['n']:>3}   {row['reward_of_fixed']:11.4f}  {row['reward']:.4f} "
                f"({row['reward_gap']:+.4f}, {gap[0]:+.4f} to {gap[1]:+.4f})  {row['samples']:7.2f}  "
                f"{row['fixed_needs']:15.2f}  {row['ratio']:.3f} ({ratio[0]:.3f} to {ratio[1]:.3f})  {row['setting']}"
            )
        plain = result["untuned"][name]
        print(
            f"  shipped defaults, all questions: {plain['samples']:.2f} samples, reward {plain['reward']:.4f}, fixed N "
            f"needs {plain['fixed_needs']:.2f}, ratio {plain['ratio']:.3f} "
            f"({plain['ratio_interval'][0]:.3f} to {plain['ratio_interval'][1]:.3f})"
        )
    print("(b) Game of 24, puzzles of 100 solved: retiring on a pass in one market, against the same N for all")
    print("  mean budget  spent  solved  uniform  gain (95%)                spread  least  repeats behind")
    for row in result["retiring"]:
        low, high = row["gain_interval"]
        print(
            f"  {row['budget']:>11}  {row['spent']:5.2f}  {row['solved']:6.2f}  {row['uniform']:7.2f}  "
            f"{row['gain']:+5.2f} ({low:+.2f} to {high:+.2f})  {row['spread']:12.2f}  {row['least_gain']:+5.0f}  "
            f"{row['repeats_behind']:>6}"
        )
    for name, rows in result["selecting"].items():
        print(f"(c) Selection, {name}: accuracy in points, and against majority vote (95%)")
        for row in rows:
            low, high = row["interval"]
            print(
                f"  N {row['n']:>2}  {row['rule']:<32} {row['accuracy']:6.2f}  {row['against_vote']:+6.2f} "
                f"({low:+.2f} to {high:+.2f})"
            )
    missed = [name for name, met in result["targets"].items() if not met]
    print(f"targets met: {len(result['targets']) - len(missed)} of {len(result['targets'])}")
    for name in missed:
        print(f"  MISSED {name}")


def measure(repeats: int, seed: int) -> dict[str, Any]:
    sets = [smollm2(), game24()]
    result: dict[str, Any] = {
        "pandora": {data.name: pandora(data, repeats, seed) for data in sets},
        "untuned": {data.name: untuned(data, repeats, seed) for data in sets},
        "retiring": retiring(sets[1], repeats, seed),
        "selecting": {data.name: selecting(data, repeats, seed) for data in sets},
    }
    result["targets"] = {
        f"(a) {name}: ratio at most {TARGET} at N {row['n']}, half {row['fold']}": row["ratio"] <= TARGET
        for name, rows in result["pandora"].items()
        for row in rows
    }
    result["targets"]["(b) never fewer solved"] = not any(row["repeats_behind"] for row in result["retiring"])
    for data in sets:
        data.recording.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="best-of-N on recorded samples")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--repeats", type=int, default=20, help="orders each question's samples are drawn in")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error("--repeats must be at least 1")
    if not DATA.is_dir():
        print("skipped: ../shared/data is not there", file=sys.stderr)
        if arguments.json:
            print(json.dumps({"skipped": "no recorded samples"}))
        return
    result = measure(arguments.repeats, arguments.seed)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        show(result)


if __name__ == "__main__":
    main()
