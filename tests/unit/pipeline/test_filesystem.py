"""The local backend's promises, and how S3 errors are classified. The S3 backend itself: tests/integration."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from pipeline import filesystem
from pipeline.errors import StoreError, UsageError
from pipeline.filesystem import TEMPORARY, LocalFiles, S3Files, open_files


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_files("runs/a").url == str(tmp_path / "runs/a")
    assert open_files(f"file://{tmp_path}/with%20space").url == f"{tmp_path}/with space"
    assert open_files("s3://bucket//a///b/").url == "s3://bucket/a/b"
    assert open_files("s3://bucket").url == "s3://bucket"
    assert not list(tmp_path.iterdir()), "opening does no I/O"


@pytest.mark.parametrize("url", ["gs://bucket/a", "s3://", "s3:///a", "s3://bucket/../a"])
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        open_files(url)


def test_create_put_read_list_delete(tmp_path: Path) -> None:
    files = LocalFiles(str(tmp_path / "new/run"))
    assert files.list("") == []
    assert files.create("a/b/one", b"1")
    assert files.create("a/b/one", b"1"), "the same data is our own create, retried"
    assert not files.create("a/b/one", b"2")
    files.put("a/two", b"2")
    files.put("a/two", b"3")
    files.put("ab/three", b"")
    assert files.read("a/b/one") == b"1"
    assert files.read("a/two") == b"3"
    assert files.list("") == ["a/b/one", "a/two", "ab/three"]
    assert files.list("a") == files.list("a/") == ["a/b/one", "a/two"]
    files.delete("a/two")
    files.delete("a/two")
    files.delete("nowhere/at/all")
    assert files.list("a") == ["a/b/one"]
    with pytest.raises(FileNotFoundError):
        files.read("a/two")


def test_a_write_cut_short_is_not_listed(tmp_path: Path) -> None:
    files = LocalFiles(str(tmp_path))
    files.put("a/one", b"1")
    (tmp_path / "a" / f"{TEMPORARY}123").write_bytes(b"half")
    assert files.list("") == ["a/one"]


def test_a_failed_write_leaves_the_old_object_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(str(tmp_path))
    files.put("a/one", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(filesystem.os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*a/one: No space left on device; .*free space"):
        files.put("a/one", b"new")
    with pytest.raises(StoreError, match=r"cannot create .*a/two: No space"):
        files.create("a/two", b"new")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["one"]
    assert files.read("a/one") == b"old"


def test_data_and_folders_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = set()
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(filesystem.os, "fsync", fsync)
    LocalFiles(str(tmp_path / "new/run")).create("a/one", b"1")
    assert {str(tmp_path), str(tmp_path / "new"), str(tmp_path / "new/run"), str(tmp_path / "new/run/a")} <= synced
    assert any(TEMPORARY in path for path in synced)


def test_exactly_one_of_16_threads_creates(tmp_path: Path) -> None:
    # One instance a thread, like one a process.
    together = threading.Barrier(16)

    def race(number: int) -> bool:
        files = LocalFiles(str(tmp_path / "run"))
        together.wait()
        return files.create("commits/000000.g0.json", str(number).encode())

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(race, range(16)))
    assert won.count(True) == 1
    assert LocalFiles(str(tmp_path / "run")).read("commits/000000.g0.json") == str(won.index(True)).encode()
    assert [path.name for path in (tmp_path / "run/commits").iterdir()] == ["000000.g0.json"]


@pytest.mark.parametrize("path", ["", "/a", "a//b", "a/../b", "./a", "a/"])
def test_paths_that_leave_the_directory(tmp_path: Path, path: str) -> None:
    for files in (LocalFiles(str(tmp_path)), S3Files("bucket/run")):
        with pytest.raises(StoreError, match="no path inside"):
            files.put(path, b"")


def test_a_file_where_the_run_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    files = LocalFiles(str(tmp_path / "file"))
    for operation in (lambda: files.read("a"), lambda: files.put("a", b""), lambda: files.list("")):
        with pytest.raises(StoreError, match="file"):
            operation()


class Answering:
    """An s3fs of one object that fails with ``error`` on the first writes, having stored first where told so."""

    def __init__(self, errors: list[Exception], stored: bytes | None = None) -> None:
        self.errors, self.stored = errors, stored

    def pipe_file(self, path: str, data: bytes, mode: str = "overwrite") -> None:
        if self.errors:
            raise self.errors.pop(0)
        assert self.stored is None
        self.stored = data

    def cat_file(self, path: str, max_concurrency: int) -> bytes:
        if self.stored is None:
            raise wrapped("NoSuchKey", FileNotFoundError("gone"))
        return self.stored


def wrapped(code: str, error: Exception) -> Exception:
    error.__cause__ = ClientError({"Error": {"Code": code, "Message": "as the server says"}}, "PutObject")
    return error


def files_over(server: Answering, monkeypatch: pytest.MonkeyPatch) -> S3Files:
    monkeypatch.setattr(filesystem.time, "sleep", lambda seconds: None)
    files = S3Files("bucket/run")
    files._client = server
    return files


@pytest.mark.parametrize(
    "refusal", [FileExistsError("moto"), wrapped("PreconditionFailed", OSError(22, "x")), wrapped("412", OSError("x"))]
)
def test_a_refused_create_compares_the_content(refusal: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    assert files_over(Answering([refusal], b"ours"), monkeypatch).create("a", b"ours")
    assert not files_over(Answering([refusal], b"theirs"), monkeypatch).create("a", b"ours")


def test_conflicts_are_retried_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    conflict = wrapped("ConditionalRequestConflict", OSError("x"))
    server = Answering([conflict] * 3)
    assert files_over(server, monkeypatch).create("a", b"ours")
    assert server.stored == b"ours"
    with pytest.raises(StoreError, match=r"s3://bucket/run/a: other writers"):
        files_over(Answering([conflict] * 99), monkeypatch).create("a", b"ours")


def test_taken_and_gone_again_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert files_over(Answering([wrapped("412", OSError("x"))]), monkeypatch).create("a", b"ours")


@pytest.mark.parametrize(
    ("code", "mend"),
    [
        ("InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("AccessDenied", "AWS_ACCESS_KEY_ID"),
        ("NoSuchBucket", "bucket does not exist"),
        ("InternalError", "see its answer"),
    ],
)
def test_s3_failures_name_the_mend(code: str, mend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Answering([wrapped(code, OSError("x"))] * 2)
    for operation in ("create", "put"):
        with pytest.raises(StoreError, match=rf"s3://bucket/run/a: {code}.*{mend}"):
            getattr(files_over(server, monkeypatch), operation)("a", b"")
