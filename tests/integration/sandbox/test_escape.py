"""The escape suite: each attack first succeeds without the sandbox, then neither passes in it nor leaves anything.

An attack that this kernel or this user cannot make even without a sandbox is still made inside, and then skipped with
the reason, so that a run says what it has shown.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.sandbox import naive
from tests.integration.sandbox.attacks import ATTACKS, STUCK, SURVIVORS, Attack
from tests.integration.sandbox.forgeries import FORGERIES, Forgery
from tests.integration.sandbox.world import (
    LIMITS,
    World,
    end_group,
    families,
    family,
    gone,
    inside,
    outside,
    passed,
    source_tests,
    start,
    there,
    world,
)
from verifiers.sandbox import confine
from verifiers.sandbox.client import Sandbox
from verifiers.sandbox.limits import Limits

PROBLEM = confine.problem()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROBLEM is not None, reason=f"no sandbox on this machine: {PROBLEM}"),
]

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534
SHORT = Limits(wall_seconds=0.5, cpu_seconds=20, memory_mb=512, processes=4)
HONEST = "def attack(world):\n    return world['word']\n"


@pytest.fixture(scope="module")
def around() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    made = Sandbox(1)
    yield made
    pids = {pid for ours in families(made).values() for pid in ours}
    await made.close()
    assert made.pids == frozenset()
    assert there(pids) == set()


def test_the_suite_is_what_it_says() -> None:
    names = [one.name for one in (*ATTACKS, *FORGERIES)] + [*STUCK, *SURVIVORS]
    assert len(set(names)) == len(names) >= 40
    assert len(FORGERIES) >= 15


async def test_an_honest_program_passes(sandbox: Sandbox, around: World) -> None:
    assert passed(await inside(sandbox, HONEST, around))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
async def test_attack(sandbox: Sandbox, around: World, attack: Attack) -> None:
    succeeds = outside(attack, around)
    files = sorted(os.listdir(around["folder"]))
    assert passed(await inside(sandbox, HONEST, around))
    before = families(sandbox)
    assert not passed(await inside(sandbox, attack.code, around))
    assert families(sandbox) == before
    assert sorted(os.listdir(around["folder"])) == files
    if attack.root and os.geteuid() != 0:
        pytest.skip("kept out; without the sandbox only root can do it, and this is not root")
    if attack.kernel and not succeeds:
        pytest.skip("kept out; this kernel lets nobody do it, with or without a sandbox")
    assert succeeds, "the attack does not work even without a sandbox: it shows nothing"


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
async def test_forgery(sandbox: Sandbox, forgery: Forgery) -> None:
    assert naive.deceived(forgery.harness, forgery.code, forgery.tests)
    honest = "def f(x):\n    return x + 3\n"
    assert passed(await sandbox.calls(honest, source_tests("assert f(2) == 5"), LIMITS))
    before = families(sandbox)
    for limits in (LIMITS, Limits()):
        assert not passed(await sandbox.calls(forgery.code, source_tests(forgery.tests), limits))
    assert families(sandbox) == before


@pytest.mark.parametrize("harness", ["exit", "print", "json", "pipe"])
def test_the_naive_harnesses_judge_honest_programs(harness: str) -> None:
    assert naive.deceived(harness, "def f(x):\n    return x + 3\n", "assert f(2) == 5")
    assert not naive.deceived(harness, "def f(x):\n    return x + 4\n", "assert f(2) == 5")


@pytest.mark.parametrize("name", STUCK)
async def test_what_never_ends_is_ended(sandbox: Sandbox, around: World, name: str) -> None:
    # `list` and `str` because some need their result to be looked at.
    code = f"{STUCK[name]}\ntry:\n    list(attack({{}}))\nexcept Exception as error:\n    str(error)\n"
    alone = start(code, start_new_session=True)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            alone.wait(SHORT.wall_seconds)
    finally:
        end_group(alone)
    assert passed(await inside(sandbox, HONEST, around))
    before = families(sandbox)
    outcome = await inside(sandbox, STUCK[name], around, SHORT)
    assert outcome.timed_out
    assert not passed(outcome)
    assert families(sandbox) == before
    assert passed(await inside(sandbox, HONEST, around))


@pytest.mark.parametrize("name", SURVIVORS)
async def test_nothing_survives_its_check(sandbox: Sandbox, around: World, name: str) -> None:
    code = f"{_ADOPT}\n{SURVIVORS[name]}\nprint('over', flush=True)\n{_WAIT}"
    alone = start(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert alone.stdout is not None
        assert alone.stdout.readline() == b"over\n"
        # Its work is done, and something of it runs on.
        left = family(alone.pid)
        assert left
    finally:
        for pid in family(alone.pid):
            os.kill(pid, 9)
        end_group(alone)
    assert passed(await inside(sandbox, HONEST, around))
    before = families(sandbox)
    assert passed(await inside(sandbox, SURVIVORS[name] + HONEST, around))
    assert families(sandbox) == before


# The process that is left adopts what its children leave, so that it is found and ended.
_ADOPT = "import ctypes\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)"
_WAIT = "import sys\nsys.stdin.read()\n"


async def test_a_check_finds_nothing_of_another(sandbox: Sandbox, around: World) -> None:
    leave = (
        "import os, sys\nopen('/tmp/left', 'w').write('word')\nos.environ['left'] = '1'\nsys.modules['left'] = sys\n"
    )
    look = (
        "import os, sys\ndef attack(world):\n"
        "    return os.listdir('/tmp') + os.listdir('.') + list(os.environ) + [n for n in sys.modules if n == 'left']\n"
    )
    both = leave + look
    assert passed(await inside(sandbox, both, around))
    assert not passed(await inside(sandbox, look, around))


async def test_two_checks_at_once_are_apart(around: World) -> None:
    sandbox = Sandbox(2)
    wait = "import time\ndef attack(world):\n    open('/tmp/mine', 'w').write('x')\n    time.sleep(600)\n"
    look = (
        "import os, signal\ndef attack(world):\n    seen = os.listdir('/tmp')\n"
        "    try:\n        os.kill(-1, signal.SIGKILL)\n        seen.append('killed')\n"
        "    except OSError:\n        pass\n    return seen\n"
    )
    try:
        first = asyncio.create_task(inside(sandbox, wait, around, Limits(wall_seconds=3.0)))
        # The first has its candidate and its referee running.
        assert await gone(lambda: any(len(ours) >= 4 for ours in families(sandbox).values()))
        assert not passed(await inside(sandbox, look, around))
        assert (await first).timed_out
    finally:
        await sandbox.close()


async def test_the_processor_limit(sandbox: Sandbox, around: World) -> None:
    outcome = await inside(sandbox, STUCK["busy loop"], around, Limits(wall_seconds=60.0, cpu_seconds=1, memory_mb=512))
    assert not outcome.timed_out
    assert outcome.ended["candidate"].code < 0
    assert not passed(outcome)


async def test_a_flood_is_cut(sandbox: Sandbox) -> None:
    flood = "import sys\nfor _ in range(200):\n    sys.stdout.write('x' * 100_000)\n"
    assert len(start(flood, stdout=subprocess.PIPE).communicate()[0]) == 20_000_000
    outcome = await sandbox.script(flood, "", Limits(output_kb=64))
    assert outcome.overflowed
    assert len(outcome.printed) == 64 * 1024


async def test_tests_are_confined_too(sandbox: Sandbox, around: World) -> None:
    for attack in ATTACKS:
        hostile = f"{attack.code}\nassert attack({around!r})"
        outcome = await sandbox.calls("pass", source_tests(hostile), LIMITS)
        assert not passed(outcome), attack.name


async def test_a_server_dies_with_its_owner(around: World) -> None:
    code = (
        "import asyncio\nfrom tests.integration.sandbox.attacks import STUCK\n"
        "from tests.integration.sandbox.world import inside\nfrom verifiers.sandbox.client import Sandbox\n"
        "from verifiers.sandbox.limits import Limits\n"
        "limits = Limits(wall_seconds=600.0, cpu_seconds=600, processes=4)\n"
        "asyncio.run(inside(Sandbox(1), STUCK['deaf to SIGTERM'], {}, limits))\n"
    )
    owner = start(code, cwd=ROOT)
    try:
        # Bubblewrap, its inner half, the server, candidate and referee.
        assert await gone(lambda: len(family(owner.pid)) >= 5)
        inner = family(owner.pid)
    finally:
        owner.kill()
        owner.wait()
    assert await gone(lambda: not there(inner))


@pytest.mark.skipif(os.geteuid() != 0, reason="this is an ordinary user already")
def test_the_same_as_an_ordinary_user() -> None:
    python = "/usr/bin/python3"
    command = [python, "-B", "-m", "tests.integration.sandbox.as_user"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=ROOT,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            env={"PATH": os.defpath},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    try:
        able = run(python, "-c", "import sys, verifiers; sys.exit(sys.version_info < (3, 11))").returncode == 0
    except OSError:
        able = False
    if not able:
        pytest.skip("an ordinary user can read neither this project nor a Python 3.11")
    done = run(*command)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if "problem" in said:
        pytest.skip(f"an ordinary user gets no sandbox here: {said['problem']}")
    assert said["honest"]
    assert said["succeeded"] == []
    assert said["left"] == []
    assert said["tried"] == len(ATTACKS) + len(FORGERIES) + len(STUCK) + len(SURVIVORS)
