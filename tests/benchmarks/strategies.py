"""Which strategy when: the shipped strategy files over recorded samples, at equal tokens, checks included.

    python -m tests.benchmarks.strategies [--repeats 10] [--seed 0] [--plot FOLDER] [--json]

What ``ponder compare`` does with ``jobs/examples/strategies`` over ``../shared/data``: 360 arithmetic questions × 40
samples of the bundled model, where nothing can be checked, and 100 Games of 24 × 100 samples of GPT-4 with the game's
own checker, which is free. ``--plot`` draws ``strategies-unchecked.png`` and ``strategies-checked.png`` into a folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from pipeline.compare_recorded import Budgets, compare_recorded
from pipeline.comparison_result import Comparison
from pipeline.comparison_view import picture, table
from pipeline.replay import Settings
from pipeline.strategy_files import load_strategies
from tests.benchmarks.vote_and_verifier import DATA, game24

FILES = Path(__file__).resolve().parents[2] / "jobs" / "examples" / "strategies"
UNCHECKED = ("vote", "plain_vote", "best_of_n", "adaptive")
CHECKED = ("retire_on_pass", "vote_and_check", "vote")
TOKENS = {"unchecked": [40.0, 60.0, 100.0, 160.0, 240.0], "checked": [200.0, 500.0, 1000.0, 2000.0]}


def measure(repeats: int, seed: int) -> dict[str, Comparison]:
    settings = Settings(repeats=repeats, seed=seed)

    def compared(name: str, source: str, roles: dict[str, str], strategies: tuple[str, ...]) -> Comparison:
        files = load_strategies(",".join(str(FILES / f"{one}.yaml") for one in strategies))
        budgets = Budgets(TOKENS[name], in_tokens=True)
        return compare_recorded(source, roles, files, budgets, [0.49], settings, lambda strategy, budget: None)

    with tempfile.TemporaryDirectory(prefix="ponder-strategies-") as folder:
        arithmetic = str(DATA / "smollm2_arithmetic_360x40.parquet")
        return {
            "unchecked": compared("unchecked", arithmetic, {"item_id": "question_id", "reference": "gold"}, UNCHECKED),
            "checked": compared("checked", game24(Path(folder)), {"score": "passed"}, CHECKED),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="a folder for the pictures")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: the recorded samples are not at {DATA}", file=sys.stderr)
        return
    found = measure(arguments.repeats, arguments.seed)
    for name, comparison in found.items():
        if arguments.plot is not None:
            (arguments.plot / f"strategies-{name}.png").write_bytes(picture(comparison))
        if not arguments.json:
            print(f"{name}\n{table(comparison)}\n")
    if arguments.json:
        print(json.dumps({name: comparison.as_json() for name, comparison in found.items()}))


if __name__ == "__main__":
    main()
