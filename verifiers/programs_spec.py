"""The ``programs`` section of a job file. Pydantic only: a job is validated without the sandbox."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from verifiers.confined_spec import ConfinedSection


class ProgramsSpec(ConfinedSection):
    """Run the completion as a Python program against tests, in a sandbox. 1 where all pass.

    Tests are text or JSON in a column, by ``style``:

    - ``humaneval``: source that defines ``check(candidate)``; the program is the prompt and the completion after it.
    - ``asserts``: a list of assert statements (MBPP's ``test_list``), or source.
    - ``stdio``: ``[{"input": text, "output": text}, …]`` or ``{"inputs": […], "outputs": […]}``; equal where the lines
      are, white space at their ends aside, and the exit code is 0.
    - ``function``: ``[{"input": [arguments], "output": value}, …]`` or ``{"inputs", "outputs", "fn_name"}``; an object
      as input is named arguments. Tuples equal lists; floats are equal within ``tolerance``.
    """

    kind: Literal["programs"] = "programs"
    style: Literal["humaneval", "asserts", "stdio", "function"] = Field(description="What the tests look like")
    tests_column: str | None = Field(None, min_length=1, description="Column with the tests; default: the reference")
    setup_column: str | None = Field(None, min_length=1, description="asserts: column with code the tests need first")
    partial: bool = Field(False, description="Score the fraction of cases that pass, instead of all or nothing")
    tolerance: float = Field(1e-9, ge=0, allow_inf_nan=False, description="function: relative and absolute, of floats")

    @property
    def needs_reference(self) -> bool:
        return self.tests_column is None

    @model_validator(mode="after")
    def _set_up(self) -> ProgramsSpec:
        if self.setup_column and self.style != "asserts":
            raise ValueError(f"setup_column is for style asserts; style {self.style} does not read it")
        return self
