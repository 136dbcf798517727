"""``adaptive`` against each of its arms alone, at equal budgets; further models are SIMULATED.

    python -m tests.benchmarks.adaptive [--json] [--repeats 5] [--seed 0] [--copies 1]
        [--only "NAME;…"]

Reads ``../shared/data``: 360 arithmetic questions × 40 samples of the bundled model (right by the reference, which no
strategy sees), and 100 Games of 24 × 100 samples of GPT-4 (right by ``passed``, which is the arms' verifier too). Every
strategy has the same budget of tokens for the whole dataset, spent by the live market in virtual time; questions come
in a dozen shards, so that the later ones can know what the first ones taught. ``--copies``: the questions so many times
over, each copy drawn in another order and asked of simulated models anew; what learning costs is then paid once.

There is one recorded model. One sample of a *simulated* one (``adaptive_replay.Model``) costs several recorded samples
and gives the answer of the first, but for a share of questions that it knows, or that it answers wrongly and surely:

- *large*: costs 4, knows half of the questions: by far the best arm, once a budget can pay it
- *dear*: costs 8, knows a tenth: worse than a vote of as many tokens
- *sure*: costs 1, says the same wrong thing on half of the questions: what agreement is fooled by

Behind: (adaptive − the best arm) / the best arm, the best of each budget chosen after the fact; 95% intervals from
resampling questions, the best arm chosen anew in each. The goal is never more than 10% behind.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from strategies.adaptive import Adaptive, Candidate
from strategies.arms import Arm
from strategies.base import Strategy
from strategies.best_of_n import BestOfN
from strategies.self_consistency import SelfConsistency
from tests.benchmarks.adaptive_replay import Alone, Data, Model, Outcome, Simulating, arithmetic, game24, spend
from tests.benchmarks.best_of_n_replay import DATA

GOAL = -0.10
BOOTSTRAPS = 1000

LARGE, DEAR, SURE = Model("large", size=4, knows=0.5), Model("dear", size=8, knows=0.1), Model("sure", wrong=0.5)
MODELS = (LARGE, DEAR, SURE)


def _voting(name: str, most: int, model: str = "") -> Candidate:
    return Candidate(Arm(name, model=model), SelfConsistency(max_samples=most))


def _trying(name: str, most: int, model: str = "") -> Candidate:
    return Candidate(Arm(name, model=model), BestOfN("recorded", stop="pass", max_samples=most))


# What all arms draw together fits into a question's recorded pool.
VOTE, BEST = _voting("vote", 16), Candidate(Arm("best_of_n"), BestOfN(max_samples=16))
TRIES = _trying("tries", 40)


@dataclass(frozen=True)
class Scenario:
    """Arms, and mean tokens a question."""

    data: str
    arms: tuple[Candidate, ...]
    budgets: tuple[float, ...]
    verifier: str | None = None

    def adaptive(self) -> Strategy:
        return Simulating(Adaptive(self.arms, verifier=self.verifier), MODELS)


MEANS = (40.0, 70.0, 100.0, 150.0, 200.0)
"""Two to ten recorded samples."""
GAMES = (300.0, 600.0, 1200.0, 2400.0)
SCENARIOS = {
    "vote, best_of_n": Scenario("arithmetic", (VOTE, BEST), MEANS),
    "vote, large": Scenario("arithmetic", (VOTE, _voting("large", 6, "large")), MEANS),
    "vote, dear": Scenario("arithmetic", (VOTE, _voting("dear", 3, "dear")), MEANS),
    "vote, sure": Scenario("arithmetic", (VOTE, _voting("sure", 16, "sure")), MEANS),
    "games: tries, vote": Scenario("games", (TRIES, _voting("vote", 40)), GAMES, "recorded"),
    "games: tries, large": Scenario("games", (TRIES, _trying("large", 10, "large")), GAMES, "recorded"),
    "games: tries, dear": Scenario("games", (TRIES, _trying("dear", 5, "dear")), GAMES, "recorded"),
}


def compared(name: str, data: Data, repeats: int, seed: int) -> list[dict[str, Any]]:
    """A row a budget."""
    scenario = SCENARIOS[name]
    rows = []
    for budget in scenario.budgets:
        alone = {one.name: spend(data, Simulating(Alone(one), MODELS), budget, repeats, seed) for one in scenario.arms}
        found = spend(data, scenario.adaptive(), budget, repeats, seed)
        means = {arm: float(outcome.right.mean()) for arm, outcome in alone.items()}
        best = max(means, key=lambda arm: means[arm])
        behind, low, high = _behind(data, found, list(alone.values()), seed)
        rows.append(
            {
                "scenario": name,
                "tokens": budget,
                "alone": {arm: round(100.0 * mean, 2) for arm, mean in means.items()},
                "best": best,
                "adaptive": round(100.0 * float(found.right.mean()), 2),
                "spent": round(float(found.tokens.mean()), 1),
                "behind": round(behind, 4),
                "interval": [round(low, 4), round(high, 4)],
                "answered_by": {arm: count / found.by.size for arm, count in Counter(found.by.ravel()).most_common()},
            }
        )
    return rows


def _behind(data: Data, found: Outcome, alone: list[Outcome], seed: int) -> tuple[float, float, float]:
    """The relative share, and its interval; copies of a question are resampled together."""

    def by_question(outcome: Outcome) -> np.ndarray:
        return outcome.right.mean(axis=0).reshape(data.copies, -1).mean(axis=0)

    ours, theirs = by_question(found), np.array([by_question(outcome) for outcome in alone])

    def share(who: np.ndarray) -> float:
        best = float(theirs[:, who].mean(axis=1).max())
        return float(ours[who].mean()) / best - 1.0

    rng, everyone = np.random.default_rng(seed), np.arange(len(ours))
    again = [share(rng.integers(0, len(ours), len(ours))) for _ in range(BOOTSTRAPS)]
    low, high = np.percentile(again, [2.5, 97.5])
    return share(everyone), float(low), float(high)


def show(rows: list[dict[str, Any]]) -> None:
    print("accuracy %, and how far adaptive is from the best arm alone at the same budget [95%]\n")
    for row in rows:
        alone = "  ".join(f"{arm} {mean:.1f}" for arm, mean in row["alone"].items())
        low, high = (100.0 * end for end in row["interval"])
        by = ", ".join(f"{arm} {100.0 * share:.0f}%" for arm, share in row["answered_by"].items())
        print(
            f"{row['scenario']:<20} {row['tokens']:>5.0f}  {alone:<28} adaptive {row['adaptive']:5.1f}  "
            f"{100.0 * row['behind']:+6.1f}% [{low:+.1f}, {high:+.1f}]  answered by {by}"
        )
    missed = [row for row in rows if row["behind"] < GOAL]
    worst = min(rows, key=lambda row: row["behind"])
    print(
        f"\nwithin 10% of the best arm: {len(rows) - len(missed)} of {len(rows)}; worst {100.0 * worst['behind']:+.1f}%"
    )
    for row in missed:
        print(f"  MISSED {row['scenario']} at {row['tokens']:g} tokens: {100.0 * row['behind']:+.1f}%")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--repeats", type=int, default=5, help="orders each question's samples are drawn in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--copies", type=int, default=1, help="how often each question stands in the dataset")
    parser.add_argument("--only", default=";".join(SCENARIOS), help="sets of arms, separated by ;")
    given = parser.parse_args()
    if given.repeats < 1 or given.copies < 1:
        parser.error("--repeats and --copies must be at least 1")
    names = given.only.split(";")
    if unknown := sorted(set(names).difference(SCENARIOS)):
        parser.error(f"--only {unknown[0]!r}: choose from {'; '.join(SCENARIOS)}")
    if not DATA.is_dir():
        print("skipped: no recorded samples at ../shared/data", file=sys.stderr)
        if given.json:
            print(json.dumps({"skipped": "no recorded samples"}))
        return 0
    with tempfile.TemporaryDirectory(prefix="ponder-adaptive-") as folder:
        sets = {"arithmetic": arithmetic(given.copies, Path(folder)), "games": game24(given.copies, Path(folder))}
        rows = [row for name in names for row in compared(name, sets[SCENARIOS[name].data], given.repeats, given.seed)]
        for data in sets.values():
            data.recording.close()
    if given.json:
        print(
            json.dumps({"repeats": given.repeats, "copies": given.copies, "seed": given.seed, "rows": rows}, indent=2)
        )
    else:
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
