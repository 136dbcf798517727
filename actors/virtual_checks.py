"""What verifiers say of recorded samples, and what their checks cost: the verifiers' side of a virtual session.

Promises: a recorded score is said whatever the verifier's name, for nothing, where nobody tells better. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.recording import Columns
from pipeline.records import Verdict

NOTHING_RECORDED = "nothing recorded"


class Said(NamedTuple):
    """A verdict with what the check took. Samples of one question with one ``key`` are checked, and paid, as one."""

    verdict: Verdict
    key: Hashable


def recorded_score(columns: Columns, number: int, row: int, verifier: str, given: Sequence[str] = ()) -> Said:
    """The recorded score of the sample in ``row``, of question ``number``, whatever the verifier is ``given``."""
    score = math.nan if columns.score is None else columns.score.item(row)
    if math.isnan(score):
        return Said(Verdict(verifier, error=NOTHING_RECORDED), row)
    return Said(Verdict(verifier, score), row)


def _nothing(_: object) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Checking:
    """``says``: the verdict on a row of a question, by a verifier's name and what it is given. ``cost``: units for a
    check of so many tokens; ``worst``: the most one check by that verifier may take."""

    says: Callable[[Columns, int, int, str, Sequence[str]], Said] = recorded_score
    cost: Callable[[int], int] = _nothing
    worst: Callable[[str], int] = _nothing
