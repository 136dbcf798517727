"""Verifier actors of a real cluster: one is killed in the middle of its batch, one kills itself, one hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.verifier import VerifierPool, start_verifiers
from pipeline.records import Item, Sample
from tests.factories import make_item, make_sample, make_spec
from verifiers.pool_policy import PoolLimits

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

ITEM = make_item(reference="1", payload="{}")


def judged(item: Item, sample: Sample) -> float:
    """What the actors run: leaves its process id beside it, and does as the text says."""
    what, _, where = sample.text.partition(" ")
    if what == "wait":
        Path(where, f"{os.getpid()}").touch()
        while not Path(where, "go").exists():
            time.sleep(0.01)
    if what == "crash":
        os._exit(9)
    if what == "secrets":
        return float(
            not any("AWS" in name or "TOKEN" in name for name in os.environ if name.startswith(("AWS", "RAY")))
        )
    return float(sample.answer == item.reference)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    import ray

    before = os.environ.copy()
    os.environ["AWS_SECRET_ACCESS_KEY"] = "for the store only"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


def spec_of(**cluster: Any) -> Any:
    function = {"kind": "function", "function": f"{__name__}:judged", "timeout": 120}
    return make_spec(
        dataset={"reference": "gold"},
        verifiers=[{"kind": "exact"}, function],
        cluster={"verifiers": 2, **cluster},
    )


def samples(*texts: str) -> list[Sample]:
    return [make_sample(index=index, text=text, answer="1") for index, text in enumerate(texts)]


async def until(done: Any) -> None:
    while not done():
        await asyncio.sleep(0.02)


async def test_a_member_killed_in_mid_batch_loses_nothing(cluster: Any, tmp_path: Path) -> None:
    spec = spec_of()
    pool = VerifierPool(spec, start_verifiers(spec))
    asking = asyncio.create_task(pool.judge(ITEM, samples(f"wait {tmp_path}", "a", "b"), "1"))
    await until(lambda: any(name.isdecimal() for name in os.listdir(tmp_path)))
    (victim,) = [int(name) for name in os.listdir(tmp_path) if name.isdecimal()]
    os.kill(victim, signal.SIGKILL)
    (tmp_path / "go").touch()
    judgement = await asking
    assert [[said.score for said in row] for row in judgement.verdicts] == [[1.0, 1.0]] * 3
    assert judgement.correct is True
    assert pool.stats().deaths >= 1
    assert pool.stats().queued == 0
    items = [make_item(f"q{n}", reference="1") for n in range(20)]
    lives = await asyncio.gather(*(pool.check(item, samples("a"), "function") for item in items))
    assert [said.score for (said,) in lives] == [1.0] * 20
    await pool.close()


async def test_a_sample_that_kills_its_process_is_found_among_others(cluster: Any) -> None:
    spec = spec_of()
    pool = VerifierPool(spec, start_verifiers(spec), PoolLimits(attempts=2))
    verdicts = (await pool.judge(ITEM, samples("a", "b", "crash", "c"), "1")).verdicts
    assert [row[1].score for row in verdicts] == [1.0, 1.0, None, 1.0]
    assert "process died" in (verdicts[2][1].error or "")
    assert [row[0].score for row in verdicts] == [1.0] * 4
    await pool.close()


async def test_members_are_added_while_checks_queue_and_hold_no_keys(cluster: Any, tmp_path: Path) -> None:
    spec = spec_of(verifiers=1, max_verifiers=2)
    limits = PoolLimits(least=1, most=2, batch_samples=1, member_batches=1, grow_seconds=0.0)
    actors = start_verifiers(spec)
    pool = VerifierPool(spec, actors, limits)
    items = [make_item(f"q{number}", reference="1") for number in range(4)]
    asking = [asyncio.create_task(pool.check(item, samples(f"wait {tmp_path}"), "function")) for item in items]
    await until(lambda: sum(name.isdecimal() for name in os.listdir(tmp_path)) == 2)
    assert pool.stats().members == 2
    (tmp_path / "go").touch()
    assert [said.score for (said,) in await asyncio.gather(*asking)] == [1.0] * 4
    assert (await pool.check(ITEM, samples("secrets"), "function"))[0].score == 1.0
    stats = await actors[0].stats.remote()
    assert stats.checks >= 1
    assert stats.errors == 0
    await pool.close()


def test_a_job_of_cheap_checks_needs_no_actors() -> None:
    assert start_verifiers(make_spec(dataset={"reference": "gold"}, verifiers=[{"kind": "numeric"}])) == []
