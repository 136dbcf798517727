"""Verifiers that steer, and verifiers that cost, through everything real but the engine: the ceiling, the journal."""

import shutil
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from actors.engines.scripted import ScriptedEngine
from pipeline import verifier_kinds
from pipeline.records import Item, Sample, Verdict
from pipeline.spending import total
from pipeline.store import Store
from pipeline.verifier_kinds import VerifierSection
from tests.unit.actors.test_every_strategy import Closed
from tests.unit.actors.test_station import ALL, ids, make_job, outcome, spent, work
from verifiers import registry
from verifiers.registry import register

WORST = 30


class DearSpec(VerifierSection):
    """Says of an answer whether it is the reference; costs 11 tokens, where its section allows 30."""

    worst_tokens: ClassVar[int] = WORST
    by_answer: ClassVar[bool] = True

    kind: Literal["test_dear"] = "test_dear"
    tokens: int = 11


class Dear:
    asked: ClassVar[list[tuple[str, str | None]]] = []

    def __init__(self, spec: DearSpec) -> None:
        self.name, self._tokens = spec.label, spec.tokens

    async def __call__(self, item: Item, samples: list[Sample]) -> list[Verdict]:
        self.asked += [(item.item_id, sample.answer) for sample in samples]
        return [Verdict(self.name, float(one.answer == item.reference), tokens=self._tokens) for one in samples]


@pytest.fixture(autouse=True, scope="module")
def _kind():
    """The kind is there while these tests run, and gone after them."""
    register("test_dear", DearSpec, lambda spec, answer: Dear(spec))
    yield
    del registry._FACTORIES["test_dear"], verifier_kinds._SECTIONS["test_dear"]


@pytest.fixture(autouse=True)
def _nobody_asked():
    Dear.asked.clear()


def dear_job(folder: Path, budget: int = 1_000_000, steering: bool = True, **verifier):
    strategy = {"kind": "self_consistency", "max_samples": 8, **({"verifier": "test_dear"} if steering else {})}
    verifiers = [{"kind": "numeric"}, {"kind": "test_dear", **verifier}]
    return make_job(folder, budget={"tokens": budget}, strategy=strategy, verifiers=verifiers)


def reopen(spec) -> None:
    """Forget what was committed: the journal is all that is left."""
    for folder in ("commits", "answers", "samples", "decisions"):
        shutil.rmtree(Path(spec.output) / folder)


async def test_a_free_verifier_settles_questions_and_its_verdicts_are_kept(tmp_path):
    spec = make_job(tmp_path, strategy={"kind": "self_consistency", "max_samples": 12, "verifier": "numeric"})
    await work(spec, ["w-0"])
    answers, samples, _ = outcome(spec)
    assert ids(answers) == ALL
    verified = {a["item_id"] for a in answers if a["stop_reason"] == "verified"}
    assert verified
    assert all(a["answer"] == "1" and a["correct"] for a in answers if a["item_id"] in verified)
    assert {a["answer"] for a in answers if a["item_id"] not in verified} <= {None}
    assert all([said["verifier"] for said in s["verdicts"]] == ["numeric"] for s in samples)
    before = spent(spec), outcome(spec)
    reopen(spec)
    await work(spec, ["w-1"], Closed(spec))
    assert (spent(spec), [row["answer"] for row in outcome(spec)[0]]) == (before[0], [a["answer"] for a in answers])


async def test_checks_that_cost_are_spent_once_and_not_made_again(tmp_path):
    spec = dear_job(tmp_path)
    market = await work(spec, ["w-0", "w-1"])
    answers, samples, _ = outcome(spec)
    assert ids(answers) == ALL
    assert len(set(Dear.asked)) == len(Dear.asked) > 0, "equal answers of a question are checked once"
    checking = sum(verdict["tokens"] for sample in samples for verdict in sample["verdicts"])
    assert checking == 11 * len(Dear.asked) == sum(a["verifier_tokens"] for a in answers)
    usage = total(Store.open(spec.output).journal_usage())
    assert usage.verifier == {"test_dear": checking}
    assert market.ledger.spent == spent(spec) == usage.billed
    reopen(spec)
    asked = len(Dear.asked)
    again = await work(spec, ["w-2"], Closed(spec))
    assert len(Dear.asked) == asked
    assert again.ledger.spent == usage.billed
    assert [a["answer"] for a in outcome(spec)[0]] == [a["answer"] for a in answers]


@pytest.mark.parametrize("tokens", [1, 40, 150, 300, 600, 1000])
@pytest.mark.parametrize("steering", [True, False])
async def test_the_ceiling_holds_with_checks_and_every_row_is_answered(tmp_path, tokens, steering):
    spec = dear_job(tmp_path, tokens, steering)
    market = await work(spec, ["w-0", "w-1"])
    answers, _, dead = outcome(spec)
    assert (ids(answers), dead) == (ALL, [])
    assert market.ledger.spent == spent(spec) <= tokens
    assert market.ledger.reserved == 0


async def test_a_verifier_that_only_scores_is_asked_of_every_sample(tmp_path):
    spec = dear_job(tmp_path, steering=False)
    await work(spec, ["w-0"])
    _, samples, _ = outcome(spec)
    assert all([said["verifier"] for said in s["verdicts"]] == ["numeric", "test_dear"] for s in samples)
    distinct = {(s["item_id"], s["answer"]) for s in samples}
    assert set(Dear.asked) == distinct
    assert len(Dear.asked) == len(distinct)


async def test_a_verifier_that_costs_more_than_it_says_cannot_break_the_ceiling(tmp_path):
    spec = dear_job(tmp_path, 2_000, steering=False, tokens=10_000)
    market = await work(spec, ["w-0"])
    _, samples, _ = outcome(spec)
    said = [verdict for s in samples for verdict in s["verdicts"] if verdict["verifier"] == "test_dear"]
    broke = [verdict for verdict in said if verdict["tokens"]]
    assert broke
    assert all(verdict["tokens"] == WORST and "broke its contract" in verdict["error"] for verdict in broke)
    assert market.ledger.spent == spent(spec) <= 2_000


class Dying(ScriptedEngine):
    """Ends its life after some samples."""

    async def generate(self, request):
        Dying.left -= 1
        if Dying.left < 0:
            from pipeline.errors import EngineError

            raise EngineError("gone")
        return await super().generate(request)


async def test_a_life_that_ends_leaves_what_it_had_checked(tmp_path):
    spec = dear_job(tmp_path)
    Dying.left = 25
    with pytest.raises(Exception, match="gone"):
        await work(spec, ["w-0"], Dying(spec))
    paid = {(one.item_id, one.prompt_key, one.sample_index): one for one in Store.open(spec.output).read_journal(0)}
    asked = set(Dear.asked)
    market = await work(spec, ["w-1"])
    answers, samples, _ = outcome(spec)
    assert ids(answers) == ALL
    assert market.ledger.spent == spent(spec)
    assert set(paid) <= {(s["item_id"], s["prompt_key"], s["sample_index"]) for s in samples}
    checked = {key[0] for key, sample in paid.items() if any(v.verifier == "test_dear" for v in sample.verdicts)}
    assert checked <= {item_id for item_id, _ in asked}
