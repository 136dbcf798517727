"""The pool with a fake child that hangs and crashes on demand, then math-verify itself."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from pipeline.errors import VerifierError
from pipeline.records import Item, Sample, Verdict
from verifiers.math_equal import CHILD, MAX_CHARS, RECYCLE_AFTER, ComparerPool, Comparison, MathVerifier

FAKE = """
import json, sys
print('{"ready": true}', flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["answer"] == "hang":
        while True: pass
    if request["answer"] == "crash":
        sys.exit(1)
    if request["answer"] == "noise":
        print("not JSON", flush=True)
        continue
    if request["answer"] == "unknown":
        print('{"error": "cannot say"}', flush=True)
        continue
    print(json.dumps({"equal": request["answer"].upper() == request["reference"].upper()}), flush=True)
"""
FAKE_COMMAND = (sys.executable, "-I", "-S", "-c", FAKE)
SECONDS = 60.0
SHORT = 0.2


def died(pids: Sequence[int] | frozenset[int]) -> bool:
    """Wait until none of the processes runs any more (a zombie does not)."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([handle], [], [], 60)[0]:
                return False
        finally:
            os.close(handle)
    return True


@pytest.fixture
async def pool() -> AsyncIterator[ComparerPool]:
    made = ComparerPool(size=1, command=FAKE_COMMAND)
    yield made
    pids = made.pids
    await made.close()
    assert made.pids == frozenset()
    assert died(pids)


async def test_comparisons_share_one_child(pool: ComparerPool) -> None:
    assert pool.pids == frozenset()
    assert await pool.compare("a", "A", SECONDS) == Comparison(equal=True)
    first = pool.pids
    assert await pool.compare("a", "b", SECONDS) == Comparison(equal=False)
    assert await pool.compare("unknown", "b", SECONDS) == Comparison(error="cannot say")
    assert pool.pids == first
    assert len(first) == 1


@pytest.mark.parametrize(("answer", "error"), [("hang", "no result within 0.2 s"), ("crash", "took its process down")])
async def test_a_lost_child_is_replaced(pool: ComparerPool, answer: str, error: str) -> None:
    await pool.compare("warm", "up", SECONDS)
    lost = pool.pids
    result = await pool.compare(answer, "b", SHORT if answer == "hang" else SECONDS)
    assert result.equal is None
    assert error in (result.error or "")
    assert died(lost)
    assert await pool.compare("a", "A", SECONDS) == Comparison(equal=True)
    assert pool.pids.isdisjoint(lost)


async def test_a_child_that_talks_nonsense_is_replaced(pool: ComparerPool) -> None:
    assert (await pool.compare("noise", "b", SECONDS)).equal is None
    assert await pool.compare("a", "A", SECONDS) == Comparison(equal=True)


async def test_a_child_killed_between_comparisons_is_replaced(pool: ComparerPool) -> None:
    await pool.compare("a", "A", SECONDS)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    assert died([pid])
    results = [await pool.compare("a", "A", SECONDS) for _ in range(2)]
    assert results[-1] == Comparison(equal=True)


async def test_a_cancelled_comparison_does_not_answer_the_next(pool: ComparerPool) -> None:
    await pool.compare("a", "A", SECONDS)
    lost = pool.pids
    task = asyncio.create_task(pool.compare("hang", "b", SECONDS))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert died(lost)
    assert await pool.compare("a", "b", SECONDS) == Comparison(equal=False)


async def test_children_are_recycled(pool: ComparerPool) -> None:
    await pool.compare("a", "A", SECONDS)
    (child,) = pool._pool._held
    child.served = RECYCLE_AFTER - 1
    first = pool.pids
    assert await pool.compare("a", "A", SECONDS) == Comparison(equal=True)
    assert died(first)
    assert await pool.compare("a", "A", SECONDS) == Comparison(equal=True)


async def test_closing_ends_comparisons_in_flight() -> None:
    pool = ComparerPool(size=1, command=FAKE_COMMAND)
    await pool.compare("a", "A", SECONDS)
    pids = pool.pids
    task = asyncio.create_task(pool.compare("hang", "b", SECONDS))
    await asyncio.sleep(0)
    await pool.close()
    assert (await task).equal is None
    assert died(pids)
    await pool.close()
    with pytest.raises(VerifierError, match="used after close"):
        await pool.compare("a", "A", SECONDS)


@pytest.mark.parametrize(
    ("command", "start_seconds", "error"),
    [
        (("/does/not/exist",), 60.0, "cannot start"),
        ((sys.executable, "-c", ""), 60.0, "ended before it was ready"),
        ((sys.executable, "-c", """print('{"failed": "ImportError: x"}')"""), 60.0, "ImportError: x"),
        ((sys.executable, "-c", "while True: pass"), 0.1, "was not ready after 0.1 s"),
    ],
)
async def test_a_child_that_cannot_start_is_an_error(command: Sequence[str], start_seconds: float, error: str) -> None:
    pool = ComparerPool(command=command, start_seconds=start_seconds)
    verifier = MathVerifier(SECONDS, pool=pool)
    with pytest.raises(VerifierError, match=error):
        await verifier(Item("q", reference="a"), samples("b", "c"))
    assert pool.pids == frozenset()


def samples(*answers: str | None) -> list[Sample]:
    return [Sample("q", i, prompt_key="k", text="", answer=answer) for i, answer in enumerate(answers)]


async def test_verdicts_come_in_order_and_one_hang_costs_one_answer() -> None:
    verifier = MathVerifier(SHORT, pool=ComparerPool(size=2, command=FAKE_COMMAND))
    await verifier(Item("q", reference="w"), samples("v"))
    verdicts = await verifier(Item("q", reference="Ab_1"), samples("hang", "ab_1", None, "Ab_1", "crash"))
    await verifier.close()
    assert [verdict.score for verdict in verdicts] == [None, 1.0, 0.0, 1.0, None]
    assert [bool(verdict.error) for verdict in verdicts] == [True, False, False, False, True]


async def test_what_needs_no_mathematics_starts_no_child() -> None:
    pool = ComparerPool(command=("/does/not/exist",))
    verifier = MathVerifier(SECONDS, pool=pool)
    assert await verifier.judge("2/4", "0.5") == Verdict("math", 1.0)
    assert (await verifier.judge("1", None)).error is not None
    assert (
        await verifier.judge("x" * (MAX_CHARS + 1), "1")
    ).error == f"longer than {MAX_CHARS} characters: not compared"


async def test_a_child_gets_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "for the store only")
    child = """import json, os, sys; print('{"ready": 1}', flush=True); sys.stdin.readline()
print(json.dumps({"error": ",".join(os.environ)}), flush=True)"""
    pool = ComparerPool(command=(sys.executable, "-I", "-c", child))
    seen = (await pool.compare("a", "b", SECONDS)).error or ""
    await pool.close()
    assert "PATH" in seen.split(",")
    assert "AWS_SECRET_ACCESS_KEY" not in seen


TABLE = [
    (r"\frac{\sqrt{8}}{2}", r"$\sqrt{2}$", 1.0),
    ("x^2 + 2x + 1", "(x+1)^2", 1.0),
    (r"\{1, 2\}", r"\{2, 1\}", 1.0),
    ("x = 5", "5", 1.0),
    ("0.333333", "1/3", 1.0),
    (r"\boxed{4}", "2^2", 1.0),
    ("[0, 1)", "[0, 1]", 0.0),
    ("x^2 + 1", "(x+1)^2", 0.0),
    ("7", "8", 0.0),
    ("no idea", r"\frac{1}{2}", 0.0),
    ("}{", "8", 0.0),
]


async def test_math_verify_and_an_answer_on_which_it_hangs() -> None:
    pool = ComparerPool(size=1)
    verifier = MathVerifier(20.0, pool=pool)
    got = [(answer, gold, (await verifier.judge(answer, gold)).score) for answer, gold, _ in TABLE]
    assert got == TABLE
    before = pool.pids
    tower = await pool.compare("9^{9^{9^{9}}}", "5", 0.5)
    assert tower == Comparison(error="no result within 0.5 s")
    assert died(before)
    assert (await verifier.judge("2^2", "x = 4")).score == 1.0
    await verifier.close()


def test_sympy_stays_in_the_children() -> None:
    # In an interpreter of its own: other tests of this one may have loaded it.
    script = (
        "import asyncio, sys\n"
        "from verifiers.math_equal import MathVerifier\n"
        "async def main():\n"
        "    verifier = MathVerifier(60.0)\n"
        "    assert (await verifier.judge('2^2', 'x = 4')).score == 1.0\n"
        "    await verifier.close()\n"
        "asyncio.run(main())\n"
        "assert not {'sympy', 'math_verify'} & set(sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


async def test_a_child_nobody_kills_ends_by_its_processor_time() -> None:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*CHILD, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    out, _ = await child.communicate(b'{"answer": "9^{9^{9^{9}}}", "reference": "5", "seconds": 0.1}\n')
    assert out.splitlines() == [b'{"ready": true}']
    assert child.returncode == -signal.SIGXCPU


PARENT = """
import asyncio, sys
from verifiers.math_equal import ComparerPool

async def main():
    pool = ComparerPool(size=2)
    await asyncio.gather(pool.compare("7", "8", 60), pool.compare("7", "9", 60))
    hanging = asyncio.create_task(pool.compare("9^{9^{9^{9}}}", "5", 600))
    await asyncio.sleep(0)
    print(*pool.pids, flush=True)
    await hanging

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a busy child ends by its processor time, later")
async def test_children_die_with_a_killed_parent() -> None:
    root = Path(CHILD[-1]).parent.parent
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PARENT,
        stdout=asyncio.subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 2
    parent.send_signal(signal.SIGKILL)
    # To the end of its output, so that no pipe of it outlives the event loop.
    await parent.communicate()
    assert died(pids)
