"""Arms: several ways to ask one question, as a job file names them. Pydantic only."""

from __future__ import annotations

from pydantic import Field, field_validator

from pipeline.errors import SourceError
from pipeline.prompts import compile_template
from pipeline.section import Section


class ArmSpec(Section):
    """One way to ask. What is not set is as the job says."""

    name: str = Field(min_length=1, description="What decisions and reports call it")
    template: str | None = Field(
        None,
        description="Jinja template asked in place of the prompt; {{ prompt }} is the question's own, columns by name",
    )
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    model: str = Field("", description="One of the job's models; default: the job's model")

    @field_validator("template")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                compile_template(value, "template")
            except SourceError as error:
                raise ValueError(str(error)) from None
        return value


WAYS = ("template", "temperature", "top_p", "min_p", "model")
"""What an arm may say."""


def distinct_names(arms: list[ArmSpec]) -> list[ArmSpec]:
    """The arms, each with a name of its own. Raises ValueError."""
    seen: set[str] = set()
    for arm in arms:
        if arm.name in seen:
            raise ValueError(f"two arms are called {arm.name!r}: give one of them another name")
        seen.add(arm.name)
    return arms


def parsed_templates(values: list[str]) -> list[str]:
    """Templates as they are. Raises ValueError for one that does not parse."""
    for value in values:
        ArmSpec(name="template", template=value)
    return values
