"""Behaviour over the real sandbox: what is told of programs that compute, hang, die, flood, lie or hide things."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.records import Item, Sample, Verdict
from tests.integration.sandbox.conftest import confined
from verifiers.behaviour import BehaviourVerifier, make_behaviour
from verifiers.behaviour_spec import BehaviourSpec
from verifiers.conformance import assert_conforms
from verifiers.sandbox.client import Sandbox
from verifiers.sandbox.observer import digest


async def seen(
    sandbox: Sandbox, inputs: list[Any], *programs: str, given: tuple[str, ...] = (), **fields: Any
) -> list[Verdict]:
    spec = BehaviourSpec.model_validate(
        {"kind": "behaviour", "style": "source", "inputs_column": "inputs", "timeout": 20.0, **fields}
    )
    item = Item("one", payload=json.dumps({"inputs": inputs}), given=given)
    return await BehaviourVerifier(spec, sandbox)(
        item, [Sample("one", index, "", text) for index, text in enumerate(programs)]
    )


def words(verdict: Verdict) -> list[str]:
    assert verdict.detail is not None, verdict
    return verdict.detail.split()


async def test_programs_that_do_the_same_are_told_alike(sandbox: Sandbox) -> None:
    loop = "def total(values):\n    n = 0\n    for value in values:\n        n += value\n    return n\n"
    other = "def total(values): return float(sum(values))\n"
    longest = "def total(values): return max(values)\n"
    verdicts = await seen(sandbox, ["total([1, 2])", "total([])", "total([5])"], loop, other, longest)
    assert words(verdicts[0]) == words(verdicts[1]) == [digest(3), digest(0), digest(5)]
    assert words(verdicts[2]) == [digest(2), "!ValueError", digest(5)]
    assert [verdict.score for verdict in verdicts] == [1.0, 1.0, 2 / 3]


async def test_calls_by_arguments_and_by_name(sandbox: Sandbox) -> None:
    fields = {"style": "function", "entry_point": "f"}
    [verdict] = await seen(sandbox, [[1, 2], {"b": 1, "a": 5}, [1]], "def f(a, b): return a - b", **fields)
    assert words(verdict) == [digest(-1), digest(4), "!TypeError"]


async def test_scripts_by_what_they_print(sandbox: Sandbox) -> None:
    program = "n = int(input())\nif n == 2: raise ValueError\nif n == 3: print('x' * 9999)\nprint(n * n, '  ')\n"
    [verdict] = await seen(sandbox, ["4", "2", ["3"], "5\n"], program, style="stdio", max_output_kb=4)
    assert words(verdict) == [digest("16"), "!exit", "!output", digest("25")]


async def test_assertions_tell_only_whether_they_hold(sandbox: Sandbox) -> None:
    tests = ("assert f(1) == 2", "assert f(2) == 2", "assert f(0) == 0, f(0)")
    programs = "def f(x): return x + 1", "def f(x):\n    if x == 2: raise KeyError\n    return x * 2"
    verdicts = await seen(sandbox, ["f(9)"], *programs, given=tests)
    assert [(verdict.detail, verdict.score) for verdict in verdicts] == [("+ ! !", 1 / 3), ("+ ! +", 2 / 3)]


async def test_a_hang_or_a_death_costs_its_input_and_no_other(sandbox: Sandbox) -> None:
    program = (
        "import os\n"
        "def f(x):\n    if x == 1:\n        while True: pass\n    if x == 3: os._exit(0)\n"
        "    if x == 4: raise SystemExit\n    return x\n"
    )
    inputs = [f"f({x})" for x in range(6)]
    [verdict] = await seen(sandbox, inputs, program, timeout=4.0)
    assert words(verdict) == [digest(0), "!time", digest(2), "!ended", "!foul", digest(5)]
    assert verdict.score == 0.5


async def test_a_program_that_always_hangs_is_given_up(sandbox: Sandbox) -> None:
    inputs = [f"f({x})" for x in range(9)]
    [verdict] = await seen(sandbox, inputs, "def f(x):\n    while True: pass", timeout=1.0)
    said = words(verdict)
    assert (said[0], said[-1], len(said), set(said)) == ("!time", "!unasked", 9, {"!time", "!unasked"})
    assert verdict.score == 0.0
    for broken in ("while True: pass", "def f(x) return", "import os\nos._exit(0)"):
        [verdict] = await seen(sandbox, inputs, broken, timeout=1.0)
        assert verdict.score == 0.0
        assert (verdict.detail or "").startswith("the program does not load: ")


async def test_values_that_cannot_be_carried_or_are_too_large(sandbox: Sandbox) -> None:
    program = (
        "class Own:\n    def __repr__(self): return repr(self)\n    def __eq__(self, other): return True\n"
        "def f(x):\n"
        "    if x == 0: return Own()\n"
        "    if x == 1:\n        inner = []\n        inner.append(inner)\n        return inner\n"
        "    if x == 2: return 'x' * (9 << 20)\n"
        "    if x == 3: return iter(int, 1)\n"
        "    if x == 4: raise type('Nasty\\n+', (KeyError,), {})()\n"
        "    if x == 5: raise type('ValueErrer', (Exception,), {})()\n"
        "    if x == 6: return bytearray(1 << 30)\n"
        "    return {'b': {2, 1}, 'a': (x, [0.1 + 0.2])}\n"
    )
    [verdict] = await seen(sandbox, [f"f({x})" for x in range(8)], program)
    fouls = ["!foul"] * 4
    value = digest({"a": (7, [0.3]), "b": {1, 2}})
    assert words(verdict) == [*fouls, "!KeyError", "!Exception", "!MemoryError", value]


async def test_what_a_program_prints_or_forges_is_not_heard(sandbox: Sandbox) -> None:
    forged = "00000000000000000000"
    program = (
        "import os\n"
        "def f(x):\n"
        "    print('x' * 10_000_000)\n"
        "    for fd in range(3, 64):\n"
        "        try: os.write(fd, b'\"0000000000000000\"\\n')\n"
        "        except OSError: pass\n"
        f"    return {forged!r}\n"
    )
    honest = f"def f(x): return {forged!r}"
    lying, plain = await seen(sandbox, ["f(1)", "f(2)"], program, honest)
    assert words(plain) == [digest(forged)] * 2
    # It has spoilt its own replies, and nothing else: no word of its choosing got through.
    assert "0000000000000000" not in words(lying)
    assert lying.score == 0.0


async def test_random_numbers_are_seeded_and_the_clock_tells_programs_apart(sandbox: Sandbox) -> None:
    program = "import random, time\ndef f(x): return random.random() if x else time.perf_counter_ns()\n"
    said = [words((await seen(sandbox, ["f(1)", "f(0)"], program))[0]) for _ in range(3)]
    assert len({one[0] for one in said}) == 1
    assert len({one[1] for one in said}) == 3


async def test_hostile_inputs_are_the_inputs_own_affair(sandbox: Sandbox) -> None:
    given = ("f(lambda: 0)", "__import__('os')._exit(0)", "[0 for _ in iter(int, 1)]", "assert exit() or f(1)", "f(7)")
    [verdict] = await seen(sandbox, ["f(9)"], "def f(x): return x", given=given, timeout=2.0)
    assert words(verdict) == ["!input", "!ended", "!time", "!", digest(7)]


@confined
async def test_inputs_a_model_wrote_reach_no_file_no_network_and_no_process() -> None:
    confined_only = Sandbox(1)
    given = (
        "open('/etc/passwd').read()",
        "__import__('socket').socket()",
        "__import__('os').fork()",
        "__import__('os').listdir('/proc')",
        "__import__('os').environ.copy()",
        "f(1)",
    )
    try:
        [verdict] = await seen(confined_only, ["f(9)"], "def f(x): return x", given=given)
    finally:
        await confined_only.close()
    assert words(verdict) == [
        "!FileNotFoundError",
        "!PermissionError",
        "!BlockingIOError",
        "!FileNotFoundError",
        digest({}),
        digest(1),
    ]


@pytest.mark.parametrize(
    ("inputs", "fields", "says"),
    [
        ([], {}, "needs a list of inputs"),
        ("nonsense", {}, "not JSON"),
        (["f("], {}, "does not parse"),
        (["import os"], {}, "one expression or one assert"),
        (["f(1); f(2)"], {}, "one expression or one assert"),
        ([7], {}, "must be Python source"),
        ([7], {"style": "function", "entry_point": "f"}, "list of arguments"),
        ([[1]], {"style": "function", "entry_point_column": "none"}, "not a Python name"),
        ([7], {"style": "stdio"}, "must be text"),
        (["f(1)"], {"prompt_column": "none"}, "holds no code"),
        (["f(1)"], {"inputs_column": None}, "there are no inputs"),
    ],
)
async def test_inputs_that_cannot_be_run_are_errors_and_start_nothing(
    inputs: Any, fields: dict[str, Any], says: str
) -> None:
    idle = Sandbox(1)
    [verdict] = await seen(idle, inputs, "def f(x): return x", **fields)
    assert verdict.score is None
    assert says in (verdict.error or "")
    assert idle.pids == frozenset()


async def test_an_empty_generation_and_no_more_inputs_than_agreed(sandbox: Sandbox) -> None:
    empty, some = await seen(sandbox, ["f(1)"] * 40, "  \n", "def f(x): return x", max_inputs=3)
    assert (empty.score, empty.detail) == (0.0, "no program was found")
    assert words(some) == [digest(1)] * 3


@confined
async def test_it_conforms() -> None:
    item = Item("one", payload=json.dumps({"inputs": [[1], [2]]}))
    samples = [Sample("one", 0, "", "def f(x): return x + 1"), Sample("one", 1, "", "def f(x): return x")]
    spec = BehaviourSpec(style="function", inputs_column="inputs", entry_point="f", servers=2)
    await assert_conforms(lambda: make_behaviour(spec), item, samples)
