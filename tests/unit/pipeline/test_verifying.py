"""A finished run scored by verifiers it did not have: every sample once, whatever happens; paid within the budget."""

import asyncio
import json
import math
import shutil
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
import pytest
from click.testing import CliRunner

from pipeline import review_shards, verifier_kinds
from pipeline.cli import main
from pipeline.errors import SpecError, StoreError, UsageError
from pipeline.records import Answer, Item, Reviewed, Sample, Verdict, columns_of, from_row
from pipeline.reviews import Reviews, tally_of
from pipeline.run import open_run
from pipeline.store import Store
from pipeline.verifier_kinds import VerifierSection
from pipeline.verifying import sections_of, verify
from tests.unit.actors.test_station import ALL, make_job, work
from verifiers import registry
from verifiers.registry import register

WORST = 30
Key = tuple[str, str, int]


class LaterSpec(VerifierSection):
    """Costs 11 tokens a check where ``price`` is set. Odd numbers pass; 7 is NaN, and no answer is an error."""

    by_answer: ClassVar[bool] = True

    kind: Literal["test_later"] = "test_later"
    price: int = 0

    @property
    def worst_tokens(self) -> int:
        return WORST if self.price else 0


class Later:
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def __init__(self, spec: LaterSpec) -> None:
        self.name, self._price = spec.label, spec.price

    async def __call__(self, item: Item, samples: list[Sample]) -> list[Verdict]:
        self.asked += [(item.item_id, sample.answer) for sample in samples]
        return [Verdict(self.name, said(one.answer), tokens=self._price, detail=item.prompt) for one in samples]


def said(answer: str | None) -> float:
    if answer is None or answer == "7":
        return math.nan
    return float(answer) % 2


@pytest.fixture(autouse=True, scope="module")
def _kind():
    # Cheap: it runs in this process.
    LaterSpec.cheap = True
    register("test_later", LaterSpec, lambda spec, answer: Later(spec))
    yield
    del registry._FACTORIES["test_later"], verifier_kinds._SECTIONS["test_later"]


@pytest.fixture(autouse=True)
def _nobody_asked():
    Later.asked.clear()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """A finished run of 20 questions in three shards."""
    found = make_job(tmp_path_factory.mktemp("made"))
    asyncio.run(work(found, ["w-0"]))
    return found


@pytest.fixture
def spec(made, tmp_path: Path):
    """That run, in a directory of this test's."""
    shutil.copytree(made.output, tmp_path / "run")
    return made.model_copy(update={"output": str(tmp_path / "run")})


def finished(url: str) -> dict[Key, Sample]:
    """The run's samples that came to their own end."""
    rows = open_run(url).samples().to_table().to_pylist()
    return {key(row): row for row in rows if row["finish_reason"] in ("stop", "length")}


def verdicts(url: str) -> dict[Key, dict]:
    """Verdict rows by sample; fails where a sample has two from one verifier."""
    rows = open_run(url).verdicts().to_table().to_pylist()
    found = {(*key(row), row["verifier"]): row for row in rows}
    assert len(found) == len(rows)
    return {key(row): row for row in rows}


def key(row: dict) -> Key:
    return row["item_id"], row["prompt_key"], row["sample_index"]


LATER = {"kind": "test_later"}
PAID = {"kind": "test_later", "name": "paid", "price": 11}


def test_every_sample_has_its_verdict(spec):
    (tally,) = verify(spec.output, [LATER])
    found, samples = verdicts(spec.output), finished(spec.output)
    assert found.keys() == samples.keys()
    for name, row in found.items():
        score = said(samples[name]["answer"])
        assert (row["score"], row["verifier"]) == (None if math.isnan(score) else score, "test_later")
        assert (row["error"] is None) == (row["score"] is not None)
    assert {row["detail"] for row in found.values() if row["score"] is not None} <= {f"What is {i}?" for i in range(20)}
    scores = [row["score"] for row in found.values() if row["score"] is not None]
    assert (tally.samples, tally.checked, tally.fresh) == (len(samples),) * 3
    assert (tally.passed, tally.mean_score) == (scores.count(1.0), pytest.approx(sum(scores) / len(scores)))
    assert tally.errors == len(found) - len(scores)
    assert (tally.questions, tally.tokens) == (20, 0)
    passing = {row["item_id"] for row in found.values() if row["score"] == 1.0}
    assert tally.questions_passed == len(passing)
    assert len(set(Later.asked)) == len(Later.asked), "equal answers of a question are checked once"


def test_again_asks_nobody_and_the_run_is_as_it_was(spec):
    before = {path: path.read_bytes() for path in Path(spec.output).rglob("*") if path.is_file()}
    verify(spec.output, [LATER])
    asked, found = len(Later.asked), verdicts(spec.output)
    (tally,) = verify(spec.output, [LATER])
    assert (len(Later.asked), verdicts(spec.output), tally.fresh) == (asked, found, 0)
    assert {path: path.read_bytes() for path in before} == before


def test_a_command_that_dies_goes_on(spec, monkeypatch):
    monkeypatch.setattr(review_shards, "PART", 5)
    append, written = Reviews.append, []

    def dying(self, shard_id, number, rows):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(rows)
        return append(self, shard_id, number, rows)

    monkeypatch.setattr(Reviews, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        verify(spec.output, [LATER])
    kept = verdicts(spec.output)
    assert len(kept) == sum(map(len, written)) > 0
    monkeypatch.setattr(Reviews, "append", append)
    Later.asked.clear()
    (tally,) = verify(spec.output, [LATER])
    assert verdicts(spec.output).keys() == finished(spec.output).keys()
    assert tally.fresh == len(finished(spec.output)) - len(kept)
    known = {(item_id, finished(spec.output)[item_id, prompt, at]["answer"]) for item_id, prompt, at in kept}
    scored = {
        (row["item_id"], finished(spec.output)[name]["answer"])
        for name, row in kept.items()
        if row["score"] is not None
    }
    assert scored <= known
    assert scored.isdisjoint(Later.asked), "what was said of an answer before is not asked again"


def test_commands_that_race_write_no_row_twice(spec, monkeypatch):
    monkeypatch.setattr(review_shards, "PART", 5)
    append = Reviews.append
    raced = []

    def racing(self, shard_id, number, rows):
        if not raced:
            # Another command was faster, with the first of the same rows.
            raced.append(append(self, shard_id, number, [Reviewed(*key_of(rows[0]), "test_later", 0.25)]))
        return append(self, shard_id, number, rows)

    monkeypatch.setattr(Reviews, "append", racing)
    verify(spec.output, [LATER])
    found = verdicts(spec.output)
    assert raced == [True]
    assert found.keys() == finished(spec.output).keys()
    assert [row["score"] for row in found.values()].count(0.25) == 1


def key_of(row: Reviewed) -> Key:
    return row.item_id, row.prompt_key, row.sample_index


@pytest.mark.parametrize("budget", [1, WORST, 3 * WORST, 400, 100_000])
def test_checks_that_cost_stay_inside_the_budget(spec, budget):
    (tally,) = verify(spec.output, [PAID], budget=budget)
    assert tally.tokens == 11 * len(Later.asked) <= budget
    assert tally.tokens == sum(row["tokens"] for row in verdicts(spec.output).values())
    assert (tally.checked == 0) == (budget < WORST)
    assert (tally.checked == tally.samples) == (budget == 100_000)
    if budget < 100_000:
        # A check was left out only where its worst case did not fit.
        assert budget - tally.tokens < WORST
    again, asked = verify(spec.output, [PAID], budget=budget)[0], len(Later.asked)
    assert (again.fresh, asked) == (0, tally.tokens // 11), "spent is spent, whichever command spent it"
    (full,) = verify(spec.output, [PAID], budget=100_000)
    assert verdicts(spec.output).keys() == finished(spec.output).keys()
    assert full.tokens == 11 * len(Later.asked)


def test_checks_that_cost_need_a_budget(spec):
    with pytest.raises(UsageError, match=r"--budget: checks by 'paid' cost tokens"):
        verify(spec.output, [PAID])
    assert not Path(spec.output, "verdicts").exists()


def test_what_a_top_up_adds_is_checked_and_nothing_else(tmp_path):
    small = make_job(tmp_path, budget={"tokens": 400})
    asyncio.run(work(small, ["w-0"]))
    verify(small.output, [LATER])
    before = verdicts(small.output)
    assert before.keys() == finished(small.output).keys()
    large = make_job(tmp_path, budget={"tokens": 4_000})
    Store.open(large.output).set_budget(large.budget)
    asyncio.run(work(large, ["w-1"]))
    assert finished(large.output).keys() > before.keys()
    (tally,) = verify(large.output, [LATER])
    assert verdicts(large.output).keys() == finished(large.output).keys()
    assert tally.fresh == len(finished(large.output)) - len(before)


def test_samples_that_were_cut_are_not_checked(tmp_path):
    spec = make_job(tmp_path, rows=1)
    asyncio.run(work(spec, ["w-0"]))
    store = Store.open(spec.output)
    run = open_run(spec.output)
    (commit,) = run.commits.values()
    rows = [
        Sample("q000", at, "k", "It is 3", "3", finish_reason=why) for at, why in enumerate(["stop", "abort", "cut"])
    ]
    (answer,) = [from_row(Answer, row) for row in run.answers().to_table().to_pylist()]
    store.commit(0, commit.generation + 1, [answer], rows, [], [], "w-1")
    (tally,) = verify(spec.output, [LATER])
    assert (verdicts(spec.output).keys(), tally.samples) == ({("q000", "k", 0)}, 1)


def test_a_folder_is_for_one_verifier(spec):
    verify(spec.output, [LATER])
    with pytest.raises(UsageError, match=r"verifier 'test_later': .*differs in section"):
        verify(spec.output, [{**LATER, "timeout": 9}])
    verify(spec.output, [{**LATER, "timeout": 9, "name": "patient"}])
    found = open_run(spec.output).verdicts().to_table().to_pylist()
    assert {row["verifier"] for row in found} == {"test_later", "patient"}
    assert open_run(spec.output).verdicts().schema == columns_of(Reviewed)
    globbed = pd.read_parquet(Path(spec.output) / "verdicts", engine="pyarrow")
    assert len(globbed) == len(found)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ([{"kind": "numeric"}], r"the run has one of that name"),
        ([LATER, LATER], r"two verifiers are called 'test_later'"),
        ([{"kind": "nothing"}], r"unknown verifier kind 'nothing'"),
        ([{"kind": "test_later", "name": "../up"}], r"its name becomes a folder"),
        ([{"kind": "function", "function": "nowhere:score"}], r"cannot import"),
        ([{"kind": "choice", "choices": "AB", "name": "letters"}], r"none of the 20 rows"),
        ([{"kind": "regex", "pattern": "("}], r"verifiers.0.*pattern"),
    ],
)
def test_what_cannot_work_is_refused_first(spec, sections, message):
    with pytest.raises(UsageError, match=message):
        verify(spec.output, sections)
    assert not Path(spec.output, "verdicts").exists()
    assert Later.asked == []


def test_other_data_is_refused_and_moved_data_found(tmp_path):
    spec = make_job(tmp_path)
    asyncio.run(work(spec, ["w-0"]))
    data = tmp_path / "questions.jsonl"
    moved = tmp_path / "elsewhere" / "questions.jsonl"
    moved.parent.mkdir()
    moved.write_bytes(data.read_bytes())
    data.write_text(data.read_text().replace('"gold": "1"', '"gold": "2"'))
    with pytest.raises(UsageError, match="does not hold the rows the run was begun with"):
        verify(spec.output, [LATER])
    verify(spec.output, [LATER], dataset=str(moved))
    assert verdicts(spec.output).keys() == finished(spec.output).keys()


def test_no_run(tmp_path):
    with pytest.raises(UsageError, match="no run at"):
        verify(str(tmp_path), [LATER])


def test_a_part_that_is_gone_is_told(spec, monkeypatch):
    monkeypatch.setattr(review_shards, "PART", 5)
    verify(spec.output, [LATER])
    Path(spec.output, "verdicts/test_later/000000-000000.parquet").unlink()
    with pytest.raises(StoreError, match="a part of shard 0 is gone"):
        verify(spec.output, [LATER])


def test_a_run_of_nothing_has_no_verdicts(spec):
    assert open_run(spec.output).verdicts().to_table().num_rows == 0
    assert tally_of(Reviews(Store.open(spec.output).files, "nobody"), 5).mean_score is None


def test_the_command(spec, tmp_path):
    file = tmp_path / "later.yaml"
    file.write_text("verifiers:\n- {kind: test_later}\n- {kind: test_later, name: twin}\n")
    told = CliRunner().invoke(main, ["verify", spec.output, "--with", str(file), "--json"], standalone_mode=False)
    assert told.return_value == 0
    found = json.loads(told.stdout.splitlines()[-1])
    assert [one["verifier"] for one in found["verifiers"]] == ["test_later", "twin"]
    assert {one["checked"] for one in found["verifiers"]} == {len(finished(spec.output))}
    told = CliRunner().invoke(main, ["verify", spec.output, "--with", "{kind: test_later}"], standalone_mode=False)
    count = len(finished(spec.output))
    assert f"test_later: {count} of {count} samples checked, 0 of them now" in told.stdout
    assert "of 20 questions have a passing sample" in told.stdout
    assert ids_of(spec.output) == ALL


def ids_of(url: str) -> list[str]:
    return sorted({name[0] for name in verdicts(url)})


@pytest.mark.parametrize("text", ["missing.yaml", "{kind: [", "[]", "[1]", "{verifiers: 3}"])
def test_the_command_refuses_what_is_no_section(spec, text):
    told = CliRunner().invoke(main, ["verify", spec.output, "--with", text])
    assert told.exit_code == 2
    assert told.output.startswith("error: --with")


def test_sections_come_in_three_shapes():
    one, two = {"kind": "exact"}, {"kind": "math"}
    assert sections_of([one, [two, one], {"verifiers": [two]}]) == [one, two, one, two]
    with pytest.raises(UsageError):
        sections_of(["exact"])


def test_a_section_that_is_wrong_names_its_field(spec):
    with pytest.raises(SpecError, match=r"verifiers.0.*colour"):
        verify(spec.output, [{**LATER, "colour": "red"}])
