"""One spelling an answer: hand-worked tables and the laws that make votes add up."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.spec import AnswerSpec
from verifiers.canonical import as_number, canonical, canonical_for


@pytest.mark.parametrize(
    ("spellings", "form"),
    [
        (["1,000", "1000.0", r"\boxed{1000}", "$1000", "1e3", " 1000. ", r"\$1,000", "$1000$", "1{,}000"], "1000"),
        ([r"1\,000", r"\text{1000}", "+1000", "01000", r"\(1000\)", r"\fbox{$1000$}", "2000/2", "€1000"], "1000"),
        ([r"1 \times 10^3", "1×10^{3}", "100000e-2"], "1000"),
        (["0.5", "1/2", "2/4", ".5", "0.50", r"\frac{1}{2}", r"\dfrac{2}{4}", r"\frac12", "5e-1", "$ 1 / 2 $"], "0.5"),
        (["-0.5", "−0.5", "-1/2", r"-\frac{1}{2}", r"\frac{-1}{2}", "-.5"], "-0.5"),
        (["1/3", "2/6", r"\tfrac{1}{3}"], "1/3"),
        (["-22/7", r"-\frac{44}{14}"], "-22/7"),
        (["0", "-0", "0.0", "-0.00", "0/5", "0e9", "−0"], "0"),
        (["50%", r"50\%", "50", "50 %"], "50"),
        (["-$5", "$-5", "-5", "–5"], "-5"),
        (["3.14159", "3.141590"], "3.14159"),
        (["0.000000000001", "1e-12"], "0.000000000001"),
        (["1e-13"], "1/10000000000000"),
        (["B", "(B)", r"\text{(B)}", "$B$", "B."], "B"),
        (["b"], "b"),
        (["Paris", " paris ", "PARIS.", r"\text{Paris}", r"\textbf{paris}"], "paris"),
        (["New  York", "new\nyork"], "new york"),
        (["X + 1", "$X + 1$"], "X + 1"),
        (["x + 1"], "x + 1"),
        ([r"\Gamma"], r"\Gamma"),
        (["$5$ and $6$"], "$5$ and $6$"),
        ([r"\text{a} and \text{B}"], r"\text{a} and \text{B}"),
        (["1 000"], "1 000"),
        (["1,00"], "1,00"),
        (["1/0"], "1/0"),
        ([r"\frac{1}{0}"], r"\frac{1}{0}"),
        (["1e999999999"], "1e999999999"),
        (["٣"], "٣"),
    ],
)
def test_spellings_of_one_answer_are_one_vote(spellings: list[str], form: str) -> None:
    assert {canonical(spelling) for spelling in spellings} == {form}


@pytest.mark.parametrize("blank", [None, "", "  \n", "...", "$$", r"\boxed{}"])
def test_blank_is_no_answer(blank: str | None) -> None:
    assert canonical(blank) is None


PIECES = [*"0123456789.,-+/eE%$(){}^ xKß−", "\\frac", "\\boxed{", "\\text{", "\\(", "\\)", "10^", "\\times ", "İ"]
anything = st.text(max_size=40) | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@given(anything)
def test_idempotent_and_never_raises(text: str) -> None:
    form = canonical(text)
    assert canonical(form) == form


@given(st.integers(-(10**140), 10**140))
def test_formats_of_one_integer_agree(number: int) -> None:
    sign, size = ("-" if number < 0 else ""), abs(number)
    formats = [str(number), f"{number:,}", f"{number}.0", f"${number}$", rf"\boxed{{{number:,}}}", f"{sign}${size}"]
    formats += [
        f"{number}.",
        f" {number} ",
        f"{number}e0",
        f"{number}0e-1",
        f"{number * 3}/3",
        rf"\frac{{{number}}}{{1}}",
    ]
    assert {canonical(text) for text in formats} == {str(number)}


@given(st.integers(), st.integers())
def test_distinct_integers_stay_distinct(one: int, other: int) -> None:
    assert (canonical(str(one)) == canonical(f"{other:,}")) == (one == other)


@given(st.fractions(max_denominator=10**6))
def test_the_form_denotes_the_same_rational(number: Fraction) -> None:
    form = canonical(f"{number.numerator}/{number.denominator}")
    assert form is not None
    assert Fraction(form) == number
    assert canonical(rf"\frac{{{number.numerator}}}{{{number.denominator}}}") == form


@pytest.mark.parametrize(
    "text", ["9" * 100_000, "1e" + "9" * 100_000, r"\text{" * 20_000 + "}" * 20_000, "$" * 100_000, "." * 100_000]
)
def test_huge_text_stays_text(text: str) -> None:
    assert canonical(text) == text
    assert as_number(text) is None


def test_code_is_not_altered() -> None:
    code = canonical_for(AnswerSpec(extract="code"))
    assert code("\n    return 'A'  # 1.0\n") == "    return 'A'  # 1.0"
    assert code("1.0") == "1.0"
    assert code(" \n") is None
    assert code(None) is None


def test_json_is_a_number_or_kept() -> None:
    json = canonical_for(AnswerSpec(extract="json", field="a"))
    assert [json(text) for text in ("1,000.0", " $Paris$. ", "", None)] == ["1000", "$Paris$.", None, None]


def test_a_choice_is_the_allowed_letter() -> None:
    choice = canonical_for(AnswerSpec(extract="choice", choices="ABC"))
    assert [choice(text) for text in ("b", "(B)", "B.", "D", None)] == ["B", "B", "B", "D", None]


@pytest.mark.parametrize("extract", ["last_number", "boxed", "text"])
def test_everything_else_is_canonical(extract: str) -> None:
    assert canonical_for(AnswerSpec.model_validate({"extract": extract})) is canonical
