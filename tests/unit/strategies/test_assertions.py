"""What is taken for an assertion in a model's reply, and that hostile ones cost little and do nothing."""

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RequestRejected
from strategies.assertions import MAX_LENGTH, asking, assertions, calls
from tests.factories import make_item

FENCED = """Sure! Here are the tests:
```python
def test_it():
    assert add(1, 2) == 3, "one and two"
    assert add(
        [1],
        [2],
    ) == [1, 2]
```
I assert that these assert statements are right.
assert add(0, 0) == 0 and more words
assert
    add(5, 5) == 10
"""


def test_of_prose_fences_and_broken_lines_the_assertions_are_left():
    found = ["assert add(1, 2) == 3", "assert add([1], [2]) == [1, 2]", "assert add(5, 5) == 10"]
    assert assertions("", FENCED, 5) == found
    assert assertions("", FENCED, 2) == found[:2]


def test_a_reply_goes_on_from_a_prompt_that_ends_in_the_keyword():
    reply = "\tadd(1, 2) == 3\nassert add(2, 2) == 4\n\nimport os"
    assert assertions("pass\n\n# check the correctness of add\nassert ", reply, 5) == [
        "assert add(1, 2) == 3",
        "assert add(2, 2) == 4",
    ]
    assert assertions("Write tests.", reply, 5) == ["assert add(2, 2) == 4"]


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "assert",
        "assert True",
        "assert (f(1) == 2, 'always true')",
        "assert len([1]) == 1",
        "assert obj.method(1)",
        "assertions = f(1)",
        "assert f(1) == 2; import os",
        "assert f('" + "x" * MAX_LENGTH + "')",
        "assert f(" + "(" * 230,
        "assert " + "-" * 400 + "f(1)" * 3,
        "assert f(\0)",
        "assert f('\ud800')",
        "assert f(" + "9" * 5_000 + ")",
    ],
)
def test_what_is_no_assertion_about_a_function(reply):
    assert assertions("", reply, 5) == []


@pytest.mark.filterwarnings("error")
def test_python_warns_nobody_of_a_models_style():
    assert assertions("", "assert f(1) is 2\nassert f('\\d') == 1", 5) == ["assert f(1) is 2", "assert f('\\\\d') == 1"]


def test_a_flood_of_broken_lines_is_not_read_to_its_end(monkeypatch):
    tried = []
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda source: (tried.append(source), parse(source))[1])
    assert assertions("", "assert f( ==\n" * 1_500 + "assert f(1) == 1", 5) == []
    assert len(tried) <= 5 * 4 * 4 * 2


@given(st.text(st.sampled_from("assert f(1)='\"\n[]{}:,\\ \t#"), max_size=120), st.integers(1, 6))
def test_whatever_the_reply_what_is_kept_parses_again_to_itself(reply, most):
    found = assertions("", "assert " + reply, most)
    assert len(found) <= most
    for assertion in found:
        [statement] = ast.parse(assertion).body
        assert isinstance(statement, ast.Assert)
        assert statement.msg is None
        assert assertions("", assertion, 1) == [assertion]
        assert all(isinstance(ast.parse(call, mode="eval").body, ast.Call) for call in calls(assertion))


@pytest.mark.parametrize(
    ("assertion", "inputs"),
    [
        ("assert f(1, [2]) == g(3)", ["f(1, [2])", "g(3)"]),
        ("assert abs(f(2) - 0.5) < 1e-06", ["f(2)"]),
        ("assert f(g(1)) == 2", ["f(g(1))"]),
        ("assert all((f(x) for x in range(3)))", []),
        ("assert f(int, g(1)) == f(g)", ["f(int, g(1))"]),
    ],
)
def test_the_calls_in_an_assertion(assertion, inputs):
    assert calls(assertion) == inputs


def test_the_prompt_shows_question_and_count():
    prompt = asking(None, make_item(prompt="Write f."), 7)
    assert prompt.startswith("Write f.\n")
    assert "Write 7 test cases" in prompt
    assert asking("{{ prompt }}|{{ count }}", make_item(prompt="p"), 2) == "p|2"
    with pytest.raises(RequestRejected, match="asks for tests"):
        asking("{{ missing }}", make_item(), 1)
