"""Checks a second: confined and forked from a warm server, against a fresh plain Python for every check.

    python -m tests.benchmarks.sandbox [--checks 200] [--rounds 3] [--servers 2] [--json]

Each way makes the same checks, a few lines with two asserts and a script of one line, as many at once as there are
servers; round by round, so that a machine whose speed drifts slows all. The plain way has no confinement at all: the
ratio is what confinement costs, or gains by being warm. ``cold`` starts a server for every check.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from verifiers.sandbox import confine
from verifiers.sandbox.client import Sandbox
from verifiers.sandbox.limits import Limits

PROGRAM = "def add(a, b):\n    return a + b\n"
CASES = ["assert add(1, 2) == 3", "assert add([1], [2]) == [1, 2]"]
SCRIPT = "print(sum(map(int, input().split())))\n"
TESTS = {"kind": "source", "cases": CASES, "entry": None, "setup": "", "partial": False, "tolerance": 0.0}

Check = Callable[[], Awaitable[None]]


async def plain() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", "\n".join([PROGRAM, *CASES]), stdin=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0


def asserts(sandbox: Sandbox) -> Check:
    async def check() -> None:
        outcome = await sandbox.calls(PROGRAM, TESTS, Limits())
        assert json.loads(outcome.verdict)["passed"] == len(CASES), outcome

    return check


def script(sandbox: Sandbox) -> Check:
    async def check() -> None:
        outcome = await sandbox.script(SCRIPT, "1 2 3", Limits())
        assert outcome.printed == b"6\n", outcome

    return check


async def cold() -> None:
    sandbox = Sandbox(1)
    await asserts(sandbox)()
    await sandbox.close()


async def rate(check: Check, checks: int, at_once: int) -> float:
    """Checks a second."""
    turns = asyncio.Semaphore(at_once)

    async def one() -> None:
        async with turns:
            await check()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(checks)))
    return checks / (time.perf_counter() - began)


async def measure(arguments: argparse.Namespace) -> dict[str, list[float]]:
    sandbox = Sandbox(arguments.servers)
    ways: dict[str, Check] = {
        "plain": plain,
        "asserts": asserts(sandbox),
        "script": script(sandbox),
        "cold": cold,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    try:
        for check in ways.values():
            await rate(check, 2 * arguments.servers, arguments.servers)
        for _ in range(arguments.rounds):
            for name, check in ways.items():
                checks = arguments.checks if name != "cold" else max(1, arguments.checks // 10)
                rates[name].append(await rate(check, checks, arguments.servers))
    finally:
        await sandbox.close()
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checks", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    problem = confine.problem()
    if problem is not None:
        raise SystemExit(f"no sandbox on this machine: {problem}")
    rates = asyncio.run(measure(arguments))
    base = statistics.median(rates["plain"])
    rows: dict[str, Any] = {
        name: {"per_second": round(statistics.median(found), 1), "of_plain": round(statistics.median(found) / base, 2)}
        for name, found in rates.items()
    }
    if arguments.json:
        print(json.dumps(rows))
        return
    for name, row in rows.items():
        print(f"{name:10} {row['per_second']:8.1f} checks/s   {row['of_plain']:5.2f} of plain")


if __name__ == "__main__":
    main()
