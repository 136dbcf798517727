"""Scores the samples of a run with verifiers it did not have; nothing is generated. The work behind ``ponder verify``.

Promises: every sample of the newest commits that came to its own end gets one row from each verifier, through crashes
and repeated commands (``pipeline.reviews``); samples that are checked as one are paid for once; checks that cost stay
inside ``budget`` tokens, all commands over this run together. May not change what the run wrote. Checks run where a
run's do: cheap ones here, the others in verifier actors.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from budgets.ledger import Ledger
from pipeline.errors import UsageError
from pipeline.fingerprint import fingerprint_of
from pipeline.readiness import refuse_unjudgeable, refuse_unready
from pipeline.records import CUT, Shard
from pipeline.review_shards import Tell, Work, check
from pipeline.reviews import Reviews, Tally, tally_of
from pipeline.run import Run, open_run
from pipeline.source import plan_dataset
from pipeline.spec import JobSpec, parse
from pipeline.verifier_kinds import label_of, worst_tokens


def sections_of(text: Sequence[Any]) -> list[dict[str, Any]]:
    """Verifier sections in what YAML files held: a section, a list of them, or a mapping with ``verifiers``.

    Raises:
        UsageError: it is none of these.
    """
    found: list[dict[str, Any]] = []
    for value in text:
        parts = value["verifiers"] if isinstance(value, dict) and set(value) == {"verifiers"} else value
        parts = [parts] if isinstance(parts, dict) else parts
        if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
            raise UsageError("--with: give a verifier section like {kind: exact}, a list of them, or `verifiers:`")
        found += parts
    return found


def verify(
    url: str,
    sections: Sequence[dict[str, Any]],
    *,
    budget: int | None = None,
    dataset: str | None = None,
    actors: int | None = None,
    tell: Tell = lambda line: None,
) -> list[Tally]:
    """Score the run at ``url``; a tally a section, in order.

    ``budget``: tokens that checks may cost, earlier commands' checks by these verifiers included; needed where one
    costs. ``dataset``: where the data is now, if it moved. ``actors``: verifier processes, where not as in the run.

    Raises:
        UsageError: there is no run, a section is wrong or its name taken, the dataset is not the run's.
        StoreError: the directory cannot be read or written; run the same command again.
    """
    run = open_run(url)
    spec = _job(run, sections, dataset, actors)
    costly = [label_of(one) for one in spec.verifiers if worst_tokens(one)]
    if costly and budget is None:
        raise UsageError(f"--budget: checks by {costly[0]!r} cost tokens; say how many they may cost")
    refuse_unready(spec)
    shards = _planned(run, spec)
    for warning in refuse_unjudgeable(spec, shards):
        tell(f"warning: {warning}")
    reviews = [Reviews(run.store.files, label_of(one)) for one in spec.verifiers]
    for review, section in zip(reviews, spec.verifiers, strict=True):
        review.begin({"section": section.model_dump(mode="json"), "answer": spec.answer.model_dump(mode="json")})
    samples = _count(run)
    before = [tally_of(review, samples) for review in reviews]
    if all(tally.checked >= samples for tally in before):
        return before
    ledger = None if budget is None else Ledger.restore(budget, sum(tally.tokens for tally in before))
    check(Work(run, spec, shards, reviews, ledger, tell))
    after = [tally_of(review, samples) for review in reviews]
    return [replace(now, fresh=now.checked - then.checked) for now, then in zip(after, before, strict=True)]


def _job(run: Run, sections: Sequence[dict[str, Any]], dataset: str | None, actors: int | None) -> JobSpec:
    """The run's job with these verifiers for its own. Raises SpecError."""
    job: dict[str, Any] = copy.deepcopy(run.info.job)
    # What steered the run, and what it might cost, named verifiers that are not here.
    job |= {"verifiers": list(sections), "strategy": {"kind": "greedy"}, "budget": {"tokens": 1}}
    if dataset is not None:
        job["dataset"]["path"] = dataset
    if actors is not None:
        job["cluster"] |= {"verifiers": actors, "max_verifiers": None}
    spec = parse(job)
    own = [str(one.get("name") or one.get("kind")) for one in run.info.job.get("verifiers", [])]
    for label in map(label_of, spec.verifiers):
        if label in own:
            raise UsageError(
                f"verifier {label!r}: the run has one of that name, whose verdicts are in its samples; set another name"
            )
    return spec


def _planned(run: Run, spec: JobSpec) -> list[Shard]:
    """The run's shards, as the dataset has them where it is now. Raises UsageError where it holds other rows."""
    stored = run.store.read_plan()
    plan = plan_dataset(spec.dataset, max(shard.items for shard in stored))
    same = fingerprint_of(spec, plan.fingerprint)["data"] == run.info.fingerprint["data"]
    if not same or [shard.items for shard in plan.shards] != [shard.items for shard in stored]:
        raise UsageError(
            f"dataset.path: {spec.dataset.path!r} does not hold the rows the run was begun with; restore them, or say "
            "where they are by --dataset"
        )
    return list(plan.shards)


def _count(run: Run) -> int:
    """Committed samples that came to their own end."""
    found = run.samples().to_table(columns=["finish_reason"])["finish_reason"].to_pylist()
    return sum(reason not in CUT for reason in found)
