"""Jobs with several models: what is refused, what makes them the same run, what they are forecast to cost."""

import pytest

from jobs.submit import refuse_credentials, with_absolute_paths
from pipeline.budget_spec import BudgetSpec
from pipeline.errors import SpecError, UsageError
from pipeline.fingerprint import diff, fingerprint_of
from pipeline.forecast import Prompts, cost_of, cost_of_mix, forecast, mixes
from pipeline.spec import parse
from tests.factories import make_spec
from tests.unit.pipeline.test_forecast import make_job

LARGE = {"engine": "scripted", "max_model_len": 256}
CASCADE = {"kind": "cascade", "stages": [{"min_samples": 2, "max_samples": 4}, {"model": "large", "max_samples": 3}]}
PROMPTS = Prompts(mean=30.0, longest=40, shared=20)


def job(**sections):
    return make_spec(**{"models": {"large": LARGE}, "strategy": CASCADE, **sections})


def test_a_worker_loads_the_models_that_are_asked_the_main_one_first():
    spec = job(models={"idle": LARGE, "large": {**LARGE, "max_num_seqs": 2}})
    assert list(spec.asked) == ["", "large"]
    assert spec.with_model("large").model.max_num_seqs == 2
    assert spec.with_model("") == spec
    assert parse(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({}, "strategy: no further model is called 'large'; models has: none"),
        ({"big": LARGE}, "models has: big"),
        ({"large": {"max_model_len": 16}}, "models.large.max_model_len (16)"),
        ({"": LARGE, "large": LARGE}, "'' names no model"),
        ({"a.b": LARGE, "large": LARGE}, "'a.b' names no model"),
        ({"large": {"nmae": "x"}}, "models.large.nmae: unknown field"),
    ],
)
def test_models_that_cannot_be_asked_are_refused(models, said):
    with pytest.raises(SpecError) as caught:
        job(models=models)
    assert said in str(caught.value)


def test_an_arm_may_ask_a_further_model_and_one_that_is_missing_is_refused():
    arms = [{"name": "one"}, {"name": "two", "model": "large"}]
    assert list(job(strategy={"kind": "self_consistency", "arms": arms}).asked) == ["", "large"]
    with pytest.raises(SpecError, match="no further model is called 'large'"):
        make_spec(strategy={"kind": "self_consistency", "arms": arms})


def test_further_models_belong_to_the_fingerprint_where_there_are_any():
    plain = fingerprint_of(make_spec(), "data")
    first, slots, other = (
        fingerprint_of(job(models={"large": {**LARGE, **change}}), "data")
        for change in ({}, {"max_num_seqs": 2, "kv_cache_gib": 3}, {"revision": "r"})
    )
    assert "models" not in plain
    assert first == slots
    assert {name for name in first if first[name] != other[name]} == {"models"}
    assert {name for name in first if first.get(name) != plain.get(name)} == {"models", "strategy"}


def test_the_fingerprint_of_a_job_of_before_is_what_it_was():
    # Digests written by the version that knew one model.
    found = fingerprint_of(parse({"dataset": {"path": "q.jsonl"}, "budget": {"tokens": 1000}, "output": "out"}), "data")
    assert found["model"] == "9298e074d88def4cf15374399db28b2dc6280c50a418ef98e64313701d4c8f05"
    assert found["sampling"] == "a153c948768f2d0f7620da4c0bee7e5a5385c7b9b1ca01de1a85ec1a7d49500d"


def test_a_diff_names_the_models_fields():
    old, new = (job(models={"large": {**LARGE, "revision": each}}).model_dump(mode="json") for each in ("a", "b"))
    assert diff(old, new, ["models"]) == 'models.large.revision: "a" (run) → "b" (job)'
    assert 'models.large.engine: "scripted" (run) → (not set) (job)' in diff(
        old, make_spec().model_dump(mode="json"), ["models"]
    )


def test_a_cascade_is_forecast_stage_by_stage_each_at_its_price():
    spec = job(budget={"tokens": 10_000, "price": {"models": {"large": 8}}})
    assert mixes(spec) == ({"": 2, "large": 0}, {"": 4, "large": 3})
    least, most = (cost_of_mix(spec, 10, PROMPTS, mix) for mix in mixes(spec))
    plain = cost_of(10, 2, PROMPTS, 16, BudgetSpec(tokens=1))
    assert least == plain
    # 10 questions: 4 samples of 30 + 16 tokens, and 3 of the same at eight times the price.
    assert (most.worst, most.worst_in_budget) == (10 * 7 * 46, 10 * 4 * 46 + 8 * 10 * 3 * 46)
    # Each model computes its prompts once: 10 × (30 − 20) + 20.
    assert most.expected == 2 * 120 + 10 * 7 * 8
    assert most.expected_in_budget == 120 + 10 * 4 * 8 + 8 * (120 + 10 * 3 * 8)


def test_where_the_mix_is_unknown_everything_is_priced_as_the_dearest():
    arms = [{"name": "one"}, {"name": "two", "model": "large"}]
    strategy = {"kind": "self_consistency", "max_samples": 6, "arms": arms}
    spec = job(strategy=strategy, budget={"tokens": 10_000, "price": {"models": {"large": 8}}})
    assert mixes(spec) == ({"large": 1}, {"large": 6})


def test_plan_warns_of_models_that_are_not_asked_and_of_contexts_that_are_too_small(tmp_path):
    rows = [{"id": "q", "prompt": "x" * 300, "gold": "1"}]
    models = {"large": {**LARGE, "max_model_len": 64}, "idle": LARGE}
    found = forecast(make_job(tmp_path, rows, models=models, strategy=CASCADE))
    assert any(line.startswith("models.idle: the strategy does not ask it") for line in found.warnings)
    assert any("models.large.max_model_len: 64 leaves 48" in line for line in found.warnings)
    assert not any(line.startswith("model.max_model_len") for line in found.warnings)


def test_a_submission_looks_at_every_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    sent = with_absolute_paths(job(models={"large": {**LARGE, "name": "weights"}}))
    assert sent.models["large"].name == str(tmp_path / "weights")
    with pytest.raises(UsageError, match=r"models\.large\.options\.hf_token"):
        refuse_credentials(job(models={"large": {**LARGE, "options": {"hf_token": "secret"}}}))
