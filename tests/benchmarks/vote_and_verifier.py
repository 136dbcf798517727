"""A vote, a verifier, and both, at equal tokens with every check paid.

    python -m tests.benchmarks.vote_and_verifier [--repeats 10] [--seed 0] [--cost 20] [--json]

Whole strategies over ``../shared/data``, by the replay behind ``ponder compare``; intervals are 95%, over questions;
differences are paired with the vote at the same budget.

- *arithmetic*: 360 questions × 40 samples of the bundled model. The verifier is SIMULATED: of an answer it says whether
  it is right, and errs on a share of answers drawn by a hash, so that it errs alike on equal answers. A check takes
  ``--cost`` tokens (a sample has about 18). At errors of 0, .1 and .3.
- *Game of 24*: 100 puzzles × 100 samples of GPT-4, with the game's own checker: exact and free. Tokens are word counts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.compare_recorded import Budgets, compare_recorded
from pipeline.comparison_result import Comparison
from pipeline.records import Verdict, to_row
from pipeline.replay import Settings
from pipeline.strategy_files import Strategy, StrategyFile

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
CHECK = "check"
ERRORS = (0.0, 0.1, 0.3)
BUDGETS = {"arithmetic": [60.0, 100.0, 200.0], "Game of 24": [200.0, 500.0, 1000.0, 2000.0]}
"""Means a question, in tokens."""


def strategies(error: float, most: int) -> list[Strategy]:
    """The vote first: others are held against it. ``error``: what the verifier is known to err on."""
    vote: dict[str, Any] = {"kind": "self_consistency", "max_samples": most}
    given: dict[str, dict[str, Any]] = {
        "vote": vote,
        "vote, a pass settles": {**vote, "verifier": CHECK},
        "vote weighed by score": {**vote, "verifier": CHECK, "verify": "weigh", "pass_score": 1.0},
        "best of N, stop at a pass": {"kind": "best_of_n", "score": CHECK, "stop": "pass", "max_samples": most},
    }
    if error:
        # A verifier that errs is never sure: what it says of a good answer is taken for a pass.
        for name in ("vote, a pass settles", "best of N, stop at a pass"):
            given[name]["pass_score"] = 1.0 - error
    return [Strategy(name, name, StrategyFile.model_validate({"strategy": one})) for name, one in given.items()]


def says(question: str, answer: str | None, gold: str, error: float, cost: int) -> Verdict:
    """The simulated verifier: right on all but a share ``error`` of answers, and as sure as it is right."""
    draw = int.from_bytes(hashlib.sha256(f"{question}/{answer}".encode()).digest()[:8]) / 2**64
    passed = (answer == gold) != (draw < error)
    return Verdict(CHECK, 1.0 - error if passed else error, tokens=cost)


def arithmetic(folder: Path, error: float, cost: int) -> str:
    """The recorded samples with the verifier's verdicts beside them."""
    names = ["question_id", "sample_index", "answer", "gold", "completion_tokens", "token_logprobs"]
    table = pq.read_table(DATA / "smollm2_arithmetic_360x40.parquet", columns=names)
    rows = zip(*(table[name].to_pylist() for name in ("question_id", "answer", "gold")), strict=True)
    said = [[to_row(says(question, answer, gold, error, cost))] for question, answer, gold in rows]
    path = folder / f"arithmetic-{error}.parquet"
    pq.write_table(table.append_column("verdicts", pa.array(said)), path)
    return str(path)


def game24(folder: Path) -> str:
    table = pq.read_table(DATA / "game24_gpt4_cot_100x100.parquet")
    said = [[to_row(Verdict(CHECK, float(passed)))] for passed in table["passed"].to_pylist()]
    path = folder / "game24.parquet"
    pq.write_table(table.append_column("verdicts", pa.array(said)), path)
    return str(path)


def measure(repeats: int, seed: int, cost: int) -> dict[str, dict[str, Any]]:
    settings = Settings(repeats=repeats, seed=seed)
    found: dict[str, dict[str, Any]] = {}

    def compared(name: str, source: str, roles: dict[str, str], error: float, most: int) -> None:
        budgets = Budgets(BUDGETS[name.split(",")[0]], in_tokens=True)
        result: Comparison = compare_recorded(
            source, roles, strategies(error, most), budgets, [], settings, lambda strategy, budget: None
        )
        found[name] = result.as_json()

    with tempfile.TemporaryDirectory(prefix="ponder-verify-") as made:
        folder = Path(made)
        roles = {"item_id": "question_id", "reference": "gold"}
        for error in ERRORS:
            compared(f"arithmetic, verifier errs on {error:.0%}", arithmetic(folder, error, cost), roles, error, 40)
        compared("Game of 24", game24(folder), {"score": "passed"}, 0.0, 100)
    return found


def show(found: dict[str, dict[str, Any]]) -> None:
    for name, result in found.items():
        print(f"{name}: accuracy in %, of {result['questions']} questions")
        print("  tokens a question  strategy                     accuracy  against the vote       checking  samples")
        for row in result["rows"]:
            gap = ""
            if row["difference"] is not None:
                low, high = row["difference_interval"]
                gap = f"{100 * row['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            print(
                f"  {row['budget']:>17,.0f}  {row['strategy']:<27}  {100 * row['accuracy']:8.1f}  {gap:<21}  "
                f"{row['verification']:8.1f}  {row['samples']:7.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cost", type=int, default=20, help="tokens a simulated check takes")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: the recorded samples are not at {DATA}", file=sys.stderr)
        return
    found = measure(arguments.repeats, arguments.seed, arguments.cost)
    print(json.dumps(found)) if arguments.json else show(found)


if __name__ == "__main__":
    main()
