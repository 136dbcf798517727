"""Makes ``arithmetic.jsonl``, the example dataset: easy, contested and hopeless questions for a small model.

Promises: the same seed gives the same bytes on every machine. Owns ``arithmetic.jsonl`` beside it. Run it as
``python -m jobs.examples.make_arithmetic``.
"""

from __future__ import annotations

import json
import random
from itertools import product
from pathlib import Path

PATH = Path(__file__).with_name("arithmetic.jsonl")
SEED = 0
PER_FAMILY = 60

_DIGITS = range(1, 10)
_TWO_DIGITS = range(10, 100)


def make_rows(seed: int = SEED) -> list[dict[str, str]]:
    """300 unique questions, 60 a family, shuffled so that every shard holds all kinds."""
    rng = random.Random(seed)
    operands: dict[str, list[tuple[int, ...]]] = {
        "sum1": rng.sample(list(product(_DIGITS, _DIGITS)), PER_FAMILY),
        "product1": rng.sample(list(product(_DIGITS, _DIGITS)), PER_FAMILY),
        "sum2": rng.sample(list(product(_TWO_DIGITS, _TWO_DIGITS)), PER_FAMILY),
        "difference": rng.sample([(a, b) for a in range(1, 21) for b in range(1, a + 1)], PER_FAMILY),
        "sum3": _distinct_triples(rng),
    }
    rows = [_row(family, number, terms) for family, chosen in operands.items() for number, terms in enumerate(chosen)]
    rng.shuffle(rows)
    return rows


def _distinct_triples(rng: random.Random) -> list[tuple[int, ...]]:
    # Drawn one by one: the list of all 729,000 triples is not worth building.
    triples: dict[tuple[int, ...], None] = {}
    while len(triples) < PER_FAMILY:
        triples[tuple(rng.choice(_TWO_DIGITS) for _ in range(3))] = None
    return list(triples)


def _row(family: str, number: int, terms: tuple[int, ...]) -> dict[str, str]:
    if family == "product1":
        sign, gold = "*", terms[0] * terms[1]
    elif family == "difference":
        sign, gold = "-", terms[0] - terms[1]
    else:
        sign, gold = "+", sum(terms)
    question = f"What is {f' {sign} '.join(map(str, terms))}?"
    return {"question_id": f"{family}-{number:03d}", "family": family, "question": question, "gold": str(gold)}


def to_jsonl(rows: list[dict[str, str]]) -> str:
    """One JSON object a line, newline at the end."""
    return "".join(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    PATH.write_text(to_jsonl(make_rows()), encoding="utf-8", newline="\n")
