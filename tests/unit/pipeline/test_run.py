"""The read side shows exactly the committed files, to Arrow, pandas and DuckDB."""

from pathlib import Path

import duckdb
import pandas as pd
import pytest

from pipeline.commits import KINDS
from pipeline.errors import UsageError
from pipeline.records import Answer, Sample, StopReason, Verdict, columns_of, from_row
from pipeline.run import open_run
from pipeline.store import Store


def answer(item_id: str) -> Answer:
    return Answer(item_id, "4", "it is 4", StopReason.SETTLED, 0.97, votes=3, samples=4, tokens=40)


def sample(item_id: str, verdicts: tuple[Verdict, ...] = ()) -> Sample:
    return Sample(item_id, 0, "key", "it is 4", answer="4", completion_tokens=5, verdicts=verdicts)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    # Neither a space nor what looks like a hive partition may change what is read.
    store = Store.open(str(tmp_path / "my run" / "item_id=x"))
    store.begin({"seed": 1}, {"seed": "s"})
    return store


def test_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run at .*nothing"):
        open_run(str(tmp_path / "nothing"))


def test_an_empty_run_has_all_schemas(store: Store) -> None:
    run = open_run(store.url)
    assert run.info == store.run_info()
    for kind, record in KINDS.items():
        dataset = getattr(run, kind)()
        assert dataset.schema == columns_of(record)
        assert dataset.to_table().num_rows == 0
        assert run.paths(kind) == []


def test_exactly_the_committed_rows(store: Store) -> None:
    verdicts = (Verdict("math", 1.0, tokens=3), Verdict("judge", error="timed out"))
    kept = [sample("a", verdicts), sample("b")]
    store.commit(1, 0, [answer("b")], [kept[1]], [], [], "w1")
    store.commit(0, 0, [answer("a")], [kept[0]], [], [], "w0")
    store.files.put("answers/000000.g0-w9-00000000.parquet", b"an orphan, and torn")
    run = open_run(store.url)
    store.commit(0, 1, [answer("a"), answer("c")], [], [], [], "w2")
    assert run.answers().to_table()["item_id"].to_pylist() == ["a", "b"], "as it stood when opened"
    assert [from_row(Sample, row) for row in run.samples().to_table().to_pylist()] == kept
    assert run.samples().schema == columns_of(Sample)
    assert [from_row(Answer, row) for row in run.answers().to_table().to_pylist()] == [answer("a"), answer("b")]
    assert open_run(store.url).answers().to_table()["item_id"].to_pylist() == ["a", "c", "b"]


def test_paths_are_for_other_readers(store: Store) -> None:
    store.commit(0, 0, [answer("a")], [], [], [], "w0")
    store.commit(1, 0, [answer("b")], [], [], [], "w0")
    paths = open_run(store.url).paths("answers")
    assert pd.concat(map(pd.read_parquet, paths))["item_id"].tolist() == ["a", "b"]
    query = "select item_id from read_parquet(?, hive_partitioning=false) order by 1"
    assert duckdb.execute(query, [paths]).fetchall() == [("a",), ("b",)]
