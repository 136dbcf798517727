"""Quantities by hand-worked tables, and laws that hold for all of them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Item, Sample
from pipeline.spec import AnswerSpec
from pipeline.verifier_spec import NumericSpec
from verifiers.registry import check_reference, make_verifier
from verifiers.units import MAX_CHARS, Quantity, as_quantity, same

NONE = Fraction(0)


def equal(left: str, right: str, require: bool = False) -> bool:
    one, other = as_quantity(left), as_quantity(right)
    assert one is not None, left
    assert other is not None, right
    return same(one, other, NONE, NONE, require)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1.5 km", "1500 m"),
        ("90 km/h", "25 m/s"),
        ("25 m s^-1", r"25 \text{ m}/\text{s}"),
        ("1 J", r"1\,\mathrm{kg}\cdot\mathrm{m}^2/\mathrm{s}^2"),
        ("1 m/s/s", "1 m/s²"),
        ("5 MW", "5000 kW"),
        ("2 hours", "120 min"),
        ("3 ft", "1 yard"),
        ("5 feet", "60 inches"),
        ("$3", "3 dollars"),
        ("US$2.50", "250 cents"),
        ("-$5", "-5 USD"),
        ("$1.5 million", "1500000 dollars"),
        ("50%", "0.5 "),
        (r"50\%", "50 percent"),
        ("20 °C", "68 °F"),
        (r"20^\circ C", "293.15 K"),
        ("1 kB", "8000 bits"),
        ("1 KiB", "1024 bytes"),
        ("2 dozen eggs", "24 eggs"),
        ("1 apple", "1 apples"),
        ("1 L", "1000 cm^3"),
        (r"\frac{1}{2} m", "50 cm"),
        ("1,234 g", "1.234 kg"),
        ("5 min", "300 s"),
        ("3 kΩ", "3000 ohms"),
        ("1 year", "12 months"),
    ],
)
def test_two_spellings_of_one_quantity(left: str, right: str) -> None:
    assert equal(left, right)
    assert equal(right, left, require=True)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("5 MW", "5 mW"),
        ("5 m", "5 s"),
        ("5 m", "5 m^2"),
        ("5 m", "5 min"),
        ("$5", "5 €"),
        ("12 apples", "12 pears"),
        ("20 °C", "20 K"),
        ("1 kB", "1024 bytes"),
        ("1 km", "1 mile"),
        ("-5 m", "5 m"),
        ("1 year", "365 days"),
    ],
)
def test_two_quantities(left: str, right: str) -> None:
    assert not equal(left, right)


@pytest.mark.parametrize(
    "text",
    ["", "km", "five m", "5 5", "5 %%", "2 hours 30 minutes", "5 m^99", "5 m/", "5 /m/", "x" * 500, "5 " + "m " * 90],
)
def test_no_quantity(text: str) -> None:
    assert as_quantity(text) is None


@pytest.mark.parametrize(
    ("answer", "reference", "lenient", "strict"),
    [
        ("1500", "1500 m", True, False),
        ("1.5", "1500 m", False, False),
        ("1500 m", "1500", True, False),
        ("50", "50%", True, False),
        ("0.5", "50%", True, True),
        ("50%", "0.5", True, True),
        ("50%", "50", True, False),
        ("5", "5", True, True),
    ],
)
def test_a_missing_unit(answer: str, reference: str, lenient: bool, strict: bool) -> None:
    assert equal(answer, reference) is lenient
    assert equal(answer, reference, require=True) is strict


def test_tolerance_is_of_the_number_as_written() -> None:
    warm, warmer = as_quantity("20.1 °C"), as_quantity("21 °C")
    reference = as_quantity("20 °C")
    assert warm is not None
    assert warmer is not None
    assert reference is not None
    assert same(warm, reference, Fraction(1, 100), NONE, True)
    assert not same(warmer, reference, Fraction(1, 100), NONE, True)
    assert same(warmer, reference, NONE, Fraction(1), True)


NUMBERS = st.decimals(-(10**9), 10**9, places=3).map(lambda number: f"{number:f}")
LENGTHS = st.sampled_from(["m", "km", "cm", "mm", "miles", "ft", "inches", "yd", "nanometers", "µm"])


@given(NUMBERS, LENGTHS, LENGTHS)
def test_conversion_is_exact_and_goes_both_ways(number: str, unit: str, other: str) -> None:
    quantity, step = as_quantity(f"{number} {unit}"), as_quantity(f"1 {other}")
    assert quantity is not None
    assert step is not None
    converted = Quantity(quantity.base / step.base, step.unit)
    assert converted.base == quantity.base
    assert same(converted, quantity, NONE, NONE, True)
    assert same(quantity, converted, NONE, NONE, True)


@given(NUMBERS, LENGTHS, st.sampled_from(["s", "h", "kg", "$", "K", "apples"]))
def test_dimensions_never_mix(number: str, unit: str, other: str) -> None:
    left, right = as_quantity(f"{number} {unit}"), as_quantity(f"{number} {other}")
    assert left is not None
    assert right is not None
    assert not same(left, right, Fraction(10**6), NONE, False)


@given(st.text(max_size=2 * MAX_CHARS))
def test_any_text_is_a_quantity_or_none(text: str) -> None:
    found = as_quantity(text)
    assert found is None or isinstance(found.base, Fraction)


@given(st.text(alphabet="0123456789 .,eE+-/*^{}()\\fracmsk%$°·²", max_size=MAX_CHARS))
def test_any_text_of_the_right_letters_too(text: str) -> None:
    found = as_quantity(text)
    assert found is None or isinstance(found.base, Fraction)


@pytest.mark.parametrize(
    ("text", "reference", "units", "score"),
    [
        (r"So it is \boxed{5 \text{ MW}}", "5000 kW", "convert", 1.0),
        (r"So it is \boxed{5 \text{ mW}}", "5000 kW", "convert", 0.0),
        (r"So it is \boxed{5000}", "5000 kW", "convert", 1.0),
        (r"So it is \boxed{5000}", "5000 kW", "require", 0.0),
        (r"So it is \boxed{many}", "5000 kW", "convert", 0.0),
        (r"So it is \boxed{5 \text{ s}}", "5000 kW", "convert", 0.0),
    ],
)
async def test_the_verifier_reads_units_from_the_text(text: str, reference: str, units: str, score: float) -> None:
    answer = AnswerSpec(extract="boxed")
    verifier = make_verifier(NumericSpec.model_validate({"units": units}), answer)
    from verifiers.canonical import canonical_for
    from verifiers.extract import make_extractor

    sample = Sample("q", 0, "k", text, answer=canonical_for(answer)(make_extractor(answer)(text)))
    (verdict,) = await verifier(Item("q", reference=reference), [sample])
    assert verdict.score == score


def test_a_reference_that_is_no_quantity_is_told_beforehand() -> None:
    spec = NumericSpec(units="convert")
    assert check_reference(spec, Item("q", reference="many")) is not None
    assert check_reference(spec, Item("q", reference="5 km")) is None
    assert check_reference(spec, Item("q")) == "no reference to compare with"
