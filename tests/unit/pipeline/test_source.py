"""Planning and reading a dataset: every row once, bad rows as data, bad datasets as errors that say what to mend."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.records import DeadLetter, Item, Message
from pipeline.source import DatasetPlan, plan_dataset, read_shard
from pipeline.spec import DatasetSpec

FORMATS = ("jsonl", "csv", "parquet")


def row(number: int | str, **more: Any) -> dict[str, Any]:
    return {"qid": f"q{number}", "prompt": f"What is {number}?", "gold": str(number), **more}


def write(path: Path, rows: list[dict[str, Any]], row_group: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(rows[0]) if rows else list(row(0))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    else:
        table = pa.Table.from_pylist(rows) if rows else pa.table({name: pa.array([], pa.string()) for name in names})
        pq.write_table(table, path, row_group_size=row_group)
    return path


def spec(path: Path | str | list[str], **more: Any) -> DatasetSpec:
    return DatasetSpec(path=path if isinstance(path, list) else str(path), **{"id": "qid", "reference": "gold", **more})


def read(dataset: DatasetSpec, plan: DatasetPlan) -> list[Item | DeadLetter]:
    return [record for shard in plan.shards for record in read_shard(dataset, shard)]


def read_all(dataset: DatasetSpec, shard_size: int = 2) -> list[Item | DeadLetter]:
    return read(dataset, plan_dataset(dataset, shard_size))


def refusal(dataset: DatasetSpec) -> str:
    with pytest.raises(SourceError) as caught:
        plan_dataset(dataset, 4)
    return str(caught.value)


# --- the plan ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    counts=st.lists(st.tuples(st.sampled_from(FORMATS), st.integers(1, 9)), min_size=1, max_size=5),
    shard_size=st.integers(1, 12),
    limit=st.none() | st.integers(1, 50),
)
def test_every_row_is_planned_and_read_exactly_once(
    counts: list[tuple[str, int]], shard_size: int, limit: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths, expected, places = [], [], []
        for position, (kind, count) in enumerate(counts):
            numbers = [f"{position}-{number}" for number in range(count)]
            path = write(Path(folder) / f"{position}.{kind}", [row(number) for number in numbers])
            paths.append(str(path))
            expected += [f"q{number}" for number in numbers]
            places += [(str(path), number) for number in range(count)]
        dataset = spec(paths, limit=limit)
        plan = plan_dataset(dataset, shard_size)
        planned = [
            (segment.path, number)
            for shard in plan.shards
            for segment in shard.segments
            for number in range(segment.start, segment.stop)
        ]
        assert planned == places[:limit]
        assert plan.items == len(planned)
        assert [shard.shard_id for shard in plan.shards] == list(range(len(plan.shards)))
        for shard in plan.shards:
            assert shard.items == sum(segment.stop - segment.start for segment in shard.segments) <= shard_size
            assert [record.item_id for record in read_shard(dataset, shard)] == [
                f"q{number}"
                for segment in shard.segments
                for number in (f"{paths.index(segment.path)}-{each}" for each in range(segment.start, segment.stop))
            ]
        assert [record.item_id for record in read(dataset, plan)] == expected[:limit]


def test_small_files_share_a_shard_and_large_ones_span_several(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [row(number) for number in range(2)])
    write(tmp_path / "b.csv", [row(number) for number in range(2, 3)])
    write(tmp_path / "c.parquet", [row(number) for number in range(3, 10)])
    plan = plan_dataset(spec(tmp_path / "*"), 4)
    cuts = [[(Path(part.path).name, part.start, part.stop) for part in shard.segments] for shard in plan.shards]
    assert cuts == [
        [("a.jsonl", 0, 2), ("b.csv", 0, 1), ("c.parquet", 0, 1)],
        [("c.parquet", 1, 5)],
        [("c.parquet", 5, 7)],
    ]


def test_a_list_keeps_its_order_and_a_glob_is_sorted(tmp_path: Path) -> None:
    for name in ("b2", "b1", "a"):
        write(tmp_path / f"{name}.jsonl", [row(name)])
    dataset = spec([str(tmp_path / "b*.jsonl"), str(tmp_path / "a.jsonl")])
    assert [record.item_id for record in read_all(dataset)] == ["qb1", "qb2", "qa"]


def test_shards_can_be_read_in_any_order(tmp_path: Path) -> None:
    for kind in FORMATS:
        dataset = spec(write(tmp_path / f"x.{kind}", [row(number) for number in range(20)]))
        shards = plan_dataset(dataset, 3).shards
        for shard in (*reversed(shards), *shards[::2], *shards[1::2]):
            numbers = range(shard.segments[0].start, shard.segments[0].stop)
            assert [record.item_id for record in read_shard(dataset, shard)] == [f"q{number}" for number in numbers]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path, kind: str) -> None:
    here = write(tmp_path / "here" / f"x.{kind}", [row(number) for number in range(5)])
    there = tmp_path / "there" / f"x.{kind}"
    there.parent.mkdir()
    shutil.copy(here, there)
    changed = write(tmp_path / "changed" / f"x.{kind}", [row(number) for number in range(4)] + [row(4, gold="5")])
    renamed = tmp_path / f"y.{kind}"
    shutil.copy(here, renamed)
    prints = [plan_dataset(spec(path), 2).fingerprint for path in (here, here, there, changed, renamed)]
    assert prints[0] == prints[1] == prints[2]
    assert len(set(prints)) == 3
    assert plan_dataset(spec(here), 5).fingerprint == prints[0]
    assert plan_dataset(spec(here, limit=2), 2).fingerprint != prints[0]


def test_a_parquet_fingerprint_does_not_depend_on_row_groups(tmp_path: Path) -> None:
    rows = [row(number) for number in range(7)]
    one = write(tmp_path / "one" / "x.parquet", rows, row_group=2)
    other = write(tmp_path / "other" / "x.parquet", rows, row_group=7)
    assert plan_dataset(spec(one), 2).fingerprint == plan_dataset(spec(other), 2).fingerprint


def test_has_reference(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(1)])
    assert plan_dataset(spec(path), 1).has_reference
    assert not plan_dataset(spec(path, reference=None), 1).has_reference


def test_importing_stays_light() -> None:
    heavy = "{'ray', 'torch', 'vllm', 'pyarrow', 's3fs', 'numpy', 'reasoning_gym', 'jinja2'}"
    code = f"import sys, pipeline.source; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# --- refusals ------------------------------------------------------------------------------------------------------


def test_no_match(tmp_path: Path) -> None:
    assert "matches no file" in refusal(spec(tmp_path / "*.parquet"))
    assert "matches no file" in refusal(spec(tmp_path / "x.jsonl"))
    assert "names no file" in refusal(spec([]))


@pytest.mark.parametrize("path", ["gs://bucket/x.jsonl", "zip://x::s3://bucket/y.zip", ""])
def test_unknown_schemes(path: str) -> None:
    assert "no path Ponder reads" in refusal(spec(path))


def test_directories_and_unknown_types(tmp_path: Path) -> None:
    assert "is not a file but a directory" in refusal(spec(tmp_path))
    (tmp_path / "x.json").write_text("{}")
    assert "is of no known type" in refusal(spec(tmp_path / "*"))


@pytest.mark.parametrize("kind", FORMATS)
def test_empty_files(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"x.{kind}").touch()
    assert "is empty (0 bytes)" in refusal(spec(tmp_path / f"x.{kind}"))


@pytest.mark.parametrize("kind", FORMATS)
def test_no_rows(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"x.{kind}", [])
    if kind == "jsonl":
        path.write_text("\n \n")
    assert "has no rows" in refusal(spec(path))


def test_a_file_named_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(1)])
    assert "is named 2 times" in refusal(spec([str(path), str(tmp_path / "*.jsonl")]))


def test_corrupt_files(tmp_path: Path) -> None:
    rotten = tmp_path / "x.parquet"
    rotten.write_bytes(b"PAR1 this is not Parquet PAR1")
    assert "not readable Parquet" in refusal(spec(rotten))
    whole = write(tmp_path / "y.parquet", [row(number) for number in range(500)]).read_bytes()
    (tmp_path / "y.parquet").write_bytes(whole[:20] + b"\xff" * 400 + whole[420:])
    assert "not readable Parquet" in refusal(spec(tmp_path / "y.parquet"))
    (tmp_path / "x.csv").write_text('qid,prompt,gold\n1,"open,2\n2,b,3\n')
    assert "is not valid CSV" in refusal(spec(tmp_path / "x.csv"))
    (tmp_path / "y.csv").write_bytes("qid,prompt,gold\n1,caf\xe9,2\n".encode("latin-1"))
    assert "is not UTF-8" in refusal(spec(tmp_path / "y.csv"))
    (tmp_path / "z.jsonl").write_bytes(b"\x1f\x8b\x00\n\x80\x81\n")
    assert "no row of" in refusal(spec(tmp_path / "z.jsonl"))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("id", {"id": "nope"}),
        ("reference", {"reference": "nope"}),
        ("stakes", {"stakes": "nope"}),
        ("messages", {"messages": "nope"}),
        ("prompt", {"prompt": "{{ prompt }} {{ nope }}"}),
    ],
)
def test_missing_columns_name_those_there_are(tmp_path: Path, kind: str, field: str, more: dict[str, str]) -> None:
    path = write(tmp_path / f"x.{kind}", [row(1), row(2)])
    text = refusal(spec(path, **more))
    assert text.startswith(f"dataset.{field}: there is no column 'nope' in {path}; its columns are qid, prompt, gold")


def test_a_jsonl_column_needs_to_be_in_one_row_only(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(1), row(2, weight=3)])
    assert [item.stakes for item in read_all(spec(path, stakes="weight")) if isinstance(item, Item)] == [1.0, 3.0]


def test_a_wrong_template(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(1)])
    assert refusal(spec(path, prompt="{{ prompt")).startswith("dataset.prompt: '{{ prompt' is not a Jinja template")


@pytest.mark.parametrize("kind", FORMATS)
def test_repeated_ids_name_the_id_and_both_places(tmp_path: Path, kind: str) -> None:
    one = write(tmp_path / f"a.{kind}", [row(1), row(2), row(3)])
    other = write(tmp_path / f"b.{kind}", [row(4), row(2), row(3)])
    text = refusal(spec(str(tmp_path / "*")))
    assert f"the id 'q2' in column 'qid' stands at {one}:1 and {other}:1 (rows count from 0)" in text
    plan_dataset(spec(str(tmp_path / "*"), limit=4), 2)


def test_identical_rows_need_an_id_column(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(1), row(2), row(1), row(1)])
    text = refusal(spec(path, id=None))
    assert f"the rows at {path}:0 and {path}:2" in text
    assert "name a column with unique ids" in text


def test_a_file_that_shrank_after_planning(tmp_path: Path) -> None:
    for kind in FORMATS:
        path = write(tmp_path / f"x.{kind}", [row(number) for number in range(9)])
        dataset = spec(path)
        plan = plan_dataset(dataset, 9)
        write(path, [row(number) for number in range(5)])
        with pytest.raises(SourceError, match="has 5 rows where 9 were planned"):
            list(read_shard(dataset, plan.shards[0]))
        path.unlink()
        with pytest.raises(SourceError, match="does not exist"):
            list(read_shard(dataset, plan.shards[0]))


# --- rows ----------------------------------------------------------------------------------------------------------


def test_an_item_carries_every_other_column(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(1, z=[1, None], a=float("nan"), weight=2)])
    assert read_all(spec(path, stakes="weight")) == [
        Item(
            "q1",
            prompt="What is 1?",
            reference="1",
            stakes=2.0,
            payload='{"a":null,"prompt":"What is 1?","z":[1,null]}',
        )
    ]


@pytest.mark.parametrize(("gold", "reference"), [(42, "42"), (3.0, "3.0"), ("x", "x"), (None, None), ("", None)])
def test_references_become_text(tmp_path: Path, gold: object, reference: str | None) -> None:
    (item,) = read_all(spec(write(tmp_path / "x.jsonl", [row(1, gold=gold)])))
    assert isinstance(item, Item)
    assert item.reference == reference


def test_content_ids_depend_on_values_alone(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{number}", "gold": str(number)} for number in range(3)]
    turned = [dict(reversed(each.items())) for each in rows]
    found = [
        [record.item_id for record in read_all(spec(write(tmp_path / name, each), id=None))]
        for name, each in [("a.jsonl", rows), ("b.jsonl", turned), ("c.csv", rows), ("d.parquet", turned)]
    ]
    assert all(len(item_id) == 32 for item_id in found[0])
    assert len(set(found[0])) == 3
    assert found[1:] == [found[0]] * 3


def test_numbers_are_ids_too(tmp_path: Path) -> None:
    for kind in ("jsonl", "parquet"):
        path = write(tmp_path / f"x.{kind}", [row(1, qid=7), row(2, qid=8)])
        assert [record.item_id for record in read_all(spec(path))] == ["7", "8"]


def test_bad_rows_are_dead_letters_and_the_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = [
        json.dumps(row(0)),
        "{broken",
        "",
        json.dumps(row(1, prompt=None)),
        json.dumps(row(2, prompt="  ")),
        json.dumps({"qid": "q3", "gold": "3"}),
        json.dumps(row(4, qid=None)),
        json.dumps(row(5, qid="")),
        "[1, 2]",
        json.dumps(row(6, prompt="\ud800")),
        json.dumps(row(7, weight=-1)),
        json.dumps(row(8, weight=float("nan"))),
        json.dumps(row(9, weight="much")),
        json.dumps(row(10, weight=True)),
        "[" * 100_000,
        json.dumps(row(11)),
    ]
    path.write_text("\n".join(lines))
    dataset = spec(path, stakes="weight")
    records = read_all(dataset)
    assert [item.item_id for item in records if isinstance(item, Item)] == ["q0", "q11"]
    dead = {
        letter.error.split(": ", 1)[0].rsplit(":", 1)[1]: letter for letter in records if isinstance(letter, DeadLetter)
    }
    assert list(dead) == [str(number) for number in range(1, 14)]
    assert {letter.boundary for letter in dead.values()} == {"source"}
    assert len({letter.item_id for letter in dead.values()}) == 13
    assert dead["5"].item_id.startswith("x.jsonl:5:")
    causes = {
        "1": "malformed JSON", "2": "null in this row: prompt", "3": "the prompt is empty",
        "4": "'prompt' is undefined",
        "5": "is null or empty", "6": "is null or empty", "7": "must be a JSON object", "8": "malformed JSON",
        "9": "must be a finite number >= 0", "10": "not 'nan'", "11": "not 'much'", "12": "not 'True'",
        "13": "malformed JSON",
    }  # fmt: skip
    for number, cause in causes.items():
        assert cause in dead[number].error
    assert json.loads(dead["9"].payload) == {"prompt": "What is 7?"}


def test_bad_rows_of_files_with_one_name_keep_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write(tmp_path / folder / "part.jsonl", [row(folder), row(folder, qid=None)])
        with (tmp_path / folder / "part.jsonl").open("a") as file:
            file.write("{broken\n")
    records = read_all(spec(tmp_path / "*" / "part.jsonl"))
    assert len({record.item_id for record in records}) == 6


def test_ragged_csv_rows_are_dead_letters(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('qid,prompt,gold\nq0,"two\nlines",1\nq1,too,many,cells\n\nq2,few\nq3,fine,\n')
    first, many, few, last = read_all(spec(path))
    assert first == Item("q0", prompt="two\nlines", reference="1", payload='{"prompt":"two\\nlines"}')
    assert isinstance(many, DeadLetter)
    assert "has 4 cells where the header names 3" in many.error
    assert isinstance(few, DeadLetter)
    assert last == Item("q3", prompt="fine", payload='{"prompt":"fine"}')


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("kind", FORMATS)
def test_messages(tmp_path: Path, kind: str) -> None:
    chat: Any = json.dumps(CHAT) if kind == "csv" else CHAT
    (item,) = read_all(spec(write(tmp_path / f"x.{kind}", [{"qid": "q", "chat": chat, "gold": "1"}]), messages="chat"))
    assert item == Item("q", messages=(Message("system", "Be brief."), Message("user", "Hello")), reference="1")


def test_messages_of_the_wrong_shape_are_dead_letters(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", [row(0, chat=CHAT), row(1, chat=[]), row(2), row(3, chat=[{"role": "root"}])])
    records = read_all(spec(path, messages="chat"))
    assert [type(record) for record in records] == [Item, DeadLetter, DeadLetter, DeadLetter]
