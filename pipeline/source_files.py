"""Where a dataset's files are, and how they are opened: local disks and S3.

Promises: the same patterns over the same files give the same list; whatever a disk or a store raises becomes a
``SourceError`` that says what to mend. Owns the object store's settings, which come from the environment alone
(``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_ENDPOINT_URL``). May not look inside a file.
"""

from __future__ import annotations

import glob
import io
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from pipeline.errors import SourceError

FORMATS = (".parquet", ".jsonl", ".csv")
_REMOTE_BLOCK = 4 * 2**20
"""Bytes fetched at once from S3. Its client's default, 50 MB, would be paid again for every small shard."""


def find_files(patterns: str | list[str]) -> tuple[str, ...]:
    """Absolute paths or s3:// URLs of all files, in the order of the patterns; what one glob matches is sorted.

    Raises:
        SourceError: a pattern matches nothing, or a match is empty, named twice, or of no known format.
    """
    listed = [patterns] if isinstance(patterns, str) else patterns
    paths = [path for pattern in listed for path in _expand(pattern)]
    if not paths:
        raise SourceError("dataset.path: [] names no file; give at least one path")
    path, times = Counter(paths).most_common(1)[0]
    if times > 1:
        raise SourceError(f"dataset.path: {path} is named {times} times; name it once, or its rows would be repeated")
    return tuple(paths)


def version_of(path: str) -> str:
    """A text that changes when the file does, without reading it."""
    if path.startswith("s3://"):
        fs, name = _filesystem(path)
        return f"{path} {fs.ukey(name)}"
    status = os.stat(path)
    return f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _expand(pattern: str) -> list[str]:
    remote = pattern.startswith("s3://")
    if ("://" in pattern and not remote) or "::" in pattern or not pattern:
        raise SourceError(
            f"dataset.path: {pattern!r} is no path Ponder reads; give a local path, s3://bucket/key, or "
            "reasoning_gym:TASK alone"
        )
    with _reading(pattern):
        fs, name = _filesystem(pattern)
        fs.invalidate_cache()
        try:
            infos = [fs.info(name)]
        except FileNotFoundError:
            found = fs.glob(name, detail=True) if glob.has_magic(name) else {}
            infos = [_followed(fs, found[name]) for name in sorted(found)]
            infos = [info for info in infos if info["type"] != "directory"]
            if remote and not infos:
                _check_bucket(fs, name.split("/")[0])
    if not infos:
        raise SourceError(f"dataset.path: {pattern!r} matches no file; mend the path or the glob")
    return [_checked(info, "s3://" if remote else "") for info in infos]


def _followed(fs: Any, info: dict[str, Any]) -> dict[str, Any]:
    # A local glob describes a link itself; asked by name, the file behind it is described.
    if not info.get("islink"):
        return info
    with _reading(info["name"]):
        described: dict[str, Any] = fs.info(info["name"])
        return described


def _check_bucket(fs: Any, bucket: str) -> None:
    # A glob is silent about a bucket that is missing or refuses: it just matches nothing.
    try:
        fs.info(bucket)
    except FileNotFoundError:
        raise SourceError(
            f"dataset.path: the bucket {bucket!r} does not exist; mend its name, or AWS_ENDPOINT_URL where another "
            "store is meant"
        ) from None


def _checked(info: dict[str, Any], scheme: str) -> str:
    path = scheme + str(info["name"])
    if info["type"] != "file":
        raise SourceError(
            f"dataset.path: {path} is not a file but a {info['type']}; name files, for example {path}/*.parquet"
        )
    if not path.lower().endswith(FORMATS):
        raise SourceError(
            f"dataset.path: {path} is of no known type; files must end in {', '.join(FORMATS)}, so narrow the glob or "
            "convert the file"
        )
    if not info["size"]:
        raise SourceError(f"dataset.path: {path} is empty (0 bytes); write it again, or leave it out")
    return path


def _filesystem(path: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    fs, name = url_to_fs(path)
    return fs, str(name)


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """The file's bytes, seekable; closed at the end of the block. Failures inside the block are mapped too."""
    with _reading(path):
        if not path.startswith("s3://"):
            with open(path, "rb") as local:
                yield local
            return
        fs, name = _filesystem(path)
        with fs.open(name, "rb", block_size=_REMOTE_BLOCK) as remote:
            # The client's own readline copies a whole block for every line.
            yield io.BufferedReader(remote, 2**20)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turns what local disks and S3 raise into a ``SourceError`` that says what to mend."""
    try:
        yield
    except FileNotFoundError:
        raise SourceError(f"dataset.path: {path} does not exist; mend the path") from None
    except PermissionError as error:
        mend = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, and that they may list and read"
        if not path.startswith("s3://"):
            mend = "check the file's permissions"
        raise SourceError(f"dataset.path: reading {path} was refused ({error}); {mend}") from None
    except _failures(path) as error:
        mend = (
            "check AWS_ENDPOINT_URL and the credentials in the environment"
            if path.startswith("s3://")
            else "check the disk"
        )
        raise SourceError(f"dataset.path: cannot read {path}: {error}; {mend}") from None


def _failures(path: str) -> tuple[type[Exception], ...]:
    if not path.startswith("s3://"):
        return (OSError,)
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError)
