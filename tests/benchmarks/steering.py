"""What steering costs: the share of one core that 10,000 open questions take at 500 samples a second.

    python -m tests.benchmarks.steering [--questions 10000] [--windows 3] [--seconds 10] [--json]

- *decisions*: votes, stopping rule, bids, desk, demand curve and market, for as many open questions, in virtual time
  over the bundled model's recorded samples (``../shared/data``): processor time a sample, times 500. Target: under 5%.
- *whole worker*: a live station with everything a worker does but the engine's work: sessions, reading of answers, the
  journal and its files, reports to the market. The engine is the scripted one, 512 samples of a second each; what it
  takes by itself, asked as often without Ponder, is measured in the same process and taken off. Processor time, so that
  other users of the machine matter little; the range over the windows is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from actors.engines.base import Completion, Request
from actors.engines.scripted import ScriptedEngine
from actors.judge import RuleJudge
from actors.recovery import restore_market
from actors.station import Station
from actors.worker import collect_seldom
from budgets.messages import Reply, WorkerReport
from pipeline.fingerprint import fingerprint_of
from pipeline.records import Item
from pipeline.source import plan_dataset
from pipeline.spec import JobSpec
from pipeline.store import Store
from tests.benchmarks.million import DATA, write
from tests.factories import make_spec

RATE = 500
TARGET = 0.05
SLOTS = 512
BUDGET, POOL = 5.0, 16
WARM_SAMPLES = 10 * SLOTS


class Window(NamedTuple):
    """Processor seconds, seconds and samples of a stretch of work."""

    processor: float
    seconds: float
    samples: int

    @property
    def share(self) -> float:
        """Of one core, at ``RATE`` samples a second."""
        return self.processor / self.samples * RATE


def decisions(questions: int) -> float:
    """Share of one core at ``RATE``, of the virtual worker and its market."""
    from budgets.evidence import Evidence
    from pipeline.recording import Recording
    from pipeline.replay import Question, Settings, replay

    with tempfile.TemporaryDirectory(prefix="ponder-steering-") as folder:
        write(Path(folder), questions, POOL, 0)
        with Recording.open(f"{folder}/*.parquet") as recording:
            began = time.process_time()
            # One shard: every question is open at once.
            result = replay(
                recording, Question("market", BUDGET), Settings(repeats=1, evidence=Evidence("auto"), shards=1)
            )
            used = time.process_time() - began
    return used / (result.mean_samples * result.questions) * RATE


def job(folder: Path, questions: int) -> JobSpec:
    """More questions than are looked at, all open, on an engine that pretends."""
    data = folder / "questions.jsonl"
    lines = [{"id": f"q{number:06d}", "prompt": f"What is {number}?", "gold": "1"} for number in range(questions)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return make_spec(
        dataset={"path": str(data), "id": "id", "reference": "gold"},
        model={"max_num_seqs": SLOTS, "options": {"seconds": 1.0, "weights": [5, 4, 3]}},
        cluster={"shard_size": 1024, "max_open_questions": 2 * questions},
        budget={"tokens": 1_000_000_000},
        output=str(folder / "run"),
    )


class Counted(ScriptedEngine):
    """Counts what it finished."""

    done = 0

    async def generate(self, request: Request) -> Completion:
        completion = await super().generate(request)
        self.done += 1
        return completion


async def windows_of(count: Callable[[], int], windows: int, seconds: float) -> list[Window]:
    """So many stretches of whatever runs beside this; ``count()``: samples so far."""
    found = []
    for _ in range(windows):
        before = time.process_time(), time.monotonic(), count()
        await asyncio.sleep(seconds)
        now = time.process_time(), time.monotonic(), count()
        found.append(Window(*(late - early for late, early in zip(now, before, strict=True))))
    return found


async def bare(spec: JobSpec, windows: int, seconds: float) -> list[Window]:
    """The engine alone, as many samples at once."""
    engine = Counted(spec)

    async def slot(number: int) -> None:
        item = Item(f"q{number:06d}", prompt=f"What is {number}?")
        prompt = engine.prepare(item)
        for index in range(10**6):
            await engine.generate(Request(f"{number}/{index}", prompt, 1.0, index, item.item_id))

    slots = [asyncio.create_task(slot(number)) for number in range(SLOTS)]
    await asyncio.sleep(2.0)
    found = await windows_of(lambda: engine.done, windows, seconds)
    for task in slots:
        task.cancel()
    await asyncio.gather(*slots, return_exceptions=True)
    return found


async def live(spec: JobSpec, windows: int, seconds: float) -> tuple[list[Window], int]:
    """A station and its market; the windows, and the questions open at their end."""
    plan = plan_dataset(spec.dataset, spec.cluster.shard_size)
    store = Store.open(spec.output)
    store.begin(spec.model_dump(mode="json"), fingerprint_of(spec, plan.fingerprint))
    store.write_plan(plan)
    shards = {shard.shard_id: shard for shard in store.read_plan()}
    market = restore_market(store, spec.budget.tokens or 0, list(shards.values()))
    told: list[WorkerReport] = []

    async def sync(report: WorkerReport) -> Reply:
        told[:] = [report]
        return market.sync(report)

    engine = Counted(spec)
    station = Station(spec, shards, engine, store, RuleJudge(spec), "w-0")
    running = asyncio.create_task(station.run(sync))
    while engine.done < WARM_SAMPLES or len(told[0].shards) < len(shards):
        await asyncio.sleep(0.1)
    found = await windows_of(lambda: engine.done, windows, seconds)
    left = sum(shard.open for shard in told[0].shards)
    station.stop()
    await running
    return found, left


def measure(questions: int, windows: int, seconds: float) -> dict[str, Any]:
    collect_seldom()
    with tempfile.TemporaryDirectory(prefix="ponder-steering-") as folder:
        # Those that finish meanwhile are beyond the number asked for.
        spec = job(Path(folder), questions + questions // 4)
        alone = asyncio.run(bare(spec, windows, seconds))
        found, left = asyncio.run(live(spec, windows, seconds))
    engine = sum(window.share for window in alone) / len(alone)
    shares = [window.share - engine for window in found]
    return {
        "questions_open": left,
        "samples_a_second": sum(window.samples for window in found) / sum(window.seconds for window in found),
        "whole_worker": sum(shares) / len(shares),
        "whole_worker_range": [min(shares), max(shares)],
        "engine_alone": engine,
        "decisions": decisions(questions) if DATA.exists() else None,
        "target": TARGET,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a window")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.questions, arguments.windows, arguments.seconds)
    if arguments.json:
        print(json.dumps(result))
        return
    low, high = result["whole_worker_range"]
    if result["decisions"] is None:
        print(f"decisions: skipped, the recorded samples are not at {DATA}", file=sys.stderr)
    else:
        print(f"decisions: {result['decisions']:.1%} of a core at {RATE} samples/s (target under {TARGET:.0%})")
    print(
        f"whole worker but its engine: {result['whole_worker']:.1%} of a core ({low:.1%} to {high:.1%}) at {RATE} "
        f"samples/s, {result['questions_open']:,} questions open, measured at {result['samples_a_second']:.0f}/s"
    )


if __name__ == "__main__":
    main()
