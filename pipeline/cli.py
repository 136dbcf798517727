"""The commands. Arguments in, exit code out; all work is elsewhere.

Promises: results go to standard output, progress and errors to standard error; an error is one ``error:`` message
without a traceback; with ``--json`` the last line of standard output is one JSON object, errors included. Exit codes:
0 done, 1 the run failed (for ``doctor``: something needed is missing), 2 the job file or the arguments are wrong, 130
interrupted, state saved. Loads nothing heavy before a command needs it: ``--help`` must be instant.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from pipeline.compare_command import compare
from pipeline.endings import FAILED, INTERRUPTED, USAGE, failed, interrupted, print_json, watched
from pipeline.errors import PonderError, RunFailed, UsageError
from pipeline.replay_command import replay
from pipeline.verify_command import verify

F = TypeVar("F", bound=Callable[..., Any])


class _Ponder(click.Group):
    """Turns whatever ends a command into the exit codes and messages promised above."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(arguments, prog_name, complete_var, standalone_mode=False, **extra)
        as_json = "--json" in arguments
        try:
            code = super().main(arguments, prog_name, complete_var, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = USAGE
        except click.Abort:
            code = failed("interrupted", "KeyboardInterrupt", INTERRUPTED, as_json)
        except click.ClickException as error:
            code = failed(error.format_message(), type(error).__name__, USAGE, as_json, _hint(error))
        except UsageError as error:
            code = failed(str(error), type(error).__name__, USAGE, as_json)
        except PonderError as error:
            code = failed(str(error), type(error).__name__, FAILED, as_json)
        except Exception as error:
            # A defect: said to programs too, and shown with its traceback so that it can be mended.
            if as_json:
                print_json({"error": str(error), "kind": type(error).__name__})
            raise
        sys.exit(code if isinstance(code, int) else 0)


def _job_options(command: F) -> F:
    command = click.option("--output", metavar="URL", help="The run's directory, instead of the job's.")(command)
    command = click.option(
        "overrides",
        "--set",
        metavar="FIELD=VALUE",
        multiple=True,
        help="Set a field of the job, as in --set budget.tokens=2e6. Repeatable.",
    )(command)
    return click.argument("job", type=click.Path())(command)


_json_option = click.option("as_json", "--json", is_flag=True, help="End with one JSON object on standard output.")


@click.group(cls=_Ponder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ponder", prog_name="ponder")
def main() -> None:
    """Spend one compute budget over a whole dataset.

    \b
    Exit codes: 0 done; 1 the run failed; 2 the job file or the arguments are
    wrong; 130 interrupted, with everything paid for saved.
    """


@main.command()
@_job_options
@_json_option
def run(job: str, overrides: tuple[str, ...], output: str | None, as_json: bool) -> int:
    """Start JOB; the same command resumes it, or tops it up.

    A run that was interrupted goes on where it was; one with a larger budget.tokens continues the questions that are
    worth it. What is paid for is never drawn again.
    """
    import dataclasses
    import time

    from pipeline.spec import load

    spec = load(job, list(overrides), output)
    from pipeline import driver

    began = time.monotonic()
    try:
        status = watched(lambda listen: driver.run(spec, listen))
    except KeyboardInterrupt:
        return interrupted(spec.output, shlex.join(_again(job, overrides, output, as_json)), as_json)
    status = dataclasses.replace(status, seconds=round(time.monotonic() - began, 3))
    if as_json:
        print_json(status.as_json())
    else:
        _show(status)
    return 0


@main.command()
@_job_options
@_json_option
def plan(job: str, overrides: tuple[str, ...], output: str | None, as_json: bool) -> int:
    """Check JOB and its data, and forecast its cost.

    Spends nothing and writes nothing.
    """
    from pipeline.forecast import forecast
    from pipeline.spec import load
    from pipeline.summary import forecast_text

    found = forecast(load(job, list(overrides), output))
    if as_json:
        print_json(found.as_json())
    else:
        click.echo(forecast_text(found))
    return 0


@main.command()
@click.argument("run_url", metavar="RUN")
@_json_option
def status(run_url: str, as_json: bool) -> int:
    """Where the run in the directory RUN stands."""
    from pipeline.status import status_of

    found = status_of(run_url)
    if as_json:
        print_json(found.as_json())
    else:
        _show(found)
    return 0


@main.command()
@_json_option
def schema(as_json: bool) -> int:
    """The JSON Schema of job files, for editors."""
    from pipeline.spec import JobSpec

    found = JobSpec.model_json_schema()
    if as_json:
        print_json(found)
    else:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
    return 0


@main.command()
@_json_option
def doctor(as_json: bool) -> int:
    """Is this machine ready? Exits with 1 if not."""
    import dataclasses

    from pipeline.doctor import judge, look, ready

    checks = judge(look())
    if as_json:
        print_json({"ready": ready(checks), "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        for check in checks:
            click.echo(f"{check.level.value:<4}  {check.name:<16}  {check.found}")
            if check.mend:
                click.echo(f"{'':<24}→ {check.mend}")
    return 0 if ready(checks) else FAILED


@main.command()
@_job_options
@click.option("--address", required=True, metavar="URL", help="The cluster's dashboard, such as http://HEAD:8265.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow the job's output until it ends.")
@_json_option
def submit(job: str, overrides: tuple[str, ...], output: str | None, address: str, wait: bool, as_json: bool) -> int:
    """Run JOB on a Ray cluster, by its job submission API."""
    import dataclasses

    from jobs.submit import submit as submit_job
    from pipeline.spec import load

    spec = load(job, list(overrides), output)
    # With --json, standard output is for the one object.
    result = submit_job(spec, address, wait, lambda line: click.echo(line, err=as_json))
    if wait and result.status != "SUCCEEDED":
        raise RunFailed(f"job {result.job_id} ended as {result.status}; its output says why")
    if as_json:
        print_json(dataclasses.asdict(result))
    return 0


main.add_command(replay)
main.add_command(compare)
main.add_command(verify)


def _show(status: Any) -> None:
    from pipeline.summary import as_table, as_text

    if not sys.stdout.isatty():
        click.echo(as_text(status))
        return
    from rich.console import Console

    Console().print(as_table(status))


def _again(job: str, overrides: Sequence[str], output: str | None, as_json: bool) -> list[str]:
    words = ["ponder", "run", job]
    for override in overrides:
        words += ["--set", override]
    return [*words, *(["--output", output] if output is not None else []), *(["--json"] if as_json else [])]


def _hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"\ntry `{context.command_path} --help`" if context is not None else ""


def entry() -> None:
    """The console script: ``main``, then out at once.

    Arrow's threads may still hold buffers that Python owns; an interpreter that shuts down under them sometimes aborts
    (exit code 134 after a run that succeeded). Everything of ours is closed by now, so nothing is left to tear down.
    """
    try:
        main()
        code: object = 0
    except SystemExit as leaving:
        code = leaving.code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1 if code else 0)


if __name__ == "__main__":
    entry()
