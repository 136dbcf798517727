"""``ponder verify``: arguments in, tallies out; the work is in ``pipeline.verifying``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.endings import print_json
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.reviews import Tally


@click.command()
@click.argument("run_url", metavar="RUN")
@click.option(
    "given",
    "--with",
    multiple=True,
    required=True,
    metavar="FILE|YAML",
    help="A verifier's section, a list of them, or `verifiers:`, in a YAML file or written out. Repeatable.",
)
@click.option(
    "--budget", type=click.IntRange(min=1), metavar="TOKENS", help="What checks that cost may cost, all told."
)
@click.option("--dataset", metavar="PATH", help="Where the run's dataset is now, if it moved.")
@click.option("--actors", type=click.IntRange(min=1), help="Verifier processes; default: as in the run.")
@click.option("as_json", "--json", is_flag=True, help="End with one JSON object on standard output.")
def verify(
    run_url: str, given: tuple[str, ...], budget: int | None, dataset: str | None, actors: int | None, as_json: bool
) -> int:
    """Score the samples of RUN with other verifiers; nothing is generated.

    Verdicts go to RUN/verdicts/NAME, one row a sample. The same command goes on where it was interrupted, and checks
    what a top-up has added since. A sample that got an error keeps it; to ask again, give the verifier another name.
    """
    from pipeline.verifying import sections_of
    from pipeline.verifying import verify as score

    sections = sections_of([_read(text) for text in given])
    tallies = score(
        run_url,
        sections,
        budget=budget,
        dataset=dataset,
        actors=actors,
        tell=lambda line: click.echo(line, err=True),
    )
    if as_json:
        found = {"run": run_url, "verifiers": [dataclasses.asdict(tally) for tally in tallies]}
        print_json(found)
    else:
        for tally in tallies:
            click.echo(as_text(tally))
    return 0


def as_text(tally: Tally) -> str:
    """One verifier's tally in a few lines. Pure."""
    share = f" ({tally.passed / tally.checked:.1%})" if tally.checked else ""
    mean = "" if tally.mean_score is None else f", mean score {tally.mean_score:.3f}"
    lines = [
        f"{tally.verifier}: {tally.checked:,} of {tally.samples:,} samples checked, {tally.fresh:,} of them now",
        f"  {tally.passed:,} pass{share}{mean}",
        f"  {tally.questions_passed:,} of {tally.questions:,} questions have a passing sample",
    ]
    if tally.errors:
        lines.append(f"  {tally.errors:,} errors, the first: {tally.error}")
    if tally.tokens:
        lines.append(f"  {tally.tokens:,} tokens")
    return "\n".join(lines)


def _read(text: str) -> Any:
    """A YAML file, or YAML itself: a flow mapping or list, which no path begins like. Raises UsageError."""
    import yaml

    source = text
    if not text.lstrip().startswith(("{", "[")):
        try:
            source = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise UsageError(
                f"--with {text}: cannot be read: {reason}; name a YAML file, or write {{kind: …}}"
            ) from None
    try:
        return yaml.safe_load(source)
    except yaml.YAMLError as error:
        raise UsageError(f"--with {text}: not valid YAML: {error}") from None
