"""The kinds of verifiers there are, as a job file sees them: what every section says, and which class a kind has.

Pydantic only. Owns the table from kind to section class; ``pipeline.verifier_spec`` fills in ours, third parties theirs
(``verifiers.registry.register``, found by the entry-point group ``ponder.verifiers``).
"""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidatorFunctionWrapHandler

from pipeline.section import Section

ENTRY_POINTS = "ponder.verifiers"
"""Entry-point group: name = the kind, object = a module that calls ``verifiers.registry.register`` on import."""

_LATER = {
    "programs": ("verifiers.programs_spec", "ProgramsSpec"),
    "behaviour": ("verifiers.behaviour_spec", "BehaviourSpec"),
}
"""Our kinds whose section lives with the code it configures: imported when first named."""

_SECTIONS: dict[str, type[BaseModel]] = {}
_loaded = False


class VerifierSection(Section):
    """Base of all kinds: ``kind``, ``name`` and ``timeout``.

    ``worst_tokens``: what a check of one sample may cost the budget at most. It is reserved before the check, so a kind
    that reports tokens has to say so; what it reports beyond that is an error, and not charged.
    """

    needs_reference: ClassVar[Any] = False
    by_answer: ClassVar[Any] = False
    cheap: ClassVar[Any] = False
    worst_tokens: ClassVar[Any] = 0

    kind: str
    name: str | None = Field(None, min_length=1, description="What its verdicts are filed under; default: the kind")
    timeout: float = Field(5.0, gt=0, allow_inf_nan=False, description="Seconds one check may take")

    @property
    def label(self) -> str:
        """``name``, or else ``kind``."""
        return self.name or self.kind


def kinds() -> list[str]:
    """All kinds a job can name now, entry points included, sorted."""
    load_entry_points()
    return sorted(_SECTIONS.keys() | {kind for kind in _LATER if _find_later(kind) is not None})


def register_section(kind: str, section: type[BaseModel]) -> None:
    """Let jobs name ``kind``. Registering the same class again is harmless.

    Raises:
        ValueError: the kind is taken by another class, or ``section`` has no field ``kind``.
    """
    if "kind" not in section.model_fields:
        raise ValueError(f"verifier kind {kind!r}: {section.__name__} needs a field `kind: Literal[{kind!r}]`")
    taken = section_of(kind)
    if taken is not None and taken is not section:
        raise ValueError(f"verifier kind {kind!r} is taken by {taken.__module__}.{taken.__name__}; choose another name")
    _SECTIONS[kind] = section


def section_of(kind: str) -> type[BaseModel] | None:
    """The section class of a kind that is known without looking at entry points, or None."""
    return _SECTIONS.get(kind) or _find_later(kind)


def needs_reference(spec: BaseModel) -> bool:
    """Does this verifier compare with ``Item.reference``?"""
    return bool(getattr(spec, "needs_reference", False))


def by_answer(spec: BaseModel) -> bool:
    """Does its verdict depend on the question and ``Sample.answer`` alone?"""
    return bool(getattr(spec, "by_answer", False))


def is_cheap(spec: BaseModel) -> bool:
    """May it run inside the worker?"""
    return bool(getattr(spec, "cheap", False))


def worst_tokens(spec: BaseModel) -> int:
    """Tokens one sample's check may cost at most; 0: checks are free."""
    return int(getattr(spec, "worst_tokens", 0))


def label_of(spec: BaseModel) -> str:
    """What its verdicts are filed under."""
    return str(getattr(spec, "name", None) or getattr(spec, "kind", "verifier"))


def duplicate_label(specs: list[Any]) -> str | None:
    """A label two verifiers share, or None: their verdicts could not be told apart."""
    seen: set[str] = set()
    for label in map(label_of, specs):
        if label in seen:
            return label
        seen.add(label)
    return None


def select(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    """The section ``value["kind"]`` names. ``handler`` only documents our own kinds in the schema."""
    if isinstance(value, BaseModel):
        section = section_of(str(getattr(value, "kind", "")))
        if section is None or not isinstance(value, section):
            raise ValueError(f"{type(value).__name__} is not the section of a registered verifier kind")
        return value
    if not isinstance(value, dict):
        raise ValueError("a verifier is a mapping with a kind, like {kind: exact}")
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ValueError(f"a verifier needs a kind, one of: {', '.join(kinds())}")
    section = section_of(kind)
    if section is None:
        load_entry_points()
        section = section_of(kind)
    if section is None:
        raise ValueError(f"unknown verifier kind {kind!r}; choose one of: {', '.join(kinds())}")
    return section.model_validate(value)


def _find_later(kind: str) -> type[BaseModel] | None:
    if kind not in _LATER:
        return None
    module, name = _LATER[kind]
    try:
        section: type[BaseModel] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    return section


def load_entry_points() -> None:
    """Import what third parties installed, once. A broken one is skipped: its kind is then unknown, and so named."""
    global _loaded
    if _loaded:
        return
    _loaded = True
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINTS):
        try:
            point.load()
        except Exception as error:
            import warnings

            warnings.warn(
                f"verifier kind {point.name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}",
                stacklevel=2,
            )
