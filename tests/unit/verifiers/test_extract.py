"""Extractors: hand-worked tables, and bounded work on hostile text."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SpecError
from pipeline.spec import AnswerSpec
from verifiers.extract import Extractor, last_boxed, last_code, last_number, make_extractor, whole_text


def extractor(**fields: Any) -> Extractor:
    return make_extractor(AnswerSpec(**fields))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7 + 5 = 12. The answer is 12.", "12"),
        ("costs $1,234,567.50 in all", "1,234,567.50"),
        ("it is 1 000", "000"),
        ("between 1,2,3", "3"),
        ("12,345,67", "67"),
        ("a change of -5 degrees", "-5"),
        ("a change of −5 degrees", "-5"),
        ("+5", "5"),
        ("10-5", "5"),
        ("from GPT-4", "4"),
        ("about .5 of it", ".5"),
        ("we wait...5", "5"),
        ("6.02e23 things", "6.02e23"),
        ("1.5E-3", "1.5E-3"),
        ("a share of 50%", "50"),
        ("the odds are 3/4.", "3/4"),
        ("the odds are -3 / 4", "-3/4"),
        (r"so $-\frac{1}{2}$", "-1/2"),
        (r"so \dfrac{-3}{4}", "-3/4"),
        ("1{,}000 or so", "1,000"),
        (r"about \approx5", "5"),
        ("12 for x2", "12"),
        ("only x2", "2"),
        ("5kg", "5"),
        ("version 1.2.3", "3"),
        ("no digits", None),
        ("", None),
    ],
)
def test_last_number(text: str, answer: str | None) -> None:
    assert last_number(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed{1} then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\fbox{ 7 }", "7"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{1\right.}", r"\left\{1\right."),
        (r"\boxed{\text{a} + {b}}", r"\text{a} + {b}"),
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"\boxed{5} and then \boxed{6", "5"),
        (r"\boxed{5} and then \boxed{ }", "5"),
        (r"{ stray \boxed{5} } }", "5"),
        (r"\boxed 5", None),
        (r"\boxed{", None),
        ("", None),
    ],
)
def test_last_boxed(text: str, answer: str | None) -> None:
    assert last_boxed(text) == answer


@pytest.mark.parametrize(
    ("pattern", "text", "answer"),
    [
        (r"#### (\S+)", "#### 1\n#### 18", "18"),
        (r"\d+", "1 2 3", "3"),
        (r"a(x)?", "ax a", None),
        (r"(?P<key>\w+)=(\w+)", "a=1 b=2", "b"),
        (r"=( *)", "=  ", None),
        (r"nothing", "here", None),
    ],
)
def test_regex_takes_the_first_group_of_the_last_match(pattern: str, text: str, answer: str | None) -> None:
    assert extractor(extract="regex", pattern=pattern)(text) == answer


def test_a_pattern_that_backtracks_without_end_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifiers.extract.REGEX_SECONDS", 0.05)
    assert extractor(extract="regex", pattern=r"(a|aa)+$")("a" * 200 + "b") is None


def test_a_pattern_only_the_re_module_takes_is_refused_by_name() -> None:
    spec = AnswerSpec.model_construct(extract="regex", pattern="(")
    with pytest.raises(SpecError, match=r"answer\.pattern: '\('"):
        make_extractor(spec)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is (B).", "B"),
        ("the answer is (b)", "B"),
        ("Answer: B", "B"),
        ("**Answer:** B", "B"),
        ("**Answer**: **C**", "C"),
        ("The correct answer is: option D because", "D"),
        (r"the answer is $\boxed{\text{B}}$", "B"),
        ("Answer: A\nWait.\nAnswer: C", "C"),
        ("The answer is B. Not to be confused with A", "B"),
        (r"\boxed{A} and done", "A"),
        (r"\boxed{\text{(c)}} and done", "C"),
        (r"\boxed{D. Paris}", "D"),
        ("Weighing all of it:\n(E)", "E"),
        ("it must be B.", "B"),
        ("B", "B"),
        ("*B*", "B"),
        ("the answer is a bit unclear", None),
        ("Answer: Because", None),
        ("the answer is A's sum", None),
        ("vitamins: F", None),
        ("ABC", None),
        ("", None),
    ],
)
def test_choice(text: str, answer: str | None) -> None:
    assert extractor(extract="choice")(text) == answer


def test_choice_knows_only_the_allowed_letters() -> None:
    assert extractor(extract="choice", choices="xyz^]")("answer is Y, yes") is None
    assert extractor(extract="choice", choices="xyz^]")("answer is (Y)") == "y"
    with pytest.raises(SpecError, match=r"answer\.choices"):
        extractor(extract="choice", choices=" ")


@pytest.mark.parametrize(
    ("field", "text", "answer"),
    [
        ("answer", '{"answer": 5}', "5"),
        ("answer", 'first {"answer": 1} then {"answer": "two"}', "two"),
        ("answer", 'Sure:\n```json\n{"why": "it is }{ so", "answer": "B"}\n```\n', "B"),
        ("a.b", '{"a": {"b": true}}', "true"),
        ("a.1.b", '{"a": [0, {"b": 2.50}]}', "2.5"),
        ("a", '{"a": {"c": 1, "b": [1, 2]}}', '{"b": [1, 2], "c": 1}'),
        ("a", 'the set {x: x > 0}, the "quote, and {"a": 3}', "3"),
        ("a", 'in short {see {"a": 3}}', "3"),
        ("a", '{"a": "half \\ud800 pair"}', "half ? pair"),
        ("a", '{"a": "quote \\" and }"}', 'quote " and }'),
        ("a", '{"a": null}', None),
        ("a", '{"a": "  "}', None),
        ("a", '{"a": 1} {"b": 2}', None),
        ("a.9", '{"a": [1]}', None),
        ("a", '{"a": ' + "9" * 10_000 + "}", None),
        ("a", '{"a": 1', None),
        ("a", "[1, 2]", None),
        ("a", "", None),
    ],
)
def test_json(field: str, text: str, answer: str | None) -> None:
    assert extractor(extract="json", field=field)(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("```python\n    return 1\n```", "    return 1"),
        ("```\na\n```\nand\n~~~py\nb\n\nc\n~~~\ndone", "b\n\nc"),
        ("````md\n```\ninner\n```\n````", "```\ninner\n```"),
        ("```py\na\n```\nthen, cut short:\n```py\nb", "a"),
        ("1. so\n   ```py\n   a\n   ```", "   a"),
        ("```\n\n```", None),
        ("return 1", None),
        ("", None),
    ],
)
def test_code(text: str, answer: str | None) -> None:
    assert last_code(text) == answer


def test_text() -> None:
    assert whole_text("  Paris, France \n") == "Paris, France"
    assert whole_text(" \n") is None


EXTRACTORS: dict[str, Extractor] = {
    "last_number": extractor(),
    "boxed": extractor(extract="boxed"),
    "regex": extractor(extract="regex", pattern=r"is (\w+)"),
    "choice": extractor(extract="choice"),
    "json": extractor(extract="json", field="a"),
    "code": extractor(extract="code"),
    "text": extractor(extract="text"),
}

PIECES = ["{", "}", '"', "\\", "`", "```", "\n", " ", "1", ",", "000", ".", "/", "-", "e", "x", "(", "A", ")", "$", ":"]
WORDS = ["\\boxed{", "\\frac{", '{"a":', "answer", "answer is ", "\\text{", "is ", "[", "]", "null", "−", "\ud800", "١"]


@given(st.lists(st.sampled_from(PIECES + WORDS), max_size=60).map("".join) | st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_makes_an_extractor_raise_or_return_blank(text: str) -> None:
    for extract in EXTRACTORS.values():
        answer = extract(text)
        assert answer is None or answer.strip()


HOSTILE = {
    "open braces": "{",
    "open boxes": "\\boxed{",
    "nested boxes": "\\boxed{1",
    "open objects": '{"a":',
    "open lists": '{"a":[',
    "open strings": '{"',
    "escaped quotes": '{"\\"\\"',
    "closed objects": '{"a":{}} ',
    "backslashes": "\\",
    "digits": "1",
    "groups": ",111",
    "slashes": "1 / ",
    "exponents": "1e",
    "commands": "\\approx",
    "fractions": "\\frac{1}{",
    "ticks": "`",
    "fences": "```\n",
    "spaces": " ",
    "answers": "answer is ",
    "decorated": "answer:****",
    "letters": "(A",
    "words": "is ",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("kind", EXTRACTORS)
def test_work_grows_with_the_text_not_with_its_square(kind: str, piece: str) -> None:
    small, large = 25_000, 200_000

    def work(size: int) -> float:
        text = (piece * size)[:size] + "}" * (size // 10)
        started = time.process_time()
        EXTRACTORS[kind](text)
        return time.process_time() - started

    # Eight times the text: linear work is 8 times as much, quadratic 64. Less than a few ms is noise.
    least = max(min(work(small) for _ in range(2)), 0.004)
    assert min(work(large) for _ in range(2)) < 25 * least
