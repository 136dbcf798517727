"""Where recorded samples lie, and which of their columns mean what: Parquet row groups, or the shards of a run.

Promises: a part reads into one Arrow table whose columns are named by role, whatever they are called in the file;
samples that were cut in mid-generation are left out, for they never voted; what cannot be read is a ``SourceError``
that names the column and the mend. Owns nothing: a part is opened for each read. May not know about questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import PonderError, SourceError, UsageError
from pipeline.records import CUT
from pipeline.reviews import reviewers, with_reviews
from pipeline.run import Run, open_run
from pipeline.source_files import find_files, opened
from pipeline.spec import AnswerSpec, parse

REQUIRED = ("item_id", "sample_index", "answer")
ROLES = (
    *REQUIRED, "reference", "completion_tokens", "mean_logprob", "sum_logprob", "token_logprobs",
    "token_confidence", "min_group_confidence", "score", "text", "finish_reason", "temperature", "verdicts",
)  # fmt: skip
"""What a column can mean. Each is read from the column of its own name where ``--columns`` names no other."""
_NUMBERS = ("completion_tokens", "mean_logprob", "sum_logprob", "min_group_confidence", "score", "temperature")
_VERDICT = {"verifier", "score", "error", "tokens"}
"""Fields of the structs in a column of verdicts, as runs write them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is read besides answers and their numbers: completions and their tokens' confidences (``text``),
    ``verdicts``; ``greedy``: of a recording with temperatures the samples at 0 alone (True), those above it (False), or
    all of them (None)."""

    text: bool = False
    verdicts: bool = False
    greedy: bool | None = None


ANSWERS = Wanted()


class Part(Protocol):
    """A piece of a recording that is read at once."""

    @property
    def rows(self) -> int:
        """Rows as stored, those that are left out included."""
        ...

    def read(self) -> Any:
        """A ``pyarrow.Table`` of the columns that are there: item_id, answer, reference, text: string; sample_index,
        completion_tokens: int64; mean_logprob, min_group_confidence, score: double; token_confidence: list of double;
        verdicts: list of structs.

        Raises SourceError."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """A recording's parts in order; ``answer`` is how the run they come from compares answers, where it is one."""

    name: str
    parts: tuple[Part, ...]
    answer: AnswerSpec | None


def parse_columns(text: str) -> dict[str, str]:
    """``item_id=question_id,reference=gold`` as role → column. Raises UsageError."""
    found: dict[str, str] = {}
    for word in filter(None, (part.strip() for part in text.split(","))):
        role, separator, column = (part.strip() for part in word.partition("="))
        if not separator or not column:
            raise UsageError(f"--columns {word!r}: write it as role=column, for example item_id=question_id")
        if role in found:
            raise UsageError(f"--columns: {role} is given twice; name one column for it")
        found[role] = column
    return checked_columns(found)


def checked_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """The same mapping, its roles checked. Raises UsageError."""
    for role in columns:
        if role not in ROLES:
            raise UsageError(f"--columns: {role!r} is nothing a recorded sample has; choose from {', '.join(ROLES)}")
    return dict(columns)


def find_parts(source: str, columns: Mapping[str, str], wanted: Wanted) -> Parts:
    """The parts of a Parquet file, a glob of them (local or ``s3://``) or a run's directory.

    ``text``: read completions too; they are most of a recording's bytes.

    Raises:
        SourceError: nothing is there, it is not Parquet, or a column is missing.
        UsageError: a directory that holds no run.
    """
    if not source.lower().endswith(".parquet") and not any(sign in source for sign in "*?["):
        return _run_parts(source, columns, wanted)
    with _said(source):
        paths = find_files(source)
    parts: list[Part] = []
    for path in paths:
        if not path.lower().endswith(".parquet"):
            raise SourceError(f"{path}: recorded samples are read from Parquet; convert the file, or narrow the glob")
        with _parquet(path) as file:
            names = _resolved(path, file.schema_arrow, columns, wanted)
            groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        parts += [FilePart(path, group, rows, names, wanted.greedy) for group, rows in enumerate(groups) if rows]
    return Parts(source, tuple(parts), None)


@dataclass(frozen=True, slots=True)
class FilePart:
    """One row group of one Parquet file. ``names``: role → column, of those it has. ``greedy``: see ``Wanted``."""

    path: str
    group: int
    rows: int
    names: Mapping[str, str]
    greedy: bool | None = None

    def read(self) -> Any:
        with _parquet(self.path) as file:
            table = file.read_row_group(self.group, columns=sorted(set(self.names.values())), use_threads=False)
            return by_role(table, self.names, self.path, self.greedy)


@dataclass(frozen=True, slots=True)
class RunPart:
    """The samples of one committed shard of a run, each beside its question's reference.

    Of a question that was asked in several ways (arms, several models) those of the way most samples came from.
    ``reviewers``: later verifiers (``ponder verify``) whose verdicts stand beside the run's own.
    """

    run: Run
    shard_id: int
    path: str
    rows: int
    names: Mapping[str, str]
    reviewers: tuple[str, ...] = ()

    def read(self) -> Any:
        import pyarrow as pa

        with _parquet(self.path) as file:
            columns = sorted({*self.names.values(), "prompt_key"})
            found = _one_way(file.read(columns=columns, use_threads=False))
        if self.reviewers:
            found = with_reviews(found, self.run.store.files, self.shard_id, self.reviewers)
        table = by_role(found, self.names, self.path)
        answers = self.run.shard_answers(self.shard_id).to_table(columns=["item_id", "reference"], use_threads=False)
        known = dict(zip(answers["item_id"].to_pylist(), answers["reference"].to_pylist(), strict=True))
        references = [known.get(item_id) for item_id in table["item_id"].to_pylist()]
        return table.append_column("reference", pa.array(references, pa.string()))


def _one_way(table: Any) -> Any:
    """Rows of each item's most frequent ``prompt_key``; of equals the one that stands first."""
    import pyarrow as pa

    pairs = list(zip(table["item_id"].to_pylist(), table["prompt_key"].to_pylist(), strict=True))
    counts: dict[str, Counter[str]] = {}
    for item_id, key in pairs:
        counts.setdefault(item_id, Counter())[key] += 1
    if all(len(keys) == 1 for keys in counts.values()):
        return table
    most = {item_id: keys.most_common(1)[0][0] for item_id, keys in counts.items()}
    return table.filter(pa.array([most[item_id] == key for item_id, key in pairs]))


def _run_parts(url: str, columns: Mapping[str, str], wanted: Wanted) -> Parts:
    if wanted.greedy:
        raise SourceError(f"{url}: a run does not say at which temperature a sample was drawn")
    if columns:
        raise UsageError(f"--columns: {url} is read as a run, whose columns are known; leave --columns out")
    try:
        run = open_run(url)
    except UsageError as error:
        raise UsageError(
            f"{url} is neither a Parquet file nor a run ({error}); name one, or a glob in quotes"
        ) from None
    later = tuple(reviewers(run.store.files)) if wanted.verdicts else ()
    parts: list[Part] = []
    for shard_id, commit in sorted(run.commits.items()):
        if not commit.rows["samples"]:
            continue
        path = f"{run.store.url}/{commit.files['samples']}"
        with _parquet(path) as file:
            names = _resolved(path, file.schema_arrow, {}, wanted)
        parts.append(RunPart(run, shard_id, path, commit.rows["samples"], names, later))
    if not parts:
        raise SourceError(f"{url}: the run has no committed samples yet; let it go on with `ponder run`")
    return Parts(url, tuple(parts), parse(run.info.job).answer)


def _resolved(path: str, schema: Any, columns: Mapping[str, str], wanted: Wanted) -> dict[str, str]:
    """Role → column, for what the file has and replay reads."""
    names: list[str] = schema.names
    found: dict[str, str] = {}
    for role in ROLES:
        column = columns.get(role, role)
        if column in names:
            found[role] = column
        elif role in REQUIRED or role in columns:
            mend = f"--columns {role}=…" if role not in columns else "mend --columns"
            there = ", ".join(names)
            raise SourceError(f"{path} has no column {column!r} for {role}; {mend}. The columns there are: {there}")
    if not wanted.text:
        found.pop("text", None)
        found.pop("token_confidence", None)
    if not wanted.verdicts or not _holds_verdicts(schema, found.get("verdicts")):
        found.pop("verdicts", None)
    if wanted.greedy is None:
        found.pop("temperature", None)
    elif wanted.greedy and "temperature" not in found:
        raise SourceError(f"{path} has no column 'temperature'; name it by --columns temperature=…")
    if "mean_logprob" in found:
        # One log-probability a sample is enough, and the mean is what needs no other column.
        found.pop("sum_logprob", None)
        found.pop("token_logprobs", None)
    elif "token_logprobs" in found:
        found.pop("sum_logprob", None)
    if "sum_logprob" in found and "completion_tokens" not in found:
        if "sum_logprob" in columns:
            raise SourceError(f"{path}: sum_logprob is divided by completion_tokens, which has no column; name it too")
        del found["sum_logprob"]
    return found


def _holds_verdicts(schema: Any, column: str | None) -> bool:
    """Whether a column is a list of verdicts as runs write them; one of that name may be anything."""
    import pyarrow as pa

    if column is None:
        return False
    kind = schema.field(column).type
    inner = kind.value_type if pa.types.is_list(kind) else None
    return inner is not None and pa.types.is_struct(inner) and {field.name for field in inner} >= _VERDICT


def by_role(table: Any, names: Mapping[str, str], path: str, greedy: bool | None = None) -> Any:
    """``table`` with its columns named and typed by role, without samples that were cut. See ``Part.read``.

    ``greedy``: see ``Wanted``; a sample of unknown temperature was drawn above 0.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, Any] = {}
    for role, name in names.items():
        column = table.column(name)
        try:
            if role in ("item_id", "answer", "reference", "text", "finish_reason"):
                columns[role] = _text(column)
            elif role == "sample_index":
                columns[role] = column.cast(pa.int64())
            elif role in _NUMBERS:
                columns[role] = column.cast(pa.float64())
            elif role == "token_logprobs":
                columns["mean_logprob"] = _means(column)
            elif role == "token_confidence":
                columns[role] = column.cast(pa.list_(pa.float64()))
            elif role == "verdicts":
                columns[role] = column
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise SourceError(
                f"{path}: column {name!r} cannot be read as {role}: {error}; convert it, or name another by --columns"
            ) from None
    for role in REQUIRED[:2]:
        if columns[role].null_count:
            raise SourceError(f"{path}: column {names[role]!r} is null in a row; every sample needs its {role}")
    if "sum_logprob" in columns:
        tokens = pc.max_element_wise(columns["completion_tokens"], 1.0)
        columns["mean_logprob"] = pc.divide(columns.pop("sum_logprob"), tokens)
    if "completion_tokens" in columns:
        columns["completion_tokens"] = _whole(columns["completion_tokens"], names["completion_tokens"], path)
    finish, heat = columns.pop("finish_reason", None), columns.pop("temperature", None)
    found = pa.table(columns)
    kept = pa.chunked_array([pa.array([True] * found.num_rows)])
    if heat is not None:
        cold = pc.fill_null(pc.equal(heat, 0.0), False)
        kept = cold if greedy else pc.invert(cold)
    if finish is not None:
        kept = pc.and_(kept, pc.invert(pc.is_in(finish, value_set=pa.array(CUT))))
        if "text" in found.column_names:
            found = found.append_column("finish_reason", finish)
    return found if finish is None and heat is None else found.filter(kept)


def _text(column: Any) -> Any:
    """A column as text: numbers and booleans as Python writes them, empty and NaN as null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_string(inner) or pa.types.is_large_string(inner):
        found = column.cast(pa.string())
    else:
        from pipeline.readers import text_of

        # Each distinct value once: answers repeat.
        coded = column.combine_chunks().dictionary_encode()
        words = pa.array([text_of(value) for value in coded.dictionary.to_pylist()], pa.string())
        found = pa.chunked_array([words.take(coded.indices)])
    return pc.if_else(pc.equal(found, ""), None, found)


def _whole(column: Any, name: str, path: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    bad = pc.or_kleene(pc.invert(pc.is_finite(column)), pc.less(column, 0.0))
    if column.null_count or pc.any(bad).as_py():
        raise SourceError(f"{path}: column {name!r} (completion_tokens) must hold a number >= 0 in every row; mend it")
    return pc.ceil(column).cast(pa.int64())


def _means(column: Any) -> Any:
    """The mean of each list of log-probabilities; null where a list is null or empty."""
    import numpy as np
    import pyarrow as pa

    lists = column.combine_chunks()
    lengths = np.asarray(lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False), dtype=np.int64)
    values = np.asarray(lists.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    ends = np.cumsum(lengths)
    sums = np.zeros(len(lengths))
    filled = lengths > 0
    if filled.any():
        # reduceat sums from each start to the next; empty lists have no start of their own.
        sums[filled] = np.add.reduceat(values, (ends - lengths)[filled])
    means = np.divide(sums, lengths, out=np.full(len(lengths), np.nan), where=filled)
    return pa.chunked_array([pa.array(means, mask=~filled)])


@contextmanager
def _parquet(path: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _said(path), opened(path) as file:
        try:
            yield pq.ParquetFile(file)
        except PonderError:
            raise
        except (pa.ArrowException, ValueError) as error:
            raise SourceError(f"{path} is not readable Parquet: {error}; write it again, or leave it out") from None


@contextmanager
def _said(path: str) -> Iterator[None]:
    """Errors of the dataset's reader name a field of the job file; here there is none."""
    try:
        yield
    except SourceError as error:
        raise SourceError(str(error).removeprefix("dataset.path: ")) from None
