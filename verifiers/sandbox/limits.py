"""What one check may use. Shared by both halves of the sandbox: standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

REFEREE_MEMORY_MB = 512
"""Address space of the process that holds the tests: they come from datasets and are bounded too."""

ENDED = "the program's process ended"
"""What a referee says of a case in which the program's process went away by itself, or was ended by a limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one check. Sizes in MiB and KiB.

    ``memory_mb`` bounds the whole tree: each of its at most ``processes`` processes and threads gets an equal share as
    address space. With ``processes`` 1 the program can start neither. ``cpu_seconds`` holds for each process,
    ``wall_seconds`` for the whole check, tests included. Files live in a private /tmp of ``disk_mb`` in memory.
    """

    wall_seconds: float = 5.0
    cpu_seconds: int = 5
    memory_mb: int = 512
    processes: int = 1
    disk_mb: int = 16
    output_kb: int = 256

    @property
    def process_bytes(self) -> int:
        """Address space of one process."""
        return self.memory_mb * 2**20 // self.processes

    def to_plain(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)
