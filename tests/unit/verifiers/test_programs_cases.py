"""From columns to cases; rows whose tests cannot be run are told beforehand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Item
from verifiers.programs import check_item
from verifiers.programs_spec import ProgramsSpec
from verifiers.sandbox.cases import BadTests, Dialogue, read_cases


def item(reference: str | None = None, **columns: Any) -> Item:
    return Item("one", prompt="the prompt", reference=reference, payload=json.dumps(columns))


def spec(style: str, **fields: Any) -> ProgramsSpec:
    return ProgramsSpec.model_validate({"kind": "programs", "style": style, **fields})


PROMPT = "import math\ndef f(x):\n    '''Add three.'''\n"
CHECK = "def check(candidate):\n    assert candidate(2) == 5\n"


def test_humaneval() -> None:
    cases = read_cases(spec("humaneval", tests_column="test"), item(prompt=PROMPT, test=CHECK, entry_point="f"))
    assert (cases.prefix, cases.total) == (PROMPT, 1)
    assert cases.tests is not None
    assert cases.tests["cases"] == [f"{CHECK}\n\ncheck(f)\n"]
    assert (cases.tests["entry"], cases.tests["setup"]) == ("f", PROMPT)


def test_a_prompt_that_stops_within_a_function_offers_no_set_up() -> None:
    row = item(prompt="def f(x):\n    return (", test=CHECK, entry_point="f")
    cases = read_cases(spec("humaneval", tests_column="test"), row)
    assert cases.prefix == "def f(x):\n    return ("
    assert cases.tests is not None
    assert cases.tests["setup"] == ""


def test_the_items_own_prompt_stands_in_for_its_column() -> None:
    assert read_cases(spec("humaneval", tests_column="test"), item(test=CHECK, entry_point="f")).prefix == "the prompt"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ('["assert f(1) == 2", "assert f(2) == 3"]', ["assert f(1) == 2", "assert f(2) == 3"]),
        ("assert f(1) == 2\nx = 3\nassert f(x) == 4", ["assert f(1) == 2", "x = 3\nassert f(x) == 4"]),
        ("assert f(1) == 2\ncheck = f", ["assert f(1) == 2", "check = f"]),
    ],
)
def test_asserts(reference: str, expected: list[str]) -> None:
    cases = read_cases(spec("asserts"), item(reference))
    assert cases.tests is not None
    assert cases.tests["cases"] == expected
    assert cases.tests["entry"] is None
    assert cases.total == len(expected)


def test_asserts_with_set_up() -> None:
    chosen = spec("asserts", setup_column="setup", tests_column="tests", entry_point="f")
    cases = read_cases(chosen, item(setup="import math", tests=["assert f(1)"]))
    assert cases.tests is not None
    assert (cases.tests["setup"], cases.tests["entry"]) == ("import math", "f")


@pytest.mark.parametrize(
    "tests",
    [
        [{"input": "1 2\n", "output": "3"}, {"input": ["4", "5"], "output": ["9"]}],
        {"inputs": ["1 2\n", "4\n5"], "outputs": ["3", "9"]},
    ],
)
def test_dialogues(tests: Any) -> None:
    expected = (Dialogue("1 2\n", "3"), Dialogue("4\n5", "9"))
    assert read_cases(spec("stdio", tests_column="tests"), item(tests=tests)).dialogues == expected
    assert read_cases(spec("stdio"), item(json.dumps(tests))).dialogues == expected


def test_function_cases() -> None:
    tests = {"inputs": [[1, 2], {"a": 1}], "outputs": [3, None], "fn_name": "g"}
    cases = read_cases(spec("function"), item(json.dumps(tests)))
    assert cases.tests is not None
    assert cases.tests["entry"] == "g"
    assert cases.tests["cases"] == [
        {"args": [1, 2], "kwargs": {}, "expected": 3},
        {"args": [], "kwargs": {"a": 1}, "expected": None},
    ]


BAD: list[tuple[ProgramsSpec, Item, str]] = [
    (spec("asserts"), item(), "the reference holds no tests"),
    (spec("asserts", tests_column="tests"), item("assert True"), "column 'tests' holds no tests"),
    (spec("asserts"), item("assert f(1 == 2"), "does not parse as Python"),
    (spec("asserts"), item("[1, 2]"), "must be Python source"),
    (spec("asserts"), item("[]"), "needs a list of cases"),
    (spec("asserts"), item("# nothing"), "holds no statement"),
    (spec("asserts"), item("(" * 100_000), "does not parse as Python"),
    (spec("asserts"), item("x" * (5 << 20)), "more than"),
    (spec("asserts", prompt_column="code"), item("assert True"), "column 'code' holds no code"),
    (spec("stdio"), item("not JSON"), "is not JSON"),
    (spec("stdio"), item("[" * 100_000), "is not JSON"),
    (spec("stdio"), item("[]"), "needs a list of cases"),
    (spec("stdio"), item('[{"input": "1"}]'), "every case needs input and output"),
    (spec("stdio"), item('[{"input": 1, "output": "1"}]'), "must be text"),
    (spec("stdio"), item('{"inputs": ["1"], "outputs": []}'), "two lists of one length"),
    (spec("function"), item('[{"input": [1], "output": 1}]'), "no name of the tested function"),
    (spec("function", entry_point="f"), item('[{"input": 1, "output": 1}]'), "list of arguments"),
    (spec("function", entry_point_column="n"), item('[{"input": [1], "output": 1}]', n="a b"), "not a Python name"),
    (spec("humaneval"), item(CHECK, prompt=PROMPT), "no name of the tested function"),
    (spec("humaneval"), item(CHECK, prompt=PROMPT, entry_point="class"), "not a Python name"),
    (spec("humaneval"), item("assert True", prompt=PROMPT, entry_point="f"), "does not define check"),
]


@pytest.mark.parametrize(("chosen", "row", "says"), BAD)
def test_tests_that_cannot_be_run(chosen: ProgramsSpec, row: Item, says: str) -> None:
    assert says in (check_item(chosen, row) or "")


def test_a_payload_that_is_no_json() -> None:
    assert check_item(spec("stdio", tests_column="tests"), Item("one", payload="{")) is not None


def test_good_rows_have_no_problem() -> None:
    assert check_item(spec("asserts"), item("assert f(1)")) is None


@given(st.sampled_from(["humaneval", "asserts", "stdio", "function"]), st.text(max_size=60))
def test_any_reference_is_cases_or_a_problem(style: str, reference: str) -> None:
    row = item(reference, prompt=PROMPT, entry_point="f")
    try:
        assert read_cases(spec(style, entry_point="f"), row).total > 0
    except BadTests as error:
        assert str(error)  # noqa: PT017 - either is right
