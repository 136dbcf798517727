"""The read side of a run: lazy Arrow datasets of exactly the committed files.

Promises: what a ``Run`` shows is one state of the directory, that of the moment it was opened, so that answers and
samples agree; open it again to see more. ``verdicts`` alone grows after a run. Reads only; loads neither
ray, torch nor vllm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.dataset

from pipeline.commits import KINDS, Commit
from pipeline.records import Reviewed, columns_of
from pipeline.reviews import reviewed_files
from pipeline.store import RunInfo, Store


@dataclass(frozen=True)
class Run:
    """A run as it stood when opened: ``info`` is its ``run.json``, ``commits`` the newest commit of each shard."""

    store: Store
    info: RunInfo
    commits: dict[int, Commit]

    def answers(self) -> Any:
        """``pyarrow.dataset.Dataset`` of ``Answer`` rows, one a question."""
        return self._dataset("answers")

    def samples(self) -> Any:
        """``pyarrow.dataset.Dataset`` of ``Sample`` rows: every candidate that was paid for."""
        return self._dataset("samples")

    def decisions(self) -> Any:
        """``pyarrow.dataset.Dataset`` of ``Decision`` rows: why questions went on or stopped, at which price."""
        return self._dataset("decisions")

    def dead_letters(self) -> Any:
        """``pyarrow.dataset.Dataset`` of ``DeadLetter`` rows, one a question without an answer."""
        return self._dataset("dead_letters")

    def verdicts(self) -> Any:
        """``pyarrow.dataset.Dataset`` of ``Reviewed`` rows: what ``ponder verify`` added. The run's own verdicts are a
        column of ``samples``."""
        return self._of_files(columns_of(Reviewed), reviewed_files(self.store.files))

    def shard_samples(self, shard_id: int) -> Any:
        """``samples`` of one committed shard."""
        return self._dataset("samples", [shard_id])

    def shard_answers(self, shard_id: int) -> Any:
        """``answers`` of one committed shard."""
        return self._dataset("answers", [shard_id])

    def paths(self, kind: str) -> list[str]:
        """Full URLs of the committed files of ``kind`` (a key of ``commits.KINDS``), for pandas, DuckDB or Ray Data."""
        return [f"{self.store.url}/{path}" for path in self._files(kind)]

    def _files(self, kind: str, shards: Sequence[int] | None = None) -> list[str]:
        chosen = [self.commits[shard_id] for shard_id in (sorted(self.commits) if shards is None else shards)]
        return [commit.files[kind] for commit in chosen if kind in commit.files]

    def _dataset(self, kind: str, shards: Sequence[int] | None = None) -> Any:
        return self._of_files(columns_of(KINDS[kind]), self._files(kind, shards))

    def _of_files(self, schema: Any, files: Sequence[str]) -> Any:
        if not files:
            return pyarrow.dataset.dataset(schema.empty_table())
        filesystem, root = self.store.files.arrow()
        paths = [f"{root}/{path}" for path in files]
        return pyarrow.dataset.dataset(paths, schema=schema, format="parquet", filesystem=filesystem)


def open_run(url: str) -> Run:
    """Open the run at ``url`` for reading.

    Raises:
        UsageError: there is no run.
        StoreError: the directory cannot be read.
    """
    store = Store.open(url)
    return Run(store, store.run_info(), store.commits())
