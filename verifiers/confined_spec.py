"""What the sections of kinds that run programs share. Pydantic only."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.verifier_kinds import VerifierSection

MIN_PROCESS_MB = 48
"""Address space the interpreter needs before a program does anything, with room to do something."""


class ConfinedSection(VerifierSection):
    """Where a sample's program is, and what it may use."""

    cheap: ClassVar[Any] = False

    on: Literal["text", "answer"] = Field(
        "text", description="Where the program is: the completion (its last fenced block, if it has one), or the answer"
    )
    prompt_column: str | None = Field(
        None, min_length=1, description="Column with code the program goes on from; humaneval: default prompt"
    )
    entry_point: str | None = Field(
        None, pattern=r"^[A-Za-z_]\w*$", description="Name of the tested function, where it is the same for all rows"
    )
    entry_point_column: str | None = Field(
        None, min_length=1, description="Column with that name; humaneval: default entry_point"
    )
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
    def by_answer(self) -> bool:
        return self.on == "answer"

    @property
    def processor_seconds(self) -> int:
        """``cpu_seconds``, or its default."""
        return self.cpu_seconds or math.ceil(self.timeout)

    @model_validator(mode="after")
    def _fits(self) -> ConfinedSection:
        if self.memory_mb // self.processes < MIN_PROCESS_MB:
            raise ValueError(
                f"memory_mb ({self.memory_mb}) shared by {self.processes} processes leaves less than "
                f"{MIN_PROCESS_MB} MiB each; give at least {MIN_PROCESS_MB * self.processes}"
            )
        if self.entry_point and self.entry_point_column:
            raise ValueError("give either entry_point (a name) or entry_point_column (a column), not both")
        return self
