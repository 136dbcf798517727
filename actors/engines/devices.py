"""Which GPUs of a worker each of its engines may use.

An engine's processes take the devices that ``CUDA_VISIBLE_DEVICES`` names when they start; Ray sets it to what the
worker was given. Where it is not set (a CPU build), nothing is done. Not tried on GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import EngineError

_NAME = "CUDA_VISIBLE_DEVICES"


class Devices:
    """The devices of one worker, handed out in order."""

    def __init__(self, names: list[str] | None) -> None:
        """``names`` None: there is nothing to hand out."""
        self._names, self._given = names, 0

    @classmethod
    def visible(cls) -> Devices:
        """Those the environment names."""
        names = os.environ.get(_NAME, "")
        return cls(names.split(",") if names else None)

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """The next ``count`` devices are all that an engine started meanwhile sees. Raises EngineError for too few."""
        if self._names is None:
            yield
            return
        mine = self._names[self._given : self._given + count]
        if len(mine) < count:
            raise EngineError(
                f"cluster.gpus_per_worker: {len(self._names)} devices are fewer than the tensor_parallel of all models"
            )
        self._given += count
        before = os.environ[_NAME]
        os.environ[_NAME] = ",".join(mine)
        try:
            yield
        finally:
            os.environ[_NAME] = before
