"""The ``programs`` section of a job file. Pydantic only: a job is validated without the sandbox."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.verifier_kinds import VerifierSection

MIN_PROCESS_MB = 48
"""Address space the interpreter needs before a program does anything, with room to do something."""


class ProgramsSpec(VerifierSection):
    """Run the completion as a Python program against tests, in a sandbox. 1 where all pass.

    Tests are text or JSON in a column, by ``style``:

    - ``humaneval``: source that defines ``check(candidate)``; the program is the prompt and the completion after it.
    - ``asserts``: a list of assert statements (MBPP's ``test_list``), or source.
    - ``stdio``: ``[{"input": text, "output": text}, …]`` or ``{"inputs": […], "outputs": […]}``; equal where the lines
      are, white space at their ends aside, and the exit code is 0.
    - ``function``: ``[{"input": [arguments], "output": value}, …]`` or ``{"inputs", "outputs", "fn_name"}``; an object
      as input is named arguments. Tuples equal lists; floats are equal within ``tolerance``.
    """

    cheap: ClassVar[Any] = False

    kind: Literal["programs"] = "programs"
    style: Literal["humaneval", "asserts", "stdio", "function"] = Field(description="What the tests look like")
    on: Literal["text", "answer"] = Field(
        "text", description="Where the program is: the completion (its last fenced block, if it has one), or the answer"
    )
    tests_column: str | None = Field(None, min_length=1, description="Column with the tests; default: the reference")
    setup_column: str | None = Field(None, min_length=1, description="asserts: column with code the tests need first")
    prompt_column: str | None = Field(
        None, min_length=1, description="Column with code the program goes on from; humaneval: default prompt"
    )
    entry_point: str | None = Field(
        None, pattern=r"^[A-Za-z_]\w*$", description="Name of the tested function, where it is the same for all rows"
    )
    entry_point_column: str | None = Field(
        None, min_length=1, description="Column with that name; humaneval: default entry_point"
    )
    partial: bool = Field(False, description="Score the fraction of cases that pass, instead of all or nothing")
    tolerance: float = Field(1e-9, ge=0, allow_inf_nan=False, description="function: relative and absolute, of floats")
    cpu_seconds: int | None = Field(
        None, ge=1, le=3_600, description="Processor seconds a process may use; default: timeout, rounded up"
    )
    memory_mb: int = Field(512, ge=MIN_PROCESS_MB, le=65_536, description="Memory of the program and all it starts")
    processes: int = Field(
        1, ge=1, le=64, description="Processes and threads the program may be; they share memory_mb in equal parts"
    )
    disk_mb: int = Field(16, ge=1, le=4_096, description="What the program may write to its private /tmp")
    max_output_kb: int = Field(256, ge=1, le=65_536, description="stdio: what the program may print")
    servers: int | None = Field(
        None, ge=1, le=256, description="Programs run at once by each verifier actor; default: one a core, at most 4"
    )
    unsafe: bool = Field(
        False, description="Run without bubblewrap: files and network of this machine are then open to the programs"
    )

    @property
    def needs_reference(self) -> bool:
        return self.tests_column is None

    @property
    def by_answer(self) -> bool:
        return self.on == "answer"

    @property
    def processor_seconds(self) -> int:
        """``cpu_seconds``, or its default."""
        return self.cpu_seconds or math.ceil(self.timeout)

    @model_validator(mode="after")
    def _fits(self) -> ProgramsSpec:
        if self.memory_mb // self.processes < MIN_PROCESS_MB:
            raise ValueError(
                f"memory_mb ({self.memory_mb}) shared by {self.processes} processes leaves less than "
                f"{MIN_PROCESS_MB} MiB each; give at least {MIN_PROCESS_MB * self.processes}"
            )
        if self.entry_point and self.entry_point_column:
            raise ValueError("give either entry_point (a name) or entry_point_column (a column), not both")
        if self.setup_column and self.style != "asserts":
            raise ValueError(f"setup_column is for style asserts; style {self.style} does not read it")
        return self
