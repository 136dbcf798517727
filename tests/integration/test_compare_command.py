"""``ponder compare`` from outside: runs that share what they have in common, killed, resumed, and asked again."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.run import open_run
from pipeline.spending import spent_by_life
from pipeline.store import Store
from tests.integration.run_helpers import Ended, Job, outcome, ponder, questions, start, write_job

pytestmark = pytest.mark.ray

ROWS = 16
Place = tuple[str, int]
FIXED = {"strategy": {"kind": "self_consistency", "rule": "fixed:3", "max_samples": 3}}
MORE = {"strategy": {"kind": "self_consistency", "rule": "fixed:5", "max_samples": 5}}
"""Asks for what ``FIXED`` asks for, and for two samples more."""


def write(folder: Path, name: str, content: dict[str, Any]) -> str:
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return str(path)


def words(folder: Path, job: Job, *more: str) -> list[str]:
    strategies = ",".join(write(folder, f"{name}.yaml", each) for name, each in (("three", FIXED), ("five", MORE)))
    output = str(folder / "compared")
    return [
        "compare", str(job.path), "--strategies", strategies, "--budgets", "5000", "--output", output, "--json", *more,
    ]  # fmt: skip


def grid(samples: int, first: int = 0) -> Counter[Place]:
    return Counter((f"q{row:03d}", index) for row in range(ROWS) for index in range(first, samples))


def drawn(url: Path, generated: bool) -> Counter[Place]:
    """Samples of a run that it generated, or that it was given."""
    rows = outcome(str(url)).samples
    return Counter((row["item_id"], row["sample_index"]) for row in rows if (row["origin"] == "") == generated)


def spent(url: Path | str) -> int:
    return sum(spent_by_life(Store.open(str(url))).values())


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job, Ended]:
    folder = tmp_path_factory.mktemp("compared")
    job = write_job(folder, questions(ROWS), cluster={"workers": 2})
    return folder, job, ponder(folder, words(folder, job))


def test_what_strategies_share_is_generated_once_and_charged_in_both(compared: tuple[Path, Job, Ended]) -> None:
    folder, _, ended = compared
    assert ended.code == 0, ended.stderr
    out = folder / "compared"
    three, five, greedy = out / "three-5000", out / "five-5000", out / "baselines" / "greedy"
    assert (drawn(three, generated=True), drawn(three, generated=False)) == (grid(3), Counter())
    assert (drawn(five, generated=True), drawn(five, generated=False)) == (grid(5, first=3), grid(3))
    assert (drawn(greedy, generated=True), drawn(greedy, generated=False)) == (grid(1), Counter())
    first = {(row["item_id"], row["sample_index"]): row for row in outcome(str(three)).samples}
    run_id = open_run(str(three)).info.run_id
    for row in outcome(str(five)).samples:
        if row["origin"]:
            same = first[(row["item_id"], row["sample_index"])]
            assert row["origin"] == run_id
            alike = ("prompt_key", "text", "prompt_tokens", "cached_prompt_tokens", "completion_tokens")
            assert [row[name] for name in alike] == [same[name] for name in alike]
    result = ended.result
    assert result["tokens_charged"] == sum(map(spent, (three, five, greedy)))
    assert result["tokens_charged"] - result["tokens_generated"] == spent(three)
    assert spent(five) > spent(three)


def test_the_result_is_what_the_runs_hold(compared: tuple[Path, Job, Ended]) -> None:
    folder, _, ended = compared
    result = ended.result
    assert (result["questions"], result["left_out"], result["unit"]) == (ROWS, 0, "tokens")
    for row in result["rows"]:
        answers = outcome(str(folder / "compared" / f"{row['strategy']}-5000")).answers
        assert row["accuracy"] == sum(answer["correct"] for answer in answers) / ROWS
        assert row["tokens"] == sum(answer["tokens"] for answer in answers) / ROWS
    assert [row["strategy"] for row in result["rows"]] == ["three", "five"]
    assert result["rows"][1]["test"] == "mcnemar"
    assert [one["name"] for one in result["baselines"]] == [
        "greedy",
        "random choice",
        "oracle pass@2",
        "oracle pass@4",
        "oracle pass@5",
    ]
    assert json.loads((folder / "compared/compare.json").read_text()) == result
    assert (folder / "compared/compare.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_again_spends_and_changes_nothing(compared: tuple[Path, Job, Ended]) -> None:
    folder, job, ended = compared
    before = files(folder / "compared")
    again = ponder(folder, words(folder, job))
    assert again.code == 0, again.stderr
    assert again.result == ended.result
    assert files(folder / "compared") == before


def test_one_of_its_runs_is_compared_over_without_a_cluster(compared: tuple[Path, Job, Ended]) -> None:
    folder, _, _ = compared
    judged = write(
        folder, "judged.yaml", {"strategy": {"kind": "best_of_n", "score": "numeric", "stop": "pass", "max_samples": 5}}
    )
    other = write(folder, "other.yaml", {"strategy": {"kind": "self_consistency", "temperatures": [0.5, 1.0]}})
    source, strategies = str(folder / "compared/five-5000"), f"{folder}/five.yaml,{judged},{other}"
    ended = ponder(
        folder,
        ["compare", source, "--strategies", strategies, "--budgets", "5", "--output", str(folder / "again"), "--json"],
    )
    assert ended.code == 0, ended.stderr
    five, judged_row = ended.result["rows"]
    # All five samples in any order: what the run itself answered.
    [ran] = [
        row for row in json.loads((folder / "compared/compare.json").read_text())["rows"] if row["strategy"] == "five"
    ]
    assert (five["samples"], five["accuracy"]) == (5, pytest.approx(ran["accuracy"]))
    oracle = {one["name"]: one["accuracy"] for one in ended.result["baselines"]}
    assert judged_row["accuracy"] == pytest.approx(oracle["oracle pass@5"])
    assert "by temperature 0.5, which is recorded at 1" in ended.result["refused"]["other"]


def journal(url: Path) -> Counter[Place]:
    """What a run was paid so far; nothing before it is planned."""
    store = Store.open(str(url))
    shards = store.read_plan() if store.planned() else []
    samples = (sample for shard in shards for sample in store.read_journal(shard.shard_id))
    return Counter((sample.item_id, sample.sample_index) for sample in samples)


@pytest.mark.parametrize(("name", "sent"), [("three", signal.SIGINT), ("five", signal.SIGTERM)])
def test_interrupted_in_any_run_it_says_how_to_go_on(tmp_path: Path, name: str, sent: signal.Signals) -> None:
    job = write_job(tmp_path, questions(ROWS), model={"options": {"seconds": 0.5}, "max_num_seqs": 4})
    again = words(tmp_path, job, "--no-greedy")
    run = tmp_path / f"compared/{name}-5000"
    shared, all_of_it = (grid(3), grid(5)) if name == "five" else (Counter(), grid(3))
    with start(tmp_path, again) as running:
        running.until(lambda: journal(run) - shared, "a sample that the run generated")
        running.process.send_signal(sent)
        ended = running.wait()
        assert running.left() == []
    assert ended.code == 130
    said = f"interrupted; what was paid for is saved in {tmp_path}/compared. To go on, run: ponder compare {job.path}"
    assert ended.result["error"].startswith(said)
    assert "Traceback" not in ended.stderr
    assert 0 < sum(journal(run).values()) < sum(all_of_it.values())


def test_killed_it_goes_on_where_it_was(tmp_path: Path) -> None:
    job = write_job(tmp_path, questions(ROWS), model={"options": {"seconds": 0.5}, "max_num_seqs": 4})
    three, five = tmp_path / "compared/three-5000", tmp_path / "compared/five-5000"
    again = words(tmp_path, job, "--no-greedy")
    with start(tmp_path, again) as running:
        running.until(lambda: journal(five) - grid(3), "a sample that the second run generated")
        running.kill()
        assert running.left() == []
    paid, first = journal(five), files(three)
    assert sum(paid.values()) < sum(grid(5).values())
    ended = ponder(tmp_path, again)
    assert ended.code == 0, ended.stderr
    assert files(three) == first
    assert drawn(five, generated=True) == grid(5, first=3)
    assert drawn(five, generated=False) == grid(3)
    # What the first life was paid is there once, under its name.
    lives = {(row["item_id"], row["sample_index"]): row["writer"] for row in outcome(str(five)).samples}
    assert journal(five) == grid(5)
    [crew] = {lives[place] for place in paid}
    assert {place for place, writer in lives.items() if writer == crew} == set(paid)
