"""The adaptive section: what contradicts itself is refused with field and mend, and what is sound is forecast."""

import pytest

from pipeline.errors import SpecError
from pipeline.forecast import Prompts, cost_of_mix, forecast, mixes
from pipeline.spec import JobSpec, parse
from tests.factories import make_spec
from tests.unit.pipeline.test_forecast import make_job

LARGE = {"engine": "scripted", "max_model_len": 256}
VOTE = {"name": "vote", "strategy": {"kind": "self_consistency", "max_samples": 6}}
BIG = {"name": "big", "model": "large", "strategy": {"kind": "self_consistency", "max_samples": 3}}


def job(*arms, **more) -> JobSpec:
    sections = {"models": {"large": LARGE}, **more.pop("sections", {})}
    return make_spec(strategy={"kind": "adaptive", "arms": list(arms or (VOTE, BIG)), **more}, **sections)


def test_a_job_says_what_its_arms_say_together():
    spec = job(VOTE, BIG, {"name": "tries", "strategy": {"kind": "best_of_n", "score": "numeric", "stop": "pass"}},
               sections={"verifiers": [{"kind": "numeric"}], "dataset": {"reference": "gold"}})  # fmt: skip
    strategy = spec.strategy
    assert (strategy.least, strategy.most) == (1, 4 + 6 + 3 + 16)
    assert (strategy.uses, strategy.checks) == (("large",), ("numeric",))
    assert strategy.by_model == {"": (1, 4 + 6 + 16), "large": (0, 3)}
    assert not strategy.embeds
    assert (strategy.begins, strategy.groups) == (0, 0)
    assert list(spec.asked) == ["", "large"]
    assert parse(spec.model_dump(mode="json")) == spec


def test_an_arm_embeds_and_begins_for_all():
    spec = job(VOTE, {"name": "probes", "strategy": {"kind": "diversified", "probe_tokens": 8}})
    assert spec.strategy.embeds
    assert spec.strategy.begins == 8


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ((), "strategy.adaptive.arms: List should have at least 1 item"),
        ((VOTE, {**BIG, "name": "vote"}), "two arms are called 'vote': give one of them another name"),
        ((VOTE, {**VOTE, "name": "again"}), "arms 'vote' and 'again' are the same: change one of them, or leave it"),
        ((VOTE, {**BIG, "model": "huge"}), "no further model is called 'huge'; models has: large"),
        (
            (VOTE, {"name": "n", "strategy": {"kind": "adaptive", "arms": [VOTE]}}),
            "strategy.adaptive.arms.1.strategy: an arm is not adaptive itself: put its arms beside this one",
        ),
        (
            (VOTE, {"name": "g", "temperature": 0.5, "strategy": {"kind": "greedy"}}),
            "arm 'g' sets temperature, and its strategy (greedy) says that itself: leave it out of one of them",
        ),
        (
            (VOTE, {"name": "t", "top_p": 0.5, "strategy": {"kind": "self_consistency", "temperatures": [0.5, 1.0]}}),
            "arm 't' sets top_p, and its strategy (self_consistency) says that itself",
        ),
        (
            (
                VOTE,
                {"name": "c", "model": "large", "strategy": {"kind": "cascade", "stages": [{}, {"model": "large"}]}},
            ),
            "arm 'c' sets model, and its strategy (cascade) says that itself",
        ),
        (
            (VOTE, {"name": "d", "template": "{{ prompt }}", "strategy": {"kind": "diversified"}}),
            "arm 'd' sets template, and its strategy (diversified) says that itself",
        ),
        ((VOTE, {"name": "x", "template": "{{ open"}), "strategy.adaptive.arms.1.template: "),
        ((VOTE, {"name": "x", "temprature": 1.0}), "strategy.adaptive.arms.1.temprature: unknown field"),
        ((VOTE, {"name": "x", "strategy": {"kind": "best_of_n", "score": "tests"}}), "no verifier is called 'tests'"),
    ],
)
def test_arms_that_contradict_themselves_or_each_other_are_refused(arms, said):
    with pytest.raises(SpecError) as caught:
        make_spec(strategy={"kind": "adaptive", "arms": list(arms)}, models={"large": LARGE})
    assert said in str(caught.value)


def test_arms_that_vote_by_behaviour_watch_one_verifier():
    def arm(name: str, verifier: str, **more):
        return {"name": name, "strategy": {"kind": "behavioural_vote", "verifier": verifier, **more}}

    watchers = [
        {"kind": "behaviour", "name": name, "style": "source", "inputs_column": "inputs"} for name in ("one", "two")
    ]
    spec = job(VOTE, arm("a", "one"), arm("b", "one", generate="tests"), sections={"verifiers": watchers})
    assert (spec.strategy.watches, spec.strategy.hands_over) == ("one", True)
    with pytest.raises(SpecError, match="arms watch two verifiers, 'one' and 'two': let all name one"):
        job(arm("a", "one"), arm("b", "two"), sections={"verifiers": watchers})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"verifier": "tests"}, "no verifier is called 'tests'; the job has: none"),
        ({"pass_score": 0.5}, "pass_score says when verifier ends a question: name one, or leave it out"),
        ({"probe": 0}, "strategy.adaptive.probe: "),
        ({"explore": 1.5}, "strategy.adaptive.explore: "),
        ({"confidence": 0.4}, "strategy.adaptive.confidence: "),
    ],
)
def test_settings_that_cannot_be_are_refused(more, said):
    with pytest.raises(SpecError) as caught:
        job(**more)
    assert said in str(caught.value)


def test_it_is_forecast_arm_by_arm_each_at_its_models_price():
    spec = job(sections={"budget": {"tokens": 10_000, "price": {"models": {"large": 8}}}})
    assert mixes(spec) == ({"": 1, "large": 0}, {"": 10, "large": 3})
    prompts = Prompts(mean=30.0, longest=40, shared=20)
    most = cost_of_mix(spec, 10, prompts, mixes(spec)[1])
    assert most.worst_in_budget == 10 * 10 * 46 + 8 * 10 * 3 * 46


def test_plan_tells_its_range_and_that_a_mix_it_cannot_tell_is_priced_as_the_dearest(tmp_path):
    rows = [{"id": "q", "prompt": "How many?", "gold": "1"}]
    mixed = {
        "name": "mixed",
        "strategy": {"kind": "self_consistency", "arms": [{"name": "a"}, {"name": "b", "model": "large"}]},
    }
    strategy = {"kind": "adaptive", "arms": [VOTE, mixed]}
    found = forecast(make_job(tmp_path, rows, models={"large": LARGE}, strategy=strategy))
    assert (found.min_samples, found.max_samples) == (1, 4 + 6 + 40)
    assert any("which model it asks how often is not forecast" in line for line in found.warnings)
