"""Bytes in and out of one run directory, on a local disk or on S3.

Promises: an object is visible whole or not at all and is durable when the call returns; ``create`` lets exactly one of
any number of racing writers win, and a winner whose answer was lost still learns that it won; listings are fresh.
Owns nothing but names: no locks, no leases, no renames or copies on S3. Settings and credentials for S3 come from the
environment alone (``AWS_*``, ``AWS_ENDPOINT_URL``) and are never stored. Whatever fails is a ``StoreError`` that names
the object, the operation and the mend; only a missing object is a ``FileNotFoundError``.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

from pipeline.errors import StoreError, StoreRefused, UsageError

TEMPORARY = ".tmp-"
"""Local names that begin like this are writes under way (or cut short): no listing shows them."""

CONFLICT_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between tries while S3 answers 409: another conditional write of the same key is under way."""


class Files(Protocol):
    """One run directory as a flat set of objects. ``path`` is relative to it, with ``/`` and no empty parts."""

    @property
    def url(self) -> str:
        """Where the directory is: an absolute local path, or ``s3://bucket/prefix``."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Create ``path`` unless it exists. True: it now holds our ``data``. False: it holds somebody else's.

        An equal object counts as ours, since a create whose answer was lost is retried; so every object that decides
        a race must contain something unique to its writer.
        """
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write the whole object, replacing what was there."""
        ...

    def read(self, path: str) -> bytes:
        """The whole object. Raises FileNotFoundError where there is none."""
        ...

    def list(self, prefix: str) -> list[str]:
        """All paths under the folder ``prefix`` (``""``: all), recursively, sorted here and never cached."""
        ...

    def delete(self, path: str) -> None:
        """Delete the object; absent is fine."""
        ...

    def arrow(self) -> tuple[Any, str]:
        """A ``pyarrow.fs.FileSystem`` and the path of this directory in it."""
        ...


def open_files(url: str) -> Files:
    """The backend for ``url``: a local path, ``file://…`` or ``s3://bucket/prefix``. No I/O.

    Raises:
        UsageError: the URL names neither.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return LocalFiles(url)
    if scheme == "file":
        return LocalFiles(unquote(rest))
    if scheme == "s3":
        return S3Files(rest)
    raise UsageError(f"output {url!r}: {scheme}:// is not supported; use a local path or s3://bucket/prefix")


class LocalFiles:
    """A directory on a disk with hard links and fsync: temporary file, fsync, then link (create) or replace (put)."""

    def __init__(self, path: str) -> None:
        # Absolute at once: actors that open the same URL may run in another working directory.
        self.root = Path(os.path.abspath(os.path.expanduser(path)))
        self._durable_folders: set[Path] = set()

    @property
    def url(self) -> str:
        return str(self.root)

    def create(self, path: str, data: bytes) -> bool:
        target = self._target(path)
        with self._failing_as("create", path), self._temporary(target, data) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return target.read_bytes() == data
            finally:
                _sync_folder(target.parent)
            return True

    def put(self, path: str, data: bytes) -> None:
        target = self._target(path)
        with self._failing_as("write", path), self._temporary(target, data) as temporary:
            os.replace(temporary, target)
            _sync_folder(target.parent)

    def read(self, path: str) -> bytes:
        with self._failing_as("read", path):
            return self._target(path).read_bytes()

    def list(self, prefix: str) -> list[str]:
        start = self.root / prefix.strip("/")
        found = []
        with self._failing_as("list", prefix):
            for folder, _, names in os.walk(start, onerror=_raise_unless_missing):
                found += [Path(folder, name) for name in names if not name.startswith(TEMPORARY)]
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def delete(self, path: str) -> None:
        target = self._target(path)
        with self._failing_as("delete", path), contextlib.suppress(FileNotFoundError):
            target.unlink()
            _sync_folder(target.parent)

    def arrow(self) -> tuple[Any, str]:
        from pyarrow import fs

        return fs.LocalFileSystem(), str(self.root)

    def _target(self, path: str) -> Path:
        return self.root.joinpath(*_parts(path))

    @contextlib.contextmanager
    def _temporary(self, target: Path, data: bytes) -> Iterator[Path]:
        self._make_folder(target.parent)
        temporary = target.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
        try:
            # Not tempfile: its mode 0600 would hide a run from the people it is shared with.
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _make_folder(self, folder: Path) -> None:
        """Make ``folder`` and its parents durable, once a process: another writer may have made it and not synced."""
        if folder in self._durable_folders:
            return
        chain = (folder, *folder.parents)
        unsure = [each for each in chain if self.root in each.parents or not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for each in unsure:
            _sync_folder(each.parent)
        self._durable_folders.add(folder)

    @contextlib.contextmanager
    def _failing_as(self, operation: str, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            if operation != "read":
                raise StoreError(f"cannot {operation} {self.root / path}: it was removed by somebody else") from None
            raise
        except OSError as error:
            mend = "check that it is a folder you may read and write, with free space, on a disk with hard links"
            raise StoreError(f"cannot {operation} {self.root / path}: {error.strerror or error}; {mend}") from error


class S3Files:
    """A prefix of an S3 bucket, through s3fs. Safe in threads; one client a ``S3Files``, opened at first use."""

    def __init__(self, location: str) -> None:
        bucket, *parts = [part for position, part in enumerate(location.split("/")) if part or position == 0]
        if not bucket or ".." in parts or "." in parts:
            raise UsageError(f"output 's3://{location}': write it as s3://bucket/prefix")
        # Empty parts are dropped: servers disagree about keys with `//`.
        self.bucket, self.prefix = bucket, "".join(f"{part}/" for part in parts)
        self._client: Any = None
        self._opening = threading.Lock()

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def create(self, path: str, data: bytes) -> bool:
        for pause in CONFLICT_PAUSES:
            try:
                self._s3().pipe_file(self._key(path), data, mode="create")
                return True
            except Exception as error:
                code = _code_of(error)
                if code not in _TAKEN and code not in _CONFLICT:
                    raise self._failure("create", path, error) from error
            # A missing object after a 412 was deleted meanwhile: try again, as after a conflict.
            with contextlib.suppress(FileNotFoundError):
                if code in _TAKEN:
                    return self.read(path) == data
            time.sleep(pause)
        raise StoreError(f"cannot create {self.url}/{path}: other writers of this key keep conflicting; run it again")

    def put(self, path: str, data: bytes) -> None:
        with self._failing_as("write", path):
            self._s3().pipe_file(self._key(path), data)

    def read(self, path: str) -> bytes:
        with self._failing_as("read", path):
            # One GET: s3fs's parallel read asks HEAD first, whose 404 does not tell a missing key from a bucket.
            data: bytes = self._s3().cat_file(self._key(path), max_concurrency=1)
            return data

    def list(self, prefix: str) -> list[str]:
        folder = self.prefix + "".join(f"{part}/" for part in prefix.split("/") if part)
        found: set[str] = set()
        more: dict[str, str] = {}
        with self._failing_as("list", prefix):
            # Straight to the API: no listing cache, and no folder semantics on top of the keys.
            while True:
                page = self._s3().call_s3("list_objects_v2", Bucket=self.bucket, Prefix=folder, **more)
                found.update(entry["Key"] for entry in page.get("Contents", ()))
                if not page.get("IsTruncated"):
                    break
                more = {"ContinuationToken": page["NextContinuationToken"]}
        return sorted(key.removeprefix(self.prefix) for key in found if not key.endswith("/"))

    def delete(self, path: str) -> None:
        with self._failing_as("delete", path), contextlib.suppress(FileNotFoundError):
            self._s3().call_s3("delete_object", Bucket=self.bucket, Key=self.prefix + "/".join(_parts(path)))

    def arrow(self) -> tuple[Any, str]:
        from pyarrow import fs

        # Through the same client, so that Arrow reads with the settings and credentials that wrote.
        return fs.PyFileSystem(fs.FSSpecHandler(self._s3())), f"{self.bucket}/{self.prefix}".rstrip("/")

    def _key(self, path: str) -> str:
        return f"{self.bucket}/{self.prefix}{'/'.join(_parts(path))}"

    def _s3(self) -> Any:
        with self._opening:
            if self._client is None:
                import s3fs

                self._client = s3fs.S3FileSystem(skip_instance_cache=True, use_listings_cache=False)
            return self._client

    @contextlib.contextmanager
    def _failing_as(self, operation: str, path: str) -> Iterator[None]:
        try:
            yield
        # All of it: s3fs lets errors of botocore, aiohttp and asyncio through, and each one is a failed operation.
        except Exception as error:
            if operation == "read" and _code_of(error) in _MISSING:
                raise FileNotFoundError(f"{self.url}/{path}") from None
            raise self._failure(operation, path, error) from error

    def _failure(self, operation: str, path: str, error: BaseException) -> StoreError:
        code = _code_of(error)
        shown = f"{code}: {error}" if code else f"{type(error).__name__}: {error}"
        if code in _REFUSED:
            mend = "the credentials were refused; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their rights"
        elif code == "NoSuchBucket":
            mend = f"the bucket {self.bucket} does not exist; create it, or check AWS_ENDPOINT_URL"
        elif code is None:
            mend = "no answer from the server; check AWS_ENDPOINT_URL, the network and that credentials are set"
        else:
            mend = "the server refused; see its answer above"
        kind = StoreRefused if code in _REFUSED or code == "NoSuchBucket" else StoreError
        return kind(f"cannot {operation} {self.url}/{path}: {shown}; {mend}")


_TAKEN = {"PreconditionFailed", "412"}
_CONFLICT = {"ConditionalRequestConflict", "OperationAborted", "409"}
_MISSING = {"NoSuchKey", "404"}
_REFUSED = {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403"}


def _code_of(error: BaseException | None) -> str | None:
    """The S3 error code underneath whatever s3fs raised: its Python types differ from server to server."""
    from botocore.exceptions import ClientError

    taken = isinstance(error, FileExistsError)
    while error is not None:
        if isinstance(error, ClientError):
            return str(error.response.get("Error", {}).get("Code"))
        error = error.__cause__ or error.__context__
    return "PreconditionFailed" if taken else None


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise StoreError(f"{path!r} is no path inside a run directory: it has an empty or a dot part")
    return parts


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
