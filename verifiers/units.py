"""Quantities: a number with a unit, exactly.

Promises: ``as_quantity`` never raises, does bounded work on hostile text, and every factor is an exact rational, so two
spellings of one quantity are equal, not nearly equal. Units are read as written: ``MW`` is not ``mW``.

Covered: SI base and common derived units with prefixes, minutes to weeks, litres, tonnes, bits and bytes (kB is 1,000
bytes, KiB 1,024), imperial lengths, masses and US volumes, °C and °F, percent and its kin, dozens and the words hundred
to trillion, currency signs and codes; products, quotients and powers of them (``km/h``, ``m s^-2``, ``\\text{m}^2``).
**Not covered**: exchange rates (every currency is its own kind of thing), years and months as days (12 months are a
year; how many days that has is a convention), degrees as radians (π is not rational), logarithmic units, °C in a
product. A word that is no unit counts things of that name: 12 apples are not 12 pears.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from verifiers.canonical import as_number

MAX_CHARS = 200
"""Longer text is no quantity."""
MAX_POWER = 12
MAX_PARTS = 12
"""Units in one product; more is no quantity a person wrote."""

Dimension = tuple[tuple[str, int], ...]
"""Base units and their powers, sorted, none of power 0."""


@dataclass(frozen=True, slots=True)
class Unit:
    """``value · scale + offset`` is the quantity in base units of ``dimension``."""

    scale: Fraction
    dimension: Dimension
    offset: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and its unit; ``unit`` None: a bare number."""

    value: Fraction
    unit: Unit | None = None

    @property
    def base(self) -> Fraction:
        """The value in base units."""
        return self.value if self.unit is None else self.value * self.unit.scale + self.unit.offset

    @property
    def dimension(self) -> Dimension:
        """() for a bare number and for percent."""
        return () if self.unit is None else self.unit.dimension


ONE = Unit(Fraction(1), ())
_PREFIXES = {
    "Q": 30, "R": 27, "Y": 24, "Z": 21, "E": 18, "P": 15, "T": 12, "G": 9, "M": 6, "k": 3, "h": 2, "da": 1, "": 0,
    "d": -1, "c": -2, "m": -3, "µ": -6, "u": -6, "n": -9, "p": -12, "f": -15, "a": -18, "z": -21, "y": -24,
}  # fmt: skip
_PREFIX_WORDS = {
    "tera": 12, "giga": 9, "mega": 6, "kilo": 3, "hecto": 2, "": 0, "deci": -1, "centi": -2, "milli": -3, "micro": -6,
    "nano": -9, "pico": -12,
}  # fmt: skip
_SI = {
    "m": ("metre meter", "m"),
    "g": ("gram gramme", "g"),
    "s": ("second sec", "s"),
    "A": ("ampere amp", "A"),
    "K": ("kelvin", "K"),
    "mol": ("mole", "mol"),
    "cd": ("candela", "cd"),
    "rad": ("radian", "rad"),
    "Hz": ("hertz", "s^-1"),
    "N": ("newton", "1000 g m s^-2"),
    "Pa": ("pascal", "1000 g m^-1 s^-2"),
    "J": ("joule", "1000 g m^2 s^-2"),
    "W": ("watt", "1000 g m^2 s^-3"),
    "C": ("coulomb", "A s"),
    "V": ("volt", "1000 g m^2 s^-3 A^-1"),
    "F": ("farad", "1/1000 g^-1 m^-2 s^4 A^2"),
    "Ω": ("ohm", "1000 g m^2 s^-3 A^-2"),
    "L": ("litre liter", "1/1000 m^3"),
    "l": ("", "1/1000 m^3"),
    "eV": ("electronvolt", "1602176634/10000000000000000000000000000 1000 g m^2 s^-2"),
    "cal": ("calorie", "4184/1000 1000 g m^2 s^-2"),
    "Wh": ("", "3600000 g m^2 s^-2"),
    "bar": ("", "100000000 g m^-1 s^-2"),
    "b": ("", "bit"),
    "bit": ("", "bit"),
    "B": ("byte", "8 bit"),
}
"""Symbol → its words and what it is. All take prefixes. The base unit of mass is the gram, so that ``kg`` has one."""
_OTHERS = {
    "min minute mins": "60 s",
    "h hr hour hrs": "3600 s",
    "d day": "86400 s",
    "week wk": "604800 s",
    "month": "month",
    "year yr": "12 month",
    "t tonne": "1000000 g",
    "ha hectare": "10000 m^2",
    "in inch inches": "254/10000 m",
    "ft foot feet": "3048/10000 m",
    "yd yard": "9144/10000 m",
    "mi mile": "1609344/1000 m",
    "lb lbs pound": "45359237/100000 g",
    "oz ounce": "45359237/1600000 g",
    "gal gallon": "3785411784/1000000000000 m^3",
    "quart qt": "946352946/1000000000000 m^3",
    "pint": "473176473/1000000000000 m^3",
    "cup": "2365882365/10000000000000 m^3",
    "mph": "1609344/3600000 m s^-1",
    "kph kmh": "1000/3600 m s^-1",
    "cc": "1/1000000 m^3",
    "atm": "101325000 g m^-1 s^-2",
    "deg degree °": "deg",
    "% percent pct": "1/100",
    "‰": "1/1000",
    "ppm": "1/1000000",
    "dozen": "12",
    "hundred": "100",
    "thousand": "1000",
    "million mln": "1000000",
    "billion bn": "1000000000",
    "trillion": "1000000000000",
    "$ USD US$ dollar buck": "USD",
    "¢ cent": "1/100 USD",
    "€ EUR euro": "EUR",
    "£ GBP": "GBP",
    "¥ JPY yen": "JPY",
    "₹ INR rupee": "INR",
    "CNY RMB yuan": "CNY",
    "KiB": "8192 bit",
    "MiB": "8388608 bit",
    "GiB": "8589934592 bit",
    "TiB": "8796093022208 bit",
}
"""Spellings → what they are. Words take an ``s``; none takes a prefix. A cent is a dollar's."""
_NOT_PREFIXED = {"cal": ("", "k"), "eV": ("", "m", "k", "M", "G", "T"), "bar": ("", "m", "k"), "b": ("", "k", "M", "G")}
"""Symbols that take only these prefixes: ``Pb`` and ``dcal`` are nothing anyone writes."""
_TEMPERATURES = {
    "C": Unit(Fraction(1), (("K", 1),), Fraction(27315, 100)),
    "F": Unit(Fraction(5, 9), (("K", 1),), Fraction(45967 * 5, 900)),
}
_CURRENCY = re.compile(r"(?P<sign>[-+]?) ?(?P<currency>US\$|[$€£¥₹]) ?(?P<rest>[-+]?[0-9.].*)", re.DOTALL)
_SCALE = "C|F|[Cc]elsius|[Ff]ahrenheit"
_CELSIUS = re.compile(rf"(?:° ?|degrees? |deg )(?P<scale>{_SCALE})|(?P<word>[Cc]elsius|[Ff]ahrenheit)")
_NUMBER_CHARACTERS = re.compile(r"[-+0-9.,/ eE×x*^{}()\\a-z]*")
_DRESS = re.compile(r"\\(?:text|textrm|textbf|mathrm|mathbf|mbox|operatorname|rm) ?\{([^{}]*)\}")
_POWER = r" ?(?:\^|\*\*) ?(?:\{ ?(?P<braced>[-+]?[0-9]{1,2}) ?\}|(?P<bare>[-+]?[0-9]{1,2}))"
_FACTOR = re.compile(rf"(?P<name>[^\W\d_]+\$?|[%‰°$€£¥₹¢Ω])(?:{_POWER})?")
_JOINT = re.compile(r" ?(?:(?P<over>/|per\b)|[·*×]|(?<= )) ?")
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")


def as_quantity(text: str) -> Quantity | None:
    """The quantity ``text`` spells: a number, then nothing or a unit; or a currency sign before it. None: no number."""
    text = _plain(text)
    if len(text) > MAX_CHARS:
        return None
    currency = None
    if found := _CURRENCY.fullmatch(text):
        currency, text = _UNITS[found["currency"]], found["sign"] + found["rest"]
    stop = _NUMBER_CHARACTERS.match(text)
    for end in range(stop.end() if stop else 0, 0, -1):
        value = as_number(text[:end]) if not text[end - 1].isspace() else None
        # "12e" is no number, but "1 2" or "5 m" cut inside a word would be one.
        if value is None or (text[end - 1].isalnum() and text[end : end + 1].isdecimal()):
            continue
        unit = _unit(text[end:].strip())
        if unit is None:
            return None
        if currency is not None:
            unit = _times(currency, unit, 1)
        return Quantity(value, None if unit == ONE and not text[end:].strip() and currency is None else unit)
    return None


def same(answer: Quantity, reference: Quantity, tolerance: Fraction, absolute: Fraction, require: bool) -> bool:
    """Is ``answer`` the ``reference``, within ``tolerance`` · |reference| or ``absolute`` in the reference's unit?

    A bare answer is in the reference's unit, unless ``require``: it is then a pure number. Beside a percentage it may
    be meant either way, and both are accepted. The unit of an answer to a bare reference is ignored, unless
    ``require``; of a percentage both readings are accepted. Quantities of different dimensions are never the same.
    """
    scale = reference.unit.scale if reference.unit else Fraction(1)
    # Of the number as written: 1% of 20 °C is 0.2 °C, not 2.9.
    slack = abs(scale) * max(tolerance * abs(reference.value), absolute)
    if answer.dimension == reference.dimension and abs(answer.base - reference.base) <= slack:
        return True
    if require:
        return False
    if answer.unit is None and reference.unit is not None:
        return abs(Quantity(answer.value, reference.unit).base - reference.base) <= slack
    if reference.unit is None and answer.unit is not None:
        return abs(answer.value - reference.value) <= slack
    return False


def _plain(text: str) -> str:
    """Without LaTeX dress and fancy spaces. Bounded: overlong text is left to the caller's limit."""
    text = text.strip()
    if len(text) > 2 * MAX_CHARS:
        return text
    text = text.strip("$").strip() if text.startswith("$") and text.endswith("$") and len(text) > 1 else text
    for spelling, plain in (
        ("\\%", "%"), ("\\$", "$"), ("\\,", " "), ("\\;", " "), ("\\ ", " "), ("~", " "), ("\\!", ""), ("−", "-"),
        ("^\\circ", "°"), ("^{\\circ}", "°"), ("\\circ", "°"), ("º", "°"), ("\\Omega", "Ω"), ("\u2126", "Ω"),
        ("\\mu ", "µ"), ("\\mu", "µ"), ("μ", "µ"), ("{,}", ","), ("\\cdot", "·"), ("\u00a0", " "),
    ):  # fmt: skip
        text = text.replace(spelling, plain)
    for _ in range(3):
        text = _DRESS.sub(r" \1", text)
    text = _SUPERSCRIPT.sub(lambda found: f"^{found[0].translate(_SUPERSCRIPTS)}", text)
    text = " ".join(text.split())
    return text[:-1].rstrip() if text.endswith(".") else text


def _unit(text: str) -> Unit | None:
    """The unit ``text`` spells; ``ONE`` for nothing; None where it is not only a unit."""
    if not text:
        return ONE
    if found := _CELSIUS.fullmatch(text):
        return _TEMPERATURES[(found["scale"] or found["word"])[0].upper()]
    unit, power, position, parts = ONE, 1, 0, 0
    while position < len(text):
        found = _FACTOR.match(text, position)
        parts += 1
        if found is None or parts > MAX_PARTS:
            return None
        exponent = int(found["braced"] or found["bare"] or 1)
        if not 0 < abs(exponent) <= MAX_POWER:
            return None
        unit = _times(unit, _named(found["name"]), power * exponent)
        position = found.end()
        joint = _JOINT.match(text, position)
        if position < len(text):
            if joint is None or joint.end() == position:
                return None
            power = -1 if joint["over"] else power
            position = joint.end()
            if position >= len(text):
                return None
    return unit


def _named(name: str) -> Unit:
    for spelling in (name, name.casefold()):
        if spelling in _UNITS:
            return _UNITS[spelling]
    word = name.casefold()
    # "es" and "ies" are not undone: boxes and box are then two kinds of thing, which is better than a wrong match.
    return Unit(Fraction(1), ((word[:-1] if word.endswith("s") and len(word) > 3 else word, 1),))


def _times(left: Unit, right: Unit, power: int) -> Unit:
    powers = dict(left.dimension)
    for base, exponent in right.dimension:
        powers[base] = powers.get(base, 0) + exponent * power
    dimension = tuple(sorted((base, exponent) for base, exponent in powers.items() if exponent))
    return Unit(left.scale * right.scale**power, dimension)


def _defined(definition: str) -> Unit:
    """A definition of the tables: numbers and base units with powers, multiplied."""
    scale, powers = Fraction(1), {}
    for part in definition.split():
        if part[0].isdigit():
            scale *= Fraction(part)
        else:
            base, _, exponent = part.partition("^")
            powers[base] = int(exponent or 1)
    return Unit(scale, tuple(sorted(powers.items())))


def _table() -> dict[str, Unit]:
    units: dict[str, Unit] = {}
    for symbol, (words, definition) in _SI.items():
        unit = _defined(definition)
        for prefix, power in _PREFIXES.items():
            if prefix in _NOT_PREFIXED.get(symbol, (prefix,)):
                units[prefix + symbol] = Unit(unit.scale * Fraction(10) ** power, unit.dimension)
        for word in words.split():
            for prefix, power in _PREFIX_WORDS.items():
                for ending in ("", "s"):
                    units[prefix + word + ending] = Unit(unit.scale * Fraction(10) ** power, unit.dimension)
    # After the prefixed ones: "min" is a minute, not a milli-inch; "ft", "cd", "Pa" and "h" mean what they mostly mean.
    for symbol, (_, definition) in _SI.items():
        units[symbol] = _defined(definition)
    for spellings, definition in _OTHERS.items():
        for spelling in spellings.split():
            units[spelling] = _defined(definition)
            if len(spelling) > 2 and spelling.isalpha() and spelling.islower():
                units[spelling + "s"] = _defined(definition)
    return units


_UNITS = _table()
