"""What the evidence benchmark measured, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def show(result: dict[str, Any], budgets: Sequence[int], slack: float) -> None:
    """Print it. ``budgets``: mean samples, the columns; ``slack``: points below fixed 40 that tokens are told for."""
    print(
        f"{result['questions']} questions × {result['pool']} samples, {result['repeats']} reshuffles; accuracies in %"
    )
    print("AUC within a question:", ", ".join(f"{name} {value}" for name, value in result["auc"].items()))
    print(f"\n{'evidence':18}{'draw':14}" + "".join(f"{n:>13}" for n in budgets))
    for row in result["accuracy"]:
        cells = [row.get(str(n)) for n in budgets]
        shown = [f"{c['accuracy']:.2f} ±{c['spread']:.2f}" if c else "–" for c in cells]
        print(f"{row['evidence']:18}{row['draw']:14}" + "".join(f"{cell:>13}" for cell in shown))
    for held in result["held_out"]:
        print(f"\nchosen on fold {held['chosen_on']}, reported on the other {held['questions']} questions")
        print(f"  plain {held['plain']}\n  weighted {held['weighted']}")
        print(f"  fixed 40: plain {held['fixed_40']:.2f}, weighted {held['fixed_40_weighted']['accuracy']:.2f}")
        for budget, cell in held["queue"].items():
            gain = cell["gain"]
            both = f"plain {cell['plain']['accuracy']:.2f}, weighted {cell['weighted']['accuracy']:.2f}"
            print(f"  queue at {budget:>2}: {both}, gain {interval(gain)}")
        for how, need in held["mean_tokens_needed"].items():
            print(f"  mean tokens for fixed 40 less {slack}, {how}: queue {need['queue']}, fixed {need['fixed']}")
    print(f"\n{'evidence':10}{'rule':38}{'samples':>9}{'accuracy':>10}{'queue':>8}  queue ahead")
    for row in result["rules"]:
        ahead = row["queue_ahead"]
        print(
            f"{row['evidence']:10}{row['rule']:38}{row['mean_samples']:9.2f}{row['accuracy']:10.2f}{row['queue']:8.2f}"
            f"  {interval(ahead)}"
        )
    print("\ncalibrated strength by fold:", result["calibrated_strength"])
    print("tally + rule + bid, microseconds a sample:", result["step_microseconds"])
    for check in result["targets"]:
        print(f"{'met   ' if check['met'] else 'MISSED'}  {check['target']}: {check['reached']}")


def interval(gap: dict[str, Any]) -> str:
    low, high = gap["interval"]
    return f"{gap['points']:+.2f} [{low:+.2f}, {high:+.2f}]"
