"""The ``behaviour`` section of a job file. Pydantic only: a job is validated without the sandbox."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from verifiers.confined_spec import ConfinedSection

MOST_INPUTS = 128
"""A verdict holds a word an input, and is written once a sample."""


class BehaviourSpec(ConfinedSection):
    """Run the completion as a Python program on inputs, in a sandbox, and tell what it does; nobody says what is right.

    The score is the share of inputs on which it did anything but fail; ``detail`` says what, a hash an input, so that
    programs with one ``detail`` behaved alike: what ``behavioural_vote`` votes by. Inputs are text or JSON in a column,
    by ``style``:

    - ``function``: ``[[arguments], …]``; an object in place of a list is named arguments.
    - ``source``: a list of Python expressions over the program's functions, or of assert statements. Also what a
      strategy that has a model write inputs or tests hands over, in place of the column's.
    - ``stdio``: a list of texts, each the standard input of one run.
    """

    kind: Literal["behaviour"] = "behaviour"
    style: Literal["function", "source", "stdio"] = Field(description="What the inputs look like")
    inputs_column: str | None = Field(
        None, min_length=1, description="Column with the inputs; source: not needed where a strategy hands them over"
    )
    max_inputs: int = Field(32, ge=1, le=MOST_INPUTS, description="The first so many are run")
    timeout: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds all inputs of a program may take, half of it at most up to one that hangs",
    )

    @model_validator(mode="after")
    def _has_inputs(self) -> BehaviourSpec:
        if self.inputs_column is None and self.style != "source":
            raise ValueError(f"style {self.style} reads its inputs from a column: set inputs_column")
        if self.style == "function" and not (self.entry_point or self.entry_point_column):
            raise ValueError("style function calls one function: set entry_point (a name) or entry_point_column")
        if self.style == "stdio" and (self.entry_point or self.entry_point_column):
            raise ValueError("style stdio runs the whole program; it reads no entry_point")
        return self
