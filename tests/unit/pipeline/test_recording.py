"""Recordings: questions come out whole whatever the file looks like, and what contradicts itself is refused."""

import math
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError, UsageError
from pipeline.recording import Recording, Span
from pipeline.recording_parts import Wanted, parse_columns
from pipeline.records import Answer, Sample, StopReason
from pipeline.store import Store
from tests.factories import make_spec
from tests.unit.pipeline.recordings import Row, make_rows, write_rows


def rows_of(recording: Recording, shards: int = 1) -> list[tuple]:
    """Every sample as (item, index, answer, reference, tokens), in the order they are read."""
    found = []
    for span in recording.spans(shards):
        columns = recording.read(span)
        assert columns.first == span.start
        for number, item_id in enumerate(columns.item_ids):
            for row in range(columns.starts[number], columns.starts[number + 1]):
                code = columns.answer[row]
                found.append(
                    (
                        item_id,
                        int(columns.sample_index[row]),
                        columns.answers[code] if code >= 0 else None,
                        columns.references[number],
                        None if columns.tokens is None else int(columns.tokens[row]),
                    )
                )
    return found


def expected(rows: list[Row]) -> list[tuple]:
    return [
        (row["item_id"], row["sample_index"], row["answer"], row.get("reference"), row.get("completion_tokens"))
        for row in rows
    ]


@pytest.mark.parametrize("group", [1, 7, 10, 1000])
@pytest.mark.parametrize("shards", [1, 5, 100])
def test_questions_come_out_whole_whatever_the_row_groups(tmp_path: Path, group: int, shards: int) -> None:
    rows = make_rows()
    with Recording.open(write_rows(tmp_path / "s.parquet", rows, group)) as recording:
        assert (recording.questions, recording.samples, set(recording.pools.tolist())) == (12, 120, {10})
        assert len(recording.spans(shards)) == min(shards, 12)
        assert rows_of(recording, shards) == expected(rows)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_scattered_samples_are_put_together(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    rows = make_rows(questions=5, pool=4)
    mixed = data.draw(st.permutations(rows))
    path = write_rows(tmp_path_factory.mktemp("r") / "s.parquet", mixed, data.draw(st.integers(1, 30)))
    with Recording.open(path) as recording:
        assert recording.questions == 5
        assert sorted(rows_of(recording)) == sorted(expected(rows))


def test_the_temporary_copy_of_a_scattered_recording_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = make_rows()
    random.Random(1).shuffle(rows)
    recording = Recording.open(write_rows(tmp_path / "s.parquet", rows))
    assert len(list(tmp_path.glob("ponder-replay-*"))) == 1
    recording.close()
    recording.close()
    assert list(tmp_path.glob("ponder-replay-*")) == []


def test_several_files_and_columns_by_other_names(tmp_path: Path) -> None:
    renamed = {"item_id": "question", "reference": "gold", "sample_index": "k"}
    rows = make_rows()
    for part in range(2):
        some = rows[part * 60 : part * 60 + 60]
        write_rows(
            tmp_path / f"{part}.parquet", [{renamed.get(key, key): value for key, value in row.items()} for row in some]
        )
    columns = parse_columns("item_id=question, reference=gold,sample_index=k")
    with Recording.open(f"{tmp_path}/*.parquet", columns) as recording:
        assert rows_of(recording) == expected(rows)


def test_other_types_of_the_same_thing(tmp_path: Path) -> None:
    """Ids and answers may be numbers, text may be dictionary-encoded, missing may be empty or NaN."""
    table = pa.table(
        {
            "item_id": pa.array([7, 7, 8], pa.int32()),
            "sample_index": pa.array([0, 1, 0], pa.uint8()),
            "answer": pa.array([4.0, math.nan, 5.5]),
            "reference": pa.array(["4", "", None]).dictionary_encode(),
            "completion_tokens": pa.array([3.0, 4.0, 5.0], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "s.parquet")
    with Recording.open(str(tmp_path / "s.parquet")) as recording:
        assert rows_of(recording) == [("7", 0, "4.0", "4", 3), ("7", 1, None, "4", 4), ("8", 0, "5.5", None, 5)]


def test_log_probabilities_are_reduced_to_means(tmp_path: Path) -> None:
    rows = [
        {"item_id": "a", "sample_index": 0, "answer": "1", "lp": [-1.0, -3.0], "completion_tokens": 2, "total": -4.0},
        {"item_id": "a", "sample_index": 1, "answer": "1", "lp": [], "completion_tokens": 0, "total": 0.0},
        {"item_id": "a", "sample_index": 2, "answer": "1", "lp": None, "completion_tokens": 4, "total": None},
        {"item_id": "a", "sample_index": 3, "answer": "1", "lp": [-0.5], "completion_tokens": 1, "total": -0.5},
    ]
    path = write_rows(tmp_path / "s.parquet", rows)
    for columns, means in (
        ({"token_logprobs": "lp"}, [-2.0, None, None, -0.5]),
        ({"sum_logprob": "total"}, [-2.0, 0.0, None, -0.5]),
        ({"mean_logprob": "total"}, [-4.0, 0.0, None, -0.5]),
    ):
        with Recording.open(path, columns) as recording:
            found = recording.read(Span(0, 1)).mean_logprob
        assert [None if math.isnan(value) else value for value in found] == means


def test_cut_samples_are_left_out(tmp_path: Path) -> None:
    rows = make_rows(questions=2, pool=3, finish_reason="stop")
    rows[1]["finish_reason"], rows[4]["finish_reason"] = "abort", "interrupted"
    with Recording.open(write_rows(tmp_path / "s.parquet", rows)) as recording:
        kept = [row for row in rows if row["finish_reason"] == "stop"]
        assert rows_of(recording) == expected(kept)


def test_draw_order_is_the_questions_own(tmp_path: Path) -> None:
    rows = make_rows(questions=6, pool=9)
    shuffled = list(reversed(rows[9:])) + rows[:9]
    orders = []
    for name, some in (("a", rows), ("b", rows[18:27]), ("c", shuffled)):
        with Recording.open(write_rows(tmp_path / f"{name}.parquet", some)) as recording:
            columns = recording.read(Span(0, recording.questions))
            number = columns.item_ids.index("q002")
            low, high = columns.starts[number : number + 2]
            orders.append(columns.sample_index[columns.draw_order(3, 1)[low:high]].tolist())
            others = {tuple(columns.draw_order(seed, repeat).tolist()) for seed in (3, 4) for repeat in (1, 2)}
            assert len(others) == 4
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == list(range(9)) != orders[0]


def test_draw_orders_are_uniform(tmp_path: Path) -> None:
    """Every sample is first about equally often: 600 repeats of 6 samples, each expected 100 times."""
    with Recording.open(write_rows(tmp_path / "s.parquet", make_rows(questions=1, pool=6))) as recording:
        columns = recording.read(Span(0, 1))
    firsts = [int(columns.draw_order(0, repeat)[0]) for repeat in range(600)]
    assert all(60 < firsts.count(row) < 140 for row in range(6))


def test_a_question_is_found_by_its_id(tmp_path: Path) -> None:
    with Recording.open(write_rows(tmp_path / "s.parquet", make_rows())) as recording:
        assert [recording.place_of(f"q{number:03d}") for number in range(12)] == list(range(12))
        assert recording.place_of("q999") is None
        assert recording.read(Span(3, 5)).row_of(1, 9) == 19
        assert recording.read(Span(3, 5)).row_of(1, 10) is None


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: rows[5].update(sample_index=4), "sample_index 4 of item 'q000' is there twice"),
        (lambda rows: rows[13].update(reference="left"), "item 'q001' has two references, "),
        (lambda rows: [row.update(answer=None) for row in rows], "no sample has an answer, all are null"),
        (lambda rows: rows[0].update(item_id=None), "column 'item_id' is null in a row"),
        (lambda rows: rows[0].update(completion_tokens=None), r"column 'completion_tokens' .* must hold a number >= 0"),
        (lambda rows: rows[0].update(completion_tokens=-1), r"column 'completion_tokens' .* must hold a number >= 0"),
        (lambda rows: [row.update(sample_index="one") for row in rows], "column 'sample_index' cannot be read as"),
        (lambda rows: [row.pop("answer") for row in rows], r"no column 'answer' .* --columns answer=…\. The columns"),
        (lambda rows: rows.clear(), "holds no samples|no column"),
    ],
)
@pytest.mark.parametrize("scattered", [False, True])
def test_what_is_wrong_is_named(tmp_path: Path, spoil, said: str, scattered: bool) -> None:
    rows = make_rows()
    spoil(rows)
    if scattered:
        random.Random(2).shuffle(rows)
    with pytest.raises(SourceError, match=said):
        Recording.open(write_rows(tmp_path / "s.parquet", rows, group=17))


def test_a_file_with_columns_and_no_rows(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(make_rows()).slice(0, 0)
    pq.write_table(table, tmp_path / "s.parquet")
    with pytest.raises(SourceError, match="holds no samples"):
        Recording.open(str(tmp_path / "s.parquet"))


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"not Parquet at all")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.raises(SourceError, match=r"^.*bad.parquet is not readable Parquet"):
        Recording.open(str(tmp_path / "bad.parquet"))
    with pytest.raises(SourceError, match="read from Parquet"):
        Recording.open(f"{tmp_path}/*.jsonl")
    with pytest.raises(SourceError, match=r"^'.*none.parquet' matches no file"):
        Recording.open(str(tmp_path / "none.parquet"))
    with pytest.raises(UsageError, match="neither a Parquet file nor a run"):
        Recording.open(str(tmp_path))


def test_files_that_differ(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", make_rows(questions=1))
    write_rows(tmp_path / "b.parquet", [{k: v for k, v in row.items() if k != "mean_logprob"} for row in make_rows(2)])
    with pytest.raises(SourceError, match="differ in mean_logprob"):
        Recording.open(f"{tmp_path}/*.parquet")


@pytest.mark.parametrize(
    ("text", "said"),
    [("item=x", "'item' is nothing"), ("item_id", "role=column"), ("answer=a,answer=b", "given twice")],
)
def test_malformed_columns(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_columns(text)


# --- runs ------------------------------------------------------------------------------------------------------------


def make_run(folder: Path) -> str:
    spec = make_spec(output=str(folder / "run"))
    store = Store.open(spec.output)
    store.begin(spec.model_dump(mode="json"), {"seed": "s"})
    for shard in (1, 0):
        answers, samples = [], []
        for number in range(2):
            item_id = f"s{shard}q{number}"
            answers.append(
                Answer(
                    item_id, "4", "4", StopReason.SETTLED, 0.9, votes=2, samples=3, tokens=15, reference=f"{number}.0"
                )
            )
            samples += [
                Sample(item_id, index, "key", f"it is {index}", answer=str(index), completion_tokens=5)
                for index in range(3)
            ]
        store.commit(shard, 0, answers, samples, [], [], "w")
    return spec.output


def test_a_run_is_a_recording_with_its_references(tmp_path: Path) -> None:
    with Recording.open(make_run(tmp_path), wanted=Wanted(text=True)) as recording:
        assert rows_of(recording, 2) == [
            (f"s{shard}q{number}", index, str(index), f"{number}.0", 5)
            for shard in (0, 1)
            for number in (0, 1)
            for index in (0, 1, 2)
        ]
        assert recording.answer == make_spec().answer
        assert recording.read(Span(3, 4)).text == ["it is 0", "it is 1", "it is 2"]
    with pytest.raises(UsageError, match="leave --columns out"):
        Recording.open(str(tmp_path / "run"), {"answer": "text"})


def test_a_run_without_samples(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "run"))
    store.begin(make_spec().model_dump(mode="json"), {"seed": "s"})
    with pytest.raises(SourceError, match="no committed samples yet"):
        Recording.open(store.url)
