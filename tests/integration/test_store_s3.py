"""The store's promises against real S3 servers. Each test runs its own server."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.commits import CommitOutcome
from pipeline.errors import RunMismatch, StoreError, UsageError
from pipeline.filesystem import S3Files, open_files
from pipeline.records import Answer, DeadLetter, Sample, Segment, Shard, StopReason
from pipeline.run import open_run
from pipeline.spending import spent_by_life
from pipeline.store import Store
from tests.integration.s3_servers import BUCKET, SERVERS, S3Server

pytestmark = pytest.mark.s3

WRITERS = 8
"""Racing writers: SeaweedFS backs off in steps of a second when several race for a key."""


@dataclass(frozen=True)
class DatasetPlan:
    shards: tuple[Shard, ...]
    items: int


@pytest.fixture(params=sorted(SERVERS))
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with SERVERS[request.param]() as running:
        running.use(monkeypatch)
        yield running


@pytest.fixture
def seaweedfs(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with SERVERS["seaweedfs"]() as running:
        running.use(monkeypatch)
        yield running


def answer(item_id: str, text: str) -> Answer:
    return Answer(item_id, "4", text, StopReason.SETTLED, 0.97, votes=3, samples=4, tokens=40)


def sample(item_id: str, writer: str) -> Sample:
    return Sample(item_id, 0, "key", "it is 4", completion_tokens=5, writer=writer)


def commit(store: Store, shard: int, generation: int, writer: str) -> CommitOutcome:
    first, second = f"{shard}-a", f"{shard}-b"
    dead = [DeadLetter(second, "engine", "the worker died", attempts=3)]
    return store.commit(shard, generation, [answer(first, writer)], [sample(first, writer)], [], dead, writer)


def test_files(server: S3Server) -> None:
    files = open_files(f"s3://{BUCKET}/a//run/")
    assert files.url == f"s3://{BUCKET}/a/run"
    assert files.list("") == []
    with pytest.raises(FileNotFoundError):
        files.read("a/one")
    assert files.create("a/one", b"1")
    assert files.create("a/one", b"1"), "a lost answer that was retried"
    assert not files.create("a/one", b"2")
    files.put("a/b/two", b"2")
    files.put("a/b/two", b"33")
    files.put("a-b/three", b"")
    files.put("ab", b"4")
    # Another run whose name begins alike is never seen.
    open_files(f"s3://{BUCKET}/a/run2").put("a/other", b"5")
    assert (files.read("a/one"), files.read("a/b/two"), files.read("a-b/three")) == (b"1", b"33", b"")
    assert files.list("") == ["a-b/three", "a/b/two", "a/one", "ab"]
    assert files.list("a") == files.list("a/") == ["a/b/two", "a/one"]
    files.delete("a/one")
    files.delete("a/one")
    assert files.list("a") == ["a/b/two"]
    assert files.create("a/one", b"2")

    with pytest.raises(StoreError, match=r"s3://no-such-bucket/run/a: NoSuchBucket.*create it"):
        open_files("s3://no-such-bucket/run").read("a")
    with pytest.raises(StoreError, match=r"no-such-bucket does not exist"):
        open_files("s3://no-such-bucket/run").list("")


def test_a_listing_of_many_pages(server: S3Server) -> None:
    files = open_files(f"s3://{BUCKET}/run")
    paths = {f"journal/{number % 7:06d}/w{number % 3}-{number:06d}.parquet" for number in range(1203)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: files.put(path, b"x"), paths))
    assert files.list("") == sorted(paths)
    assert files.list("journal") == sorted(paths)
    assert set(files.list("journal/000003")) == {path for path in paths if path.startswith("journal/000003/")}


def test_a_race_has_one_winner(server: S3Server) -> None:
    together = threading.Barrier(WRITERS)

    def race(number: int) -> tuple[bool, CommitOutcome]:
        store = Store.open(f"s3://{BUCKET}/run")
        assert isinstance(store.files, S3Files)
        together.wait()
        resumed = store.begin({"seed": 1}, {"seed": "s"}).resumed
        return resumed, commit(store, 0, 0, f"w{number}")

    with ThreadPoolExecutor(WRITERS) as pool:
        results = list(pool.map(race, range(WRITERS)))
    assert sum(not resumed for resumed, _ in results) == 1
    (winner,) = [outcome.commit for _, outcome in results if outcome.won]
    assert all(outcome.commit == winner for _, outcome in results)
    present = set(open_files(f"s3://{BUCKET}/run").list(""))
    assert present == {"run.json", "commits/000000.g0.json", *winner.files.values()}


def test_a_whole_run(server: S3Server) -> None:
    url = f"s3://{BUCKET}/team/run"
    store = Store.open(url)
    with pytest.raises(UsageError, match="no run at"):
        store.run_info()
    store.begin({"seed": 1, "budget": {"tokens": 50}}, {"seed": "s"})
    with pytest.raises(RunMismatch, match="seed: 1"):
        store.begin({"seed": 2}, {"seed": "t"})
    store.set_budget(100)
    store.set_budget(200)
    assert store.budget() == 200
    plan = DatasetPlan(tuple(Shard(n, 2, (Segment("q.jsonl", 2 * n, 2 * n + 2),)) for n in range(3)), 6)
    store.write_plan(plan)
    assert Store.open(url).read_plan() == list(plan.shards)
    store.record_attempts(0, ["0-a", "0-b"], "w0", 0)
    store.release_attempts(0, ["0-a"], "w0", 1)
    assert store.attempts(0) == {"0-b": 1}
    store.journal(0, [sample("0-a", "w0")], "w0", 0)
    store.journal(0, [sample("0-a", "w1")], "w1", 0)
    assert store.read_journal(0) == [sample("0-a", "w0")]
    assert spent_by_life(store) == {"w0": 5, "w1": 5}

    for number in range(3):
        assert commit(store, number, 0, "w0").won
    assert not commit(store, 1, 0, "w1").won
    store.files.put("answers/000002.g0-w7-0.parquet", b"the files of a life that ended before its commit")
    store.finish({"spent": 10})
    assert Store.open(url).finished() == {"spent": 10, "items": 6, "answered": 3, "dead_lettered": 3}
    store.reopen()
    assert store.finished() is None
    assert commit(store, 1, 1, "w2").won
    store.finish({"spent": 20})

    run = open_run(url)
    rows = run.answers().to_table(columns=["item_id", "text"]).to_pylist()
    assert [(row["item_id"], row["text"]) for row in rows] == [("0-a", "w0"), ("1-a", "w2"), ("2-a", "w0")]
    assert set(run.dead_letters().to_table()["item_id"].to_pylist()) == {"0-b", "1-b", "2-b"}
    assert run.decisions().to_table().num_rows == 0
    data = {path for path in store.files.list("") if path.startswith(("answers", "samples", "dead_letter"))}
    assert data == {path for each in run.commits.values() for path in each.files.values()}
    assert run.paths("answers") == [f"{url}/{each.files['answers']}" for each in run.commits.values()]


def test_wrong_credentials_are_refused(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    open_files(f"s3://{BUCKET}/run").put("a", b"1")
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        with monkeypatch.context() as environment:
            environment.setenv(name, "wrong")
            files = open_files(f"s3://{BUCKET}/run")
            for operation in (
                lambda files=files: files.read("a"),
                lambda files=files: files.create("b", b"1"),
                lambda files=files: files.put("a", b"2"),
                lambda files=files: files.list(""),
                lambda files=files: files.delete("a"),
                lambda files=files: Store(files).begin({}, {}),
            ):
                with pytest.raises(StoreError, match=r"cannot \w+ s3://.*credentials were refused; check AWS_"):
                    operation()
    assert open_files(f"s3://{BUCKET}/run").read("a") == b"1"


def test_no_server_and_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    S3Server("none", "http://127.0.0.1:9").use(monkeypatch)
    with pytest.raises(StoreError, match=r"cannot read s3://runs/run/a: .*check AWS_ENDPOINT_URL"):
        open_files(f"s3://{BUCKET}/run").read("a")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoreError, match=r"cannot write s3://runs/run/a: .*credentials"):
        open_files(f"s3://{BUCKET}/run").put("a", b"1")
