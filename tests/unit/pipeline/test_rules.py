"""Rules of a run directory on a local disk: who may change them, when, and what a reader sees meanwhile."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.errors import RunMismatch, StoreError
from pipeline.records import Answer, Sample, Shard, StopReason
from pipeline.run import open_run
from pipeline.store import Store

PRINT = {"seed": "s", "strategy": "first"}


def job(confidence: float = 0.95) -> dict:
    return {"seed": 1, "strategy": {"kind": "self_consistency", "confidence": confidence}}


def print_of(name: str) -> dict[str, str]:
    return {**PRINT, "strategy": name}


@dataclass(frozen=True)
class OneShard:
    shards: tuple[Shard, ...] = (Shard(0, 1),)
    items: int = 1


def commit(store: Store, answer: str, generation: int = 0, rule: int = 0) -> None:
    rows = [Answer("a", answer, answer, StopReason.SETTLED, 0.9, votes=1, samples=1, tokens=5)]
    samples = [Sample("a", 0, "key", answer, completion_tokens=5, writer="w0")]
    store.commit(0, generation, rows, samples, [], [], "w0", rule)


@pytest.fixture
def finished(tmp_path: Path) -> Store:
    store = Store.open(str(tmp_path / "run"))
    store.begin(job(), PRINT)
    store.write_plan(OneShard())
    commit(store, "old")
    store.finish({})
    return store


def answers(store: Store) -> list[str]:
    return open_run(store.url).answers().to_table()["answer"].to_pylist()


def test_another_rule_makes_a_finished_run_unfinished(finished: Store) -> None:
    begun = finished.begin(job(0.5), print_of("second"))
    assert (begun.resumed, begun.reselects, begun.info.rule) == (True, True, 0)
    assert finished.finished() is not None, "begin changes nothing"
    finished.reselect(job(0.5), print_of("second"))
    info = Store.open(finished.url).run_info()
    assert (info.rule, info.job, info.fingerprint) == (1, job(0.5), print_of("second"))
    assert finished.finished() is None
    assert answers(finished) == ["old"]
    again = finished.begin(job(0.5), print_of("second"))
    assert (again.resumed, again.reselects) == (True, False)
    finished.reselect(job(0.5), print_of("second"))
    assert finished.files.list("rules") == ["rules/000001.json"]
    record = json.loads(finished.files.read("rules/000001.json"))
    assert (record["strategy"], record["digest"]) == (job(0.5)["strategy"], "second")


def test_the_newest_rule_stands_whatever_its_generation(finished: Store) -> None:
    commit(finished, "older, topped up", generation=3)
    finished.reopen()
    finished.finish({})
    finished.reselect(job(0.5), print_of("second"))
    with pytest.raises(StoreError, match="not answered by rule 1 yet: 0"):
        finished.finish({})
    commit(finished, "new", rule=1)
    assert [finished.commits()[0].rule, finished.commits()[0].generation] == [1, 0]
    assert answers(finished) == ["new"]
    finished.finish({"spent": 5})
    assert finished.finished() == {"spent": 5, "items": 1, "answered": 1, "dead_lettered": 0, "rule": 1}
    assert [path.split("-")[0] for path in finished.files.list("answers")] == ["answers/000000.r1.g0"]
    assert finished.files.list("commits") == [
        "commits/000000.g0.json",
        "commits/000000.g3.json",
        "commits/000000.r1.g0.json",
    ]


def test_an_unfinished_run_keeps_its_rule(finished: Store) -> None:
    finished.reopen()
    with pytest.raises(RunMismatch, match=r"strategy\.confidence: 0\.95 \(run\) → 0\.5 \(job\)"):
        finished.begin(job(0.5), print_of("second"))
    with pytest.raises(RunMismatch, match=r"strategy\.confidence"):
        finished.reselect(job(0.5), print_of("second"))
    assert finished.files.list("rules") == []


def test_more_than_the_strategy_is_another_run(finished: Store) -> None:
    other = {**print_of("second"), "seed": "t"}
    with pytest.raises(RunMismatch, match="seed: 1"):
        finished.begin({**job(0.5), "seed": 2}, other)
    with pytest.raises(RunMismatch, match="seed: 1"):
        finished.reselect({**job(0.5), "seed": 2}, other)
    assert finished.finished() is not None


def test_of_16_drivers_with_8_rules_one_rule_wins(finished: Store) -> None:
    together = threading.Barrier(16)

    def race(number: int) -> bool:
        rule = number % 8
        together.wait()
        try:
            Store.open(finished.url).reselect(job(rule / 10), print_of(str(rule)))
        except RunMismatch:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(race, range(16)))
    winner = int(finished.run_info().fingerprint["strategy"])
    assert {number for number, ok in enumerate(won) if ok} == {winner, winner + 8}
    assert finished.files.list("rules") == ["rules/000001.json"]


def test_a_rule_that_cannot_be_read_is_an_error(finished: Store) -> None:
    finished.files.put("rules/000001.json", b'{"strategy": {}}')
    with pytest.raises(StoreError, match=r"rules/000001\.json is corrupt"):
        finished.run_info()


def test_commits_and_success_of_before_there_were_rules_are_the_first_rules(finished: Store) -> None:
    path = "commits/000000.g0.json"
    raw = json.loads(finished.files.read(path))
    del raw["rule"]
    finished.files.put(path, json.dumps(raw).encode())
    reader = Store.open(finished.url)
    assert reader.commits()[0].rule == 0
    assert reader.finished() == {"items": 1, "answered": 1, "dead_lettered": 0}
