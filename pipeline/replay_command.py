"""``ponder replay``: arguments in, results out; the work is in ``pipeline.replay``.

With ``--json`` standard output is one JSON list and nothing else, an error one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.replay import Question, Result, Settings

EVIDENCE = ("auto", "votes", "sum_logprob", "mean_logprob", "group_confidence", "within_question")


def _numbers(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    """``3,5,8`` as numbers. Whether a budget makes sense is said by ``pipeline.replay``."""
    try:
        return tuple(float(word) for word in value.split(",") if word.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers; write 3,5,8", ctx, param) from None


@click.command()
@click.argument("source", metavar="SAMPLES.parquet|RUN")
@click.option(
    "--rules", metavar="RULE,…", help="fixed:N, adaptive_consistency[:form][:p], esc:W, ppr:D, market[:RULE]."
)
@click.option(
    "--budget-samples",
    callback=_numbers,
    default="",
    metavar="B,…",
    help="Market: mean samples a question. Default: 3,5,8.",
)
@click.option(
    "--budget-tokens", callback=_numbers, default="", metavar="B,…", help="Market: mean completion tokens a question."
)
@click.option("--repeats", type=int, default=20, show_default=True, help="Orders in which the samples are drawn.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides those orders.")
@click.option(
    "--evidence", type=click.Choice(EVIDENCE), default="auto", show_default=True, help="What a vote is worth."
)
@click.option("--columns", default="", metavar="ROLE=NAME,…", help="Columns by other names: item_id=question_id,…")
@click.option("--max-samples", type=int, default=40, show_default=True, help="No question gets more than these.")
@click.option("--shards", type=int, help="Market: shards the questions are cut into.")
@click.option("--workers", type=int, default=1, show_default=True, help="Market: virtual workers that share it.")
@click.option("--slots", type=int, help="Market: samples a virtual worker runs at once. Default: 64, or fewer.")
@click.option("--plot", type=click.Path(dir_okay=False), help="Draw accuracy against cost into this file (.png, .svg).")
@click.option("as_json", "--json", is_flag=True, help="One JSON list on standard output.")
def replay(
    source: str,
    rules: str | None,
    budget_samples: tuple[float, ...],
    budget_tokens: tuple[float, ...],
    repeats: int,
    seed: int,
    evidence: str,
    columns: str,
    max_samples: int,
    shards: int | None,
    workers: int,
    slots: int | None,
    plot: str | None,
    as_json: bool,
) -> int:
    """What other rules or budgets would have made of recorded samples; no GPU.

    Reads a run's directory, or Parquet files (a path or a quoted glob, local or s3://) with the columns item_id,
    sample_index, answer and, where there are any, reference, completion_tokens, mean_logprob (or sum_logprob, or a
    list token_logprobs), min_group_confidence, score.
    """
    from budgets.evidence import Evidence
    from pipeline.frontier import draw, drawable, table
    from pipeline.recording import Recording
    from pipeline.recording_parts import parse_columns
    from pipeline.replay import DEFAULT_RULES, Settings, questions_of
    from pipeline.replay import replay as ask

    names = [word.strip() for word in rules.split(",") if word.strip()] if rules is not None else DEFAULT_RULES
    settings = Settings(
        repeats=repeats,
        seed=seed,
        evidence=Evidence(kind=evidence),  # type: ignore[arg-type]  # click has checked it
        max_samples=max_samples,
        shards=shards,
        workers=workers,
        slots=slots,
    )
    questions = questions_of(names, budget_samples, budget_tokens)
    if plot is not None:
        drawable(plot)
    with Recording.open(source, parse_columns(columns)) as recording:
        results = []
        for question in questions:
            _say(question, settings)
            results.append(ask(recording, question, settings))
    _say(None, settings)
    if plot is not None:
        draw(results, plot)
    click.echo(_as_json(results) if as_json else table(results))
    return 0


def _as_json(results: list[Result]) -> str:
    return json.dumps([result.as_json() for result in results], allow_nan=False, ensure_ascii=False)


def _say(question: Question | None, settings: Settings) -> None:
    """What is replayed now, on a terminal only; None wipes the line."""
    if not sys.stderr.isatty():
        return
    text = ""
    if question is not None:
        budget = (
            ""
            if question.budget is None
            else f" at {question.budget:g} {'tokens' if question.in_tokens else 'samples'}"
        )
        text = f"replaying {question.rule}{budget}, {settings.repeats} repeats"
    click.echo(f"\r\x1b[K{text}", nl=False, err=True)
