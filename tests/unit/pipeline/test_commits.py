"""Committed output is exactly once per item, whatever crashes or races: the run directory on a local disk."""

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.commits import CommitOutcome
from pipeline.errors import StoreError
from pipeline.filesystem import LocalFiles
from pipeline.records import Answer, DeadLetter, Decision, Sample, Shard, StopReason
from pipeline.run import open_run
from pipeline.store import Store


@dataclass(frozen=True)
class DatasetPlan:
    shards: tuple[Shard, ...]
    items: int
    has_reference: bool = False


def plan_of(*sizes: int) -> DatasetPlan:
    shards = [Shard(number, size) for number, size in enumerate(sizes)]
    return DatasetPlan(tuple(shards), sum(sizes))


def ids_of(shard: Shard) -> list[str]:
    return [f"{shard.shard_id}-{number}" for number in range(shard.items)]


def answer(item_id: str, text: str = "it is 4") -> Answer:
    return Answer(item_id, "4", text, StopReason.SETTLED, 0.97, votes=3, samples=4, tokens=40)


def sample(item_id: str, writer: str = "w0") -> Sample:
    return Sample(item_id, 0, "key", "it is 4", completion_tokens=5, writer=writer)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "run"))


def commit(store: Store, shard: Shard, generation: int = 0, writer: str = "w0") -> CommitOutcome:
    *answered, dead = ids_of(shard)
    return store.commit(
        shard.shard_id,
        generation,
        [answer(item_id, writer) for item_id in answered],
        [sample(item_id, writer) for item_id in answered],
        [Decision(item_id, 1, "stop", 0.1, 0.2, 0.9) for item_id in answered],
        [DeadLetter(dead, "engine", "the worker died", attempts=3)],
        writer,
    )


# --- commits ---------------------------------------------------------------------------------------------------------


def test_the_first_writer_wins_and_the_loser_cleans_up(store: Store) -> None:
    shard = plan_of(3).shards[0]
    won = commit(store, shard, writer="w0")
    before = store.files.list("")
    lost = commit(store, shard, writer="w1")
    assert (won.won, lost.won) == (True, False)
    assert lost.commit == won.commit == store.commits()[0]
    assert (won.commit.writer, won.commit.items, won.commit.tokens) == ("w0", 3, 10)
    assert won.commit.rows == {"answers": 2, "samples": 2, "decisions": 2, "dead_letters": 1}
    assert store.files.list("") == before


def test_one_life_may_commit_again(store: Store) -> None:
    shard = plan_of(3).shards[0]
    first, again = commit(store, shard), commit(Store.open(store.url), shard)
    assert not again.won
    assert again.commit == first.commit
    assert len(store.files.list("")) == 1 + len(first.commit.files)


def test_empty_tables_write_no_file(store: Store) -> None:
    outcome = store.commit(0, 0, [answer("a")], [], [], [], "w0")
    assert outcome.commit.files.keys() == {"answers"}
    assert len(store.files.list("")) == 2


def test_an_item_twice_in_a_shard_is_refused_before_anything_is_written(store: Store) -> None:
    with pytest.raises(StoreError, match=r"shard 0: items answered or dead-lettered twice: a"):
        store.commit(0, 0, [answer("a"), answer("b")], [], [], [DeadLetter("a", "engine", "died")], "w0")
    assert store.files.list("") == []


def test_16_threads_commit_one_shard(store: Store) -> None:
    together, shard = threading.Barrier(16), plan_of(3).shards[0]

    def race(number: int) -> CommitOutcome:
        together.wait()
        return commit(Store.open(store.url), shard, writer=f"w{number}")

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(race, range(16)))
    (winner,) = [outcome.commit for outcome in outcomes if outcome.won]
    assert all(outcome.commit == winner for outcome in outcomes)
    assert set(store.files.list("")) == {"commits/000000.g0.json", *winner.files.values()}


# --- the end ---------------------------------------------------------------------------------------------------------


def test_finish_top_up_finish(store: Store) -> None:
    plan = plan_of(3, 2)
    store.begin({}, {})
    store.write_plan(plan)
    for shard in plan.shards:
        commit(store, shard)
    store.journal(0, [sample("0-0")], "w0", 0)
    assert store.finished() is None
    store.finish({"spent": 12})
    assert store.finished() == {"spent": 12, "items": 5, "answered": 3, "dead_lettered": 2}
    store.reopen()
    assert store.finished() is None
    commit(store, plan.shards[0], generation=1, writer="w1")
    assert open_run(store.url).answers().to_table()["text"].to_pylist() == ["w1", "w1", "w0"]
    store.finish({"spent": 20})
    assert store.finished() == {"spent": 20, "items": 5, "answered": 3, "dead_lettered": 2}
    named = {path for each in store.commits().values() for path in each.files.values()}
    assert set(store.files.list("")) - named == {
        "_SUCCESS.json",
        "commits/000000.g0.json",
        "commits/000000.g1.json",
        "commits/000001.g0.json",
        "journal/000000/w0-000000.parquet",
        "plan/shards.parquet",
        "run.json",
    }


def test_orphans_go_after_success_only_where_their_generation_is_decided(store: Store) -> None:
    plan = plan_of(2, 2)
    store.write_plan(plan)
    commit(store, plan.shards[0], generation=1)
    decided = [f"{folder}/000000.g{n}-w9-0.parquet" for folder in ("samples", "dead_letter") for n in (0, 1)]
    open_ones = ["samples/000000.g2-w9-0.parquet", "samples/000009.g0-w9-0.parquet", "samples/notes.txt"]
    for path in decided + open_ones:
        store.files.put(path, b"")
    with pytest.raises(StoreError, match=r"shards without a commit: 1; shards no plan knows: none; run the same"):
        store.finish({})
    assert set(decided) < set(store.files.list(""))
    assert store.finished() is None
    commit(store, plan.shards[1])
    store.finish({})
    left = set(store.files.list(""))
    assert not left & set(decided)
    assert set(open_ones) < left


def test_finish_names_what_is_wrong(store: Store) -> None:
    store.write_plan(plan_of(*[2] * 8))
    with pytest.raises(StoreError, match=r"without a commit: 0, 1, 2, 3, 4 and 3 more"):
        store.finish({})
    for number in range(8):
        store.commit(number, 0, [answer(f"{number}"), answer("both")], [], [], [], "w0")
    with pytest.raises(StoreError, match="more than once: both"):
        store.finish({})
    store.commit(3, 1, [answer("3")], [], [], [], "w0")
    with pytest.raises(StoreError, match="not as many as planned: 3"):
        store.finish({})
    store.commit(8, 0, [answer("8")], [], [], [], "w0")
    with pytest.raises(StoreError, match="shards no plan knows: 8"):
        store.finish({})
    assert store.finished() is None


@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_finish_reads_the_files_not_the_claims(store: Store, damage: str) -> None:
    plan = plan_of(3)
    store.write_plan(plan)
    path = Path(store.url, commit(store, plan.shards[0]).commit.files["answers"])
    path.write_bytes(b"torn") if damage == "torn" else path.unlink()
    with pytest.raises(StoreError, match=path.name):
        store.finish({})
    assert store.finished() is None


# --- random interleavings --------------------------------------------------------------------------------------------


class Crash(Exception):
    """A process ended here."""


class Turns(LocalFiles):
    """Files whose every write or delete waits for its turn, and may be the last thing this life does."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.go, self.waiting = threading.Semaphore(0), threading.Semaphore(0)
        self.alive, self.dies = True, ""

    @contextmanager
    def _turn(self) -> Iterator[None]:
        self.waiting.release()
        self.go.acquire()
        if self.dies == "before":
            raise Crash
        yield
        if self.dies == "after":
            raise Crash

    def create(self, path: str, data: bytes) -> bool:
        with self._turn():
            return super().create(path, data)

    def put(self, path: str, data: bytes) -> None:
        with self._turn():
            super().put(path, data)

    def delete(self, path: str) -> None:
        with self._turn():
            super().delete(path)


def in_turns(lives: list[tuple[Turns, Callable[[], None]]], schedule: list[tuple[int, str]]) -> None:
    """Run the lives a write at a time in the order of ``schedule`` (which, and whether it dies), then to their ends."""

    failures: list[Exception] = []

    def run(files: Turns, work: Callable[[], None]) -> None:
        try:
            work()
        except Crash:
            pass
        except Exception as error:
            failures.append(error)
        finally:
            files.alive = False
            files.waiting.release()

    threads = [threading.Thread(target=run, args=life, daemon=True) for life in lives]
    for (files, _), thread in zip(lives, threads, strict=True):
        thread.start()
        files.waiting.acquire()
    rest = [(number, "") for number in range(len(lives)) for _ in range(1000)]
    for number, dies in schedule + rest:
        files = lives[number % len(lives)][0]
        if files.alive:
            files.dies = dies
            files.go.release()
            files.waiting.acquire()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert failures == []


STEP = st.tuples(st.integers(0, 1), st.sampled_from(["", "", "", "", "before", "after"]))


@settings(max_examples=60, deadline=None)
@given(
    rounds=st.lists(st.lists(STEP, max_size=40), max_size=4), sizes=st.lists(st.integers(1, 3), min_size=1, max_size=3)
)
def test_every_id_exactly_once_however_two_writers_interleave_and_crash(
    rounds: list[list[tuple[int, str]]], sizes: list[int]
) -> None:
    folder = tempfile.mkdtemp()
    outcomes: list[CommitOutcome] = []
    try:
        plan = plan_of(*sizes)
        store = Store.open(folder)
        store.begin({}, {})
        store.write_plan(plan)
        for number, schedule in enumerate([*rounds, []]):
            lives = [life(folder, plan, f"w{number}-{which}", number, outcomes) for which in (0, 1)]
            in_turns(lives, schedule)
        store.finish({})
        run = open_run(folder)
        for outcome in outcomes:
            told = outcome.commit
            path = f"commits/{told.shard_id:06d}.g{told.generation}.json"
            assert json.loads(store.files.read(path)) == json.loads(json.dumps(asdict(told))), (
                "what a life was told is what stands"
            )
        told_to_win = [(each.commit.shard_id, each.commit.generation) for each in outcomes if each.won]
        assert len(told_to_win) == len(set(told_to_win))
        answers, samples, dead = (
            each().to_table().to_pylist() for each in (run.answers, run.samples, run.dead_letters)
        )
        planned = sorted(item_id for shard in plan.shards for item_id in ids_of(shard))
        assert sorted(row["item_id"] for row in answers + dead) == planned
        # No shard mixes two writers: each answer stands beside the sample its own writer paid for.
        assert sorted((row["item_id"], row["text"]) for row in answers) == sorted(
            (row["item_id"], row["writer"]) for row in samples
        )
        named = {path for each in run.commits.values() for path in each.files.values()}
        data = {path for path in store.files.list("") if path.endswith(".parquet") and not path.startswith("plan/")}
        generations = {shard_id: each.generation for shard_id, each in run.commits.items()}
        assert named <= data
        for path in data - named:
            shard_id, generation = Path(path).name.split("-")[0].split(".g")
            assert int(generation) > generations[int(shard_id)], "only a generation still undecided may leave orphans"
    finally:
        shutil.rmtree(folder)


def life(
    folder: str, plan: DatasetPlan, writer: str, number: int, outcomes: list[CommitOutcome]
) -> tuple[Turns, Callable[[], None]]:
    """A worker life that commits every shard: odd ones as a second generation where the first is there."""
    files = Turns(folder)
    store = Store(files)

    def work() -> None:
        for shard in plan.shards:
            newest = store.commits().get(shard.shard_id)
            generation = number % 2 + (newest.generation if newest else 0)
            outcomes.append(commit(store, shard, generation, writer))

    return files, work
