"""The committed example dataset is what its script makes."""

from __future__ import annotations

import json
from collections import Counter

from jobs.examples.make_arithmetic import PATH, make_rows, to_jsonl


def test_the_committed_file_is_what_the_script_makes() -> None:
    assert PATH.read_bytes() == to_jsonl(make_rows()).encode()


def test_the_questions_are_unique_and_mixed() -> None:
    rows = [json.loads(line) for line in PATH.read_text(encoding="utf-8").splitlines()]
    assert len({row["question_id"] for row in rows}) == len({row["question"] for row in rows}) == len(rows) == 300
    assert Counter(row["family"] for row in rows) == dict.fromkeys(
        ["sum1", "product1", "sum2", "difference", "sum3"], 60
    )
    assert len({row["family"] for row in rows[:20]}) == 5


def test_the_gold_answers_are_right() -> None:
    signs = {"+": 1, "-": -1}
    for row in make_rows():
        first, *rest = row["question"].removeprefix("What is ").removesuffix("?").split()
        value = int(first)
        for sign, term in zip(rest[::2], rest[1::2], strict=True):
            value = value * int(term) if sign == "*" else value + signs[sign] * int(term)
        assert row["gold"] == str(value)
        assert value >= 0


def test_another_seed_gives_other_questions() -> None:
    assert make_rows(1) != make_rows()
