"""Small recordings for tests: rows as a model might have left them, and files of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]


def make_rows(questions: int = 12, pool: int = 10, seed: int = 0, **extra: Any) -> list[Row]:
    """Questions of every difficulty: "right" with chance 0.9, 0.6 or 0.3, else one of three others or nothing."""
    rng = random.Random(seed)
    rows = []
    for number in range(questions):
        sure = (0.9, 0.6, 0.3)[number % 3]
        for index in range(pool):
            answer = "right" if rng.random() < sure else rng.choice(["x", "y", "z", None])
            rows.append(
                {
                    "item_id": f"q{number:03d}",
                    "sample_index": index,
                    "answer": answer,
                    "reference": "right",
                    "completion_tokens": rng.randint(1, 30),
                    "mean_logprob": -rng.random(),
                    **extra,
                }
            )
    return rows


def write_rows(path: Path, rows: list[Row], group: int | None = None, schema: Any = None) -> str:
    """The rows as Parquet; the path as text."""
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=group)
    return str(path)
