"""``ponder compare``: arguments in, one table and one picture out; the work is in ``pipeline.compare_live`` and
``pipeline.compare_recorded``.

The comparison is written to ``compare.json`` and ``compare.png`` in ``--output`` as well.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import click

from pipeline.endings import interrupted, watched

if TYPE_CHECKING:
    from pipeline.compare_live import Leg
    from pipeline.comparison_result import Comparison

JOB_ENDINGS = (".yaml", ".yml", ".json")
RESULT, PICTURE = "compare.json", "compare.png"
_REPEATS = 20


@click.command()
@click.argument("source", metavar="JOB.yaml|RUN|SAMPLES.parquet")
@click.option("--strategies", required=True, metavar="FILE,…", help="YAML files with a strategy section each.")
@click.option(
    "--budgets",
    default="",
    metavar="B,…",
    help="A job: amounts of its budget, for all questions; default: its own. Else mean samples a question: 3,5,8.",
)
@click.option(
    "--budget-tokens", default="", metavar="B,…", help="Recorded samples: mean tokens a question, checks included."
)
@click.option("--reach", default="", metavar="A,…", help="Accuracies whose cost is wanted, like 0.48.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides intervals, and recorded samples' orders.")
@click.option("--output", metavar="URL", help="The comparison's directory. Default: runs/compare-NAME.")
@click.option("--set", "overrides", metavar="FIELD=VALUE", multiple=True, help="A job: set a field of it. Repeatable.")
@click.option("--greedy/--no-greedy", default=None, help="A job: also run the greedy baseline. Default: yes.")
@click.option("--repeats", type=int, help="Recorded samples: orders in which they are drawn. Default: 20.")
@click.option("--columns", metavar="ROLE=NAME,…", help="Recorded samples: columns by other names.")
@click.option("as_json", "--json", is_flag=True, help="End with one JSON object on standard output.")
def compare(
    source: str,
    strategies: str,
    budgets: str,
    budget_tokens: str,
    reach: str,
    seed: int,
    output: str | None,
    overrides: tuple[str, ...],
    greedy: bool | None,
    repeats: int | None,
    columns: str | None,
    as_json: bool,
) -> int:
    """Compare strategies on the same questions at equal budgets.

    With JOB.yaml each strategy is run at each budget, in a directory below the comparison's (the job's output is not
    used); samples that several ask for alike are generated once and charged to each, checks are made and charged in
    each. The same command resumes, and spends nothing once all is done.

    With a run's directory, or Parquet files of recorded samples (see `ponder replay`), strategies are replayed over
    them, without a GPU; what one asks for that was not recorded is refused by name. Where a column temperature is 0,
    samples are the greedy baseline.

    A strategy file holds a strategy section, and verifiers and models where the job's are not meant. Accuracy needs
    references, or recorded scores.
    """
    from pipeline.comparison_result import parse_accuracies
    from pipeline.comparison_view import can_draw
    from pipeline.errors import UsageError
    from pipeline.strategy_files import load_strategies, parse_amounts

    live = source.lower().endswith(JOB_ENDINGS)
    for flag, given in {
        "--budget-tokens": live and budget_tokens,
        "--repeats": live and repeats is not None,
        "--columns": live and columns,
        "--set": not live and overrides,
        "--greedy": not live and greedy is not None,
    }.items():
        if given:
            raise UsageError(f"{flag} is for {'recorded samples' if live else 'a job'}, and {source} is none; drop it")
    found = load_strategies(strategies)
    wanted = parse_accuracies(parse_amounts("--reach", reach))
    amounts = parse_amounts("--budget-tokens", budget_tokens) or parse_amounts("--budgets", budgets)
    where = output.rstrip("/") if output is not None else f"runs/compare-{_name_of(source)}"
    refuse_run(where)
    if not can_draw():
        click.echo("no picture will be drawn: matplotlib is not installed", err=True)
    if live:
        from pipeline.compare_live import plan_course, result_of, run_course

        course = plan_course(source, overrides, found, amounts, where, greedy is not False)

        def begins(leg: Leg, place: int) -> None:
            click.echo(f"run {place + 1} of {len(course.legs)}: {leg}", err=True)

        try:
            watched(lambda listen: run_course(course, listen, begins))
        except KeyboardInterrupt:
            return interrupted(where, shlex.join(["ponder", *sys.argv[1:]]), as_json)
        show(result_of(course, wanted, seed), where, as_json)
        return 0

    from pipeline.compare_recorded import Budgets, compare_recorded
    from pipeline.recording_parts import parse_columns
    from pipeline.replay import DEFAULT_BUDGETS, Settings

    if budgets and budget_tokens:
        raise UsageError("--budgets and --budget-tokens: equal budgets are of one kind; leave one out")
    compared = compare_recorded(
        source,
        parse_columns(columns or ""),
        found,
        Budgets(amounts or list(DEFAULT_BUDGETS), bool(budget_tokens)),
        wanted,
        Settings(repeats=_REPEATS if repeats is None else repeats, seed=seed),
        _say,
    )
    _wipe()
    show(compared, where, as_json)
    return 0


def show(compared: Comparison, where: str, as_json: bool) -> None:
    """Write the comparison, and print it."""
    from pipeline.comparison_view import can_draw, picture, table
    from pipeline.filesystem import open_files

    text = json.dumps(compared.as_json(), allow_nan=False, ensure_ascii=False)
    files = open_files(where)
    files.put(RESULT, text.encode())
    if can_draw():
        files.put(PICTURE, picture(compared))
    click.echo(text if as_json else f"{table(compared)}\nwritten to {files.url}/{RESULT}")


def refuse_run(where: str) -> None:
    """Raise UsageError where ``where`` is a run's directory: its files are the run's alone."""
    from pipeline.errors import UsageError
    from pipeline.filesystem import open_files
    from pipeline.store import RUN

    try:
        open_files(where).read(RUN)
    except FileNotFoundError:
        return
    raise UsageError(f"--output {where}: holds a run; name a directory of the comparison's own")


def _name_of(source: str) -> str:
    """A source's name as part of a directory's."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", PurePosixPath(source.rstrip("/")).stem).strip("-.") or "samples"


def _say(strategy: str, budget: float) -> None:
    """What is replayed now, on a terminal only."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[Kreplaying {strategy} at {budget:g}", nl=False, err=True)


def _wipe() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
