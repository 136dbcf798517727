"""What later verifiers say of a run's samples: ``verdicts/<verifier>/<shard>-<n>.parquet`` beside the committed files.

Promises: a sample has one row from a verifier, through crashes and racing commands, because part n of a shard is
written only by who has read the n parts before it; a verifier's name stands for one section for ever
(``verdicts/<verifier>/_verifier.json``). Parts are durable when ``append`` returns, and never rewritten. May not touch
what the run itself wrote.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import StoreError, UsageError
from pipeline.filesystem import Files
from pipeline.journal import decode, encode, in_parallel, read_json
from pipeline.records import Reviewed, Verdict, from_row, to_row

FOLDER = "verdicts"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PART = re.compile(rf"{FOLDER}/[^/]+/(?P<shard>\d+)-(?P<number>\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class Tally:
    """What one verifier says of a run, this command's and earlier ones' checks together.

    ``samples`` of the run could be checked, ``checked`` are, ``fresh`` of them by this command. ``passed`` have score
    1; ``mean_score`` is over those with a score; ``errors`` have none. ``questions_passed``: with a passing sample.
    """

    verifier: str
    samples: int
    checked: int
    fresh: int
    passed: int
    mean_score: float | None
    errors: int
    error: str | None
    tokens: int
    questions: int
    questions_passed: int


class Reviews:
    """One verifier's verdicts on one run."""

    def __init__(self, files: Files, verifier: str) -> None:
        """Raises UsageError where the verifier's name cannot name a folder."""
        if not _NAME.fullmatch(verifier):
            raise UsageError(
                f"verifier {verifier!r}: its name becomes a folder; set name to letters, digits, '.', '_' and '-'"
            )
        self._files, self.verifier = files, verifier

    def begin(self, section: dict[str, Any]) -> None:
        """Take the name for this section, or find that it has it.

        Raises:
            UsageError: another section's verdicts are filed under this name.
        """
        path = f"{FOLDER}/{self.verifier}/_verifier.json"
        if self._files.create(path, json.dumps(section, sort_keys=True).encode()):
            return
        found = read_json(self._files, path)
        if found != section:
            changed = sorted(name for name in {*found, *section} if found.get(name) != section.get(name))
            raise UsageError(
                f"verifier {self.verifier!r}: {self._files.url}/{path} holds another of that name, which differs "
                f"in {', '.join(changed)}; set name to one that is free"
            )

    def parts(self, shard_id: int) -> list[str]:
        """The shard's files, oldest first.

        Raises:
            StoreError: one is missing in between.
        """
        found = [path for path in self._paths() if int(_part(path)["shard"]) == shard_id]
        if [int(_part(path)["number"]) for path in found] != list(range(len(found))):
            raise StoreError(
                f"{self._files.url}/{FOLDER}/{self.verifier}: a part of shard {shard_id} is gone; restore it"
            )
        return found

    def read(self, parts: Sequence[str]) -> list[Reviewed]:
        """The rows of these files."""
        tables = in_parallel(lambda path: decode(self._files, path), list(parts))
        return [from_row(Reviewed, row) for table in tables for row in table.to_pylist()]

    def rows(self) -> Iterator[Reviewed]:
        """All rows, file by file."""
        for path in self._paths():
            yield from self.read([path])

    def append(self, shard_id: int, number: int, rows: Sequence[Reviewed]) -> bool:
        """Write part ``number``, which must be how many there are. False: another command wrote it first; read anew."""
        path = f"{FOLDER}/{self.verifier}/{shard_id:06d}-{number:06d}.parquet"
        return self._files.create(path, encode(Reviewed, rows, path))

    def _paths(self) -> list[str]:
        return sorted(path for path in self._files.list(f"{FOLDER}/{self.verifier}") if _PART.fullmatch(path))


def tally_of(review: Reviews, samples: int) -> Tally:
    """What is on record of one verifier. ``samples``: how many the run has to check."""
    scores: list[float] = []
    passed: set[str] = set()
    questions: set[str] = set()
    checked = errors = tokens = 0
    error = None
    for row in review.rows():
        checked += 1
        tokens += row.tokens
        questions.add(row.item_id)
        if row.score is None:
            errors, error = errors + 1, error or row.error
            continue
        scores.append(row.score)
        if row.score == 1.0:
            passed.add(row.item_id)
    return Tally(
        verifier=review.verifier,
        samples=samples,
        checked=checked,
        fresh=0,
        passed=sum(score == 1.0 for score in scores),
        mean_score=math.fsum(scores) / len(scores) if scores else None,
        errors=errors,
        error=error,
        tokens=tokens,
        questions=len(questions),
        questions_passed=len(passed),
    )


def reviewers(files: Files) -> dict[str, dict[str, Any]]:
    """Every later verifier of a run, by its name: the section it stands for. Raises StoreError."""
    paths = [path for path in files.list(FOLDER) if path.endswith("/_verifier.json")]
    return {path.split("/")[1]: read_json(files, path) for path in sorted(paths)}


def with_reviews(samples: Any, files: Files, shard_id: int, names: Iterable[str]) -> Any:
    """A table of one shard's samples whose ``verdicts`` hold what these later verifiers say too. Raises StoreError."""
    import pyarrow as pa

    said: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for name in names:
        review = Reviews(files, name)
        for row in review.read(review.parts(shard_id)):
            verdict = to_row(Verdict(row.verifier, row.score, row.error, row.tokens, row.detail))
            said.setdefault((row.item_id, row.prompt_key, row.sample_index), []).append(verdict)
    if not said:
        return samples
    own = samples["verdicts"].to_pylist()
    places = zip(*(samples[name].to_pylist() for name in ("item_id", "prompt_key", "sample_index")), strict=True)
    merged = [(verdicts or []) + said.get(place, []) for verdicts, place in zip(own, places, strict=True)]
    at = samples.schema.get_field_index("verdicts")
    field = samples.schema.field(at)
    return samples.set_column(at, field, pa.array(merged, field.type))


def reviewed_files(files: Files) -> list[str]:
    """All verdict files of a run, by every verifier."""
    return sorted(path for path in files.list(FOLDER) if _PART.fullmatch(path))


def _part(path: str) -> re.Match[str]:
    match = _PART.fullmatch(path)
    assert match is not None
    return match
