"""Templates and messages: needed columns known early, one row's fault kept to that row, strangers kept in."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import SourceError
from pipeline.prompts import RowFault, compile_template, parse_messages
from pipeline.records import Message


def test_the_default_is_the_prompt_column() -> None:
    template = compile_template(None)
    assert template.columns == ("prompt",)
    assert template.render({"prompt": "2 < 3 & so on", "other": 1}) == "2 < 3 & so on"


def test_needed_columns_leave_out_what_the_template_makes_itself() -> None:
    text = (
        "{% set head = 'Q' %}{% for i in range(2) %}{{ head }}{{ loop.index }} {{ shots[i] }}{% endfor %}{{ question }}"
    )
    assert compile_template(text).columns == ("question", "shots")


def test_a_template_is_parsed_once() -> None:
    assert compile_template("{{ a }}!") is compile_template("{{ a }}!")


@pytest.mark.parametrize("text", ["{{ a", "{% if %}", "{{ a | nofilter }}", "{% include 'x' %}", "{% extends other %}"])
def test_wrong_templates_are_refused_at_once(text: str) -> None:
    with pytest.raises(SourceError, match=r"^dataset\.prompt: "):
        compile_template(text)


@pytest.mark.parametrize(
    ("text", "values", "cause"),
    [
        ("{{ a }}", {}, "'a' is undefined"),
        ("{{ a }}", {"a": None}, "prints a null.*null in this row: a"),
        ("{{ a.b }}", {"a": {}}, "has no attribute 'b'"),
        ("{{ a + 1 }}", {"a": "x"}, "TypeError"),
        ("{{ 1 // a }}", {"a": 0}, "ZeroDivisionError"),
        ("{{ a }}", {"a": " \n"}, "the prompt is empty"),
    ],
)
def test_one_rows_fault(text: str, values: dict[str, Any], cause: str) -> None:
    with pytest.raises(RowFault, match=cause):
        compile_template(text).render(values)


def test_null_can_be_asked_about_and_replaced() -> None:
    template = compile_template("{% if a %}{{ a }} {% endif %}{{ b or 'none given' }}")
    assert template.render({"a": None, "b": None}) == "none given"


@pytest.mark.parametrize("text", ["{{ a.__class__.__mro__ }}", "{{ ''.__class__.__base__.__subclasses__() }}{{ a }}"])
def test_templates_cannot_leave_the_sandbox(text: str) -> None:
    with pytest.raises(RowFault, match="SecurityError"):
        compile_template(text).render({"a": "x"})


def test_template_text_in_a_value_stays_text() -> None:
    assert compile_template("{{ a }}").render({"a": "{{ 7 * 7 }}"}) == "{{ 7 * 7 }}"


def test_messages_may_be_json_text_and_have_further_keys() -> None:
    expected = (Message("user", "hi"), Message("assistant", ""))
    value = [{"role": "user", "content": "hi", "name": None}, {"role": "assistant", "content": ""}]
    assert parse_messages(value, "chat") == expected
    assert (
        parse_messages('[{"role": "user", "content": "hi"}, {"role": "assistant", "content": ""}]', "chat") == expected
    )


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (None, "chat: must be a non-empty list of messages, not null"),
        ([], "not an empty list"),
        ({"role": "user", "content": "x"}, "not dict"),
        ("hello", "not a JSON list"),
        ("[" * 100_000, "not a JSON list"),
        (["hello"], r"chat\[0\]: must be an object"),
        ([{"role": "user", "content": "x"}, {"role": "tool", "content": "x"}], r"chat\[1\]\.role: .* not 'tool'"),
        ([{"role": ["user"], "content": "x"}], r"chat\[0\]\.role"),
        ([{"role": "user", "content": None}], r"chat\[0\]\.content: must be text, not null"),
        ([{"role": "user"}], "must be text, not null"),
        ([{"role": "user", "content": " "}], "every message is empty"),
    ],
)
def test_messages_of_another_shape(value: Any, cause: str) -> None:
    with pytest.raises(RowFault, match=cause):
        parse_messages(value, "chat")
