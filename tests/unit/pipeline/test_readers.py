"""Files as rows: stable row numbers wherever reading starts, values as JSON holds them, stores that refuse."""

from __future__ import annotations

import datetime
import decimal
import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SourceError
from pipeline.readers import MAX_DEPTH, Row, canonical, plain, read_columns, read_rows, text_of
from pipeline.source import plan_dataset, read_shard
from pipeline.source_files import find_files
from pipeline.spec import DatasetSpec

LINES = st.sampled_from(['{"a": 1}', "", "  ", "{broken", "[3]", '{"a": "\\ud800"}', '{"a": "é"}', "\ufeff{}"])
CELLS = st.text(st.sampled_from('ab",\n é'), max_size=6)


def numbers(rows: Iterator[Row]) -> list[int]:
    return [row.number for row in rows]


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(LINES, max_size=12), cut=st.integers(0, 12), last_newline=st.booleans())
def test_jsonl_rows_are_the_lines_that_are_not_blank(lines: list[str], cut: int, last_newline: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.jsonl"
        path.write_text("\n".join(lines) + "\n" * last_newline, encoding="utf-8")
        rows = list(read_rows(str(path)))
        filled = [line for line in lines if line.strip()]
        assert [row.number for row in rows] == list(range(len(filled)))
        for row, line in zip(rows, filled, strict=True):
            assert (row.values is None) == (line in ("{broken", "[3]", '{"a": "\\ud800"}'))
            assert bool(row.fault) == (row.values is None)
        cut = min(cut, len(rows))
        for _ in range(2):
            assert [*read_rows(str(path), 0, cut), *read_rows(str(path), cut, None)] == rows


@settings(max_examples=60, deadline=None)
@given(
    cells=st.lists(st.tuples(CELLS, CELLS), max_size=10), cut=st.integers(0, 10), ending=st.sampled_from(["\n", "\r\n"])
)
def test_csv_cells_come_back_wherever_reading_starts(cells: list[tuple[str, str]], cut: int, ending: str) -> None:
    quoted = ['"' + '","'.join(cell.replace('"', '""') for cell in pair) + '"' for pair in cells]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        path.write_bytes(("\ufeffone,two" + ending + ending.join(quoted)).encode("utf-8"))
        assert read_columns(str(path)) == ("one", "two")
        rows = list(read_rows(str(path)))
        assert [row.values for row in rows] == [{"one": one, "two": two} for one, two in cells]
        cut = min(cut, len(rows))
        for _ in range(2):
            assert [*read_rows(str(path), 0, cut), *read_rows(str(path), cut, None)] == rows


@settings(max_examples=40, deadline=None)
@given(count=st.integers(0, 30), group=st.integers(1, 9), start=st.integers(0, 30), length=st.integers(0, 30))
def test_parquet_rows_of_a_range(count: int, group: int, start: int, length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.parquet"
        pq.write_table(
            pa.table({"a": pa.array(range(count), pa.int64()), "b": ["x"] * count}), path, row_group_size=group
        )
        rows = list(read_rows(path, start, start + length, ["a"]))
        wanted = list(range(count))[start : start + length]
        assert rows == [Row(number, {"a": number}) for number in wanted]


def test_batches_within_one_row_group(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"a": range(5000)}), path)
    assert [row.values for row in read_rows(path, 1000, 3100)] == [{"a": number} for number in range(1000, 3100)]


def test_only_overlapping_row_groups_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [f"row {n}" for n in range(300)]}), path, row_group_size=100, use_dictionary=False)
    group = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    end = group.data_page_offset + group.total_compressed_size
    content[group.data_page_offset : end] = b"\xff" * (end - group.data_page_offset)
    path.write_bytes(content)
    assert numbers(read_rows(str(path), 100, 300)) == list(range(100, 300))
    with pytest.raises(SourceError, match="not readable Parquet"):
        list(read_rows(str(path), 99, 101))


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_later_read_starts_where_an_earlier_one_ended(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    path.write_text("a\n" + "\n".join(f'{{"a":{number}}}' for number in range(10)))
    if kind == "jsonl":
        path.write_text(path.read_text().removeprefix("a\n"))
    rows = list(read_rows(str(path)))
    before = path.stat()
    list(read_rows(str(path), 2, 6))
    content = path.read_bytes()
    place = content.index(b'{"a":6}')
    with path.open("r+b") as file:  # the passed lines become blank: whoever counted them again would miss rows
        file.seek(2)
        file.write(b"\n" * (place - 2))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert list(read_rows(str(path), 7, 9)) == rows[7:9]


def test_json_rows_too_deep_to_walk_are_malformed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    levels = [MAX_DEPTH - 1, MAX_DEPTH, 100_000]
    path.write_text("\n".join(f'{{"a": {"[" * level + "]" * level}}}' for level in levels))
    assert [row.values is None for row in read_rows(str(path))] == [False, True, True]


def test_a_long_csv_cell(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a\n" + "x" * 300_000)
    assert [len(row.values["a"]) for row in read_rows(str(tmp_path / "x.csv")) if row.values] == [300_000]


def test_a_csv_header_that_repeats_a_name(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(SourceError, match="names 'a' twice"):
        read_columns(str(tmp_path / "x.csv"))


def test_symbolic_links_and_names_with_brackets(tmp_path: Path) -> None:
    (tmp_path / "x[1].jsonl").write_text("{}\n")
    (tmp_path / "y.jsonl").symlink_to(tmp_path / "x[1].jsonl")
    assert find_files(str(tmp_path / "x[1].jsonl")) == (str(tmp_path / "x[1].jsonl"),)
    assert find_files(str(tmp_path / "*.jsonl")) == (str(tmp_path / "x[1].jsonl"), str(tmp_path / "y.jsonl"))
    (tmp_path / "z.jsonl").symlink_to(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"z\.jsonl does not exist"):
        find_files(str(tmp_path / "*.jsonl"))


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text("{}\n")
    assert find_files("x.jsonl") == find_files("./*.jsonl") == (str(tmp_path / "x.jsonl"),)


# --- values --------------------------------------------------------------------------------------------------------


def test_parquet_values_become_json(tmp_path: Path) -> None:
    path = str(tmp_path / "x.parquet")
    moment = 1_700_000_000_123_456_789
    columns = {
        "day": pa.array([datetime.date(2024, 1, 31)]),
        "exact": pa.array([decimal.Decimal("1.10")]),
        "bytes": pa.array([b"\x00\xff"]),
        "nan": pa.array([float("nan")]),
        "nested": pa.array([{"when": datetime.datetime(2024, 1, 31, 12), "inf": [float("inf"), 1.5]}]),
        "nanoseconds": pa.array([moment], pa.timestamp("ns")),
        "zoned": pa.array([moment], pa.timestamp("ns", "UTC")),
        "clock": pa.array([1_500], pa.time64("ns")),
        "span": pa.array([1_500_000], pa.duration("ns")),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "word": pa.array(["x"]).dictionary_encode(),
        "null": pa.nulls(1),
    }
    pq.write_table(pa.table(columns), path)
    (row,) = read_rows(path)
    assert json.loads(canonical(row.values)) == {
        "day": "2024-01-31",
        "exact": "1.10",
        "bytes": "AP8=",
        "nan": None,
        "nested": {"when": "2024-01-31T12:00:00", "inf": [None, 1.5]},
        "nanoseconds": "2023-11-14T22:13:20.123456",
        "zoned": "2023-11-14T22:13:20.123456+00:00",
        "clock": "00:00:00.000001",
        "span": "0:00:00.001500",
        "map": [["k", 1]],
        "word": "x",
        "null": None,
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    )
)
def test_canonical_json_is_valid_and_stable(value: Any) -> None:
    text = canonical(value)
    assert json.loads(text) == plain(value)
    assert canonical(json.loads(text)) == text
    if isinstance(value, dict):
        assert canonical(dict(reversed(value.items()))) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (42, "42"), (3.0, "3.0"), (1e300, "1e+300"), ("x", "x"), ("", None), (None, None), (float("nan"), None),
        (False, "False"), (decimal.Decimal("1.50"), "1.50"), (datetime.date(2024, 1, 31), "2024-01-31"),
        (b"\xff", "/w=="),
        ({"b": 1, "a": [2]}, '{"a":[2],"b":1}'),
    ],
)  # fmt: skip
def test_cells_as_text(value: Any, text: str | None) -> None:
    assert text_of(value) == text


# --- S3 ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server of this process, and an environment that points to it."""
    from moto.server import ThreadedMotoServer
    from s3fs import S3FileSystem

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    environment = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret-never-shown",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    try:
        yield url
    finally:
        S3FileSystem.clear_instance_cache()
        urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST")).close()
        server.stop()


def fill(bucket: str, tmp_path: Path) -> None:
    from s3fs import S3FileSystem

    fs = S3FileSystem()
    fs.mkdir(bucket)
    rows = [{"qid": f"p{number}", "prompt": "x"} for number in range(7)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=3)
    fs.pipe(f"{bucket}/in/c.parquet", (tmp_path / "x.parquet").read_bytes())
    fs.pipe(f"{bucket}/in/a.jsonl", b"".join(b'{"qid": "j%d", "prompt": "x"}\n' % number for number in range(5)))
    fs.pipe(f"{bucket}/in/b.csv", b"qid,prompt\nc0,x\nc1,x\n")
    fs.pipe(f"{bucket}/other/z.txt", b"not ours")


@pytest.mark.s3
def test_s3_globs_are_read_like_local_ones(endpoint: str, tmp_path: Path) -> None:
    fill("rows", tmp_path)
    spec = DatasetSpec(path="s3://rows/in/*", id="qid")
    plan = plan_dataset(spec, 4)
    ids = [f"j{number}" for number in range(5)] + ["c0", "c1"] + [f"p{number}" for number in range(7)]
    assert [[record.item_id for record in read_shard(spec, shard)] for shard in plan.shards] == [
        ids[0:4], ids[4:8], ids[8:12], ids[12:],
    ]  # fmt: skip
    assert {segment.path for shard in plan.shards for segment in shard.segments} == {
        f"s3://rows/in/{name}" for name in ("a.jsonl", "b.csv", "c.parquet")
    }
    assert find_files(["s3://rows/in/c.parquet", "s3://rows/**/*.csv"]) == (
        "s3://rows/in/c.parquet",
        "s3://rows/in/b.csv",
    )


@pytest.mark.s3
def test_files_that_arrive_later_are_found(endpoint: str, tmp_path: Path) -> None:
    from s3fs import S3FileSystem

    fill("late", tmp_path)
    assert find_files("s3://late/in/*.csv") == ("s3://late/in/b.csv",)
    other = S3FileSystem(skip_instance_cache=True)
    other.pipe("late/in/d.csv", b"qid,prompt\nc3,x\n")
    assert find_files("s3://late/in/*.csv") == ("s3://late/in/b.csv", "s3://late/in/d.csv")


@pytest.mark.s3
@pytest.mark.parametrize("key", ["*.jsonl", "x.jsonl"])
def test_s3_refusals_say_what_to_mend(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    from moto import settings as moto_settings
    from s3fs import S3FileSystem

    fill("locked", tmp_path)
    with pytest.raises(SourceError, match="the bucket 'nowhere' does not exist"):
        find_files(f"s3://nowhere/{key}")
    with pytest.raises(SourceError, match="matches no file"):
        find_files(f"s3://locked/nothing/{key}")
    with pytest.raises(SourceError, match="is not a file but a directory"):
        find_files("s3://locked/in")
    with monkeypatch.context() as strict:
        strict.setattr(moto_settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        with pytest.raises(SourceError, match=r"was refused.*check AWS_ACCESS_KEY_ID") as refused:
            find_files(f"s3://locked/in/{key}")
    assert "secret-never-shown" not in str(refused.value)
    S3FileSystem.clear_instance_cache()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SourceError, match=r"Unable to locate credentials; check .*credentials in the environment"):
        find_files(f"s3://locked/in/{key}")
