"""Several engines in one worker: the job's ``model`` and its further ``models``, each with slots of its own.

An ``Engine`` itself, so that a worker of one model and one of many are driven alike. Owns the engines: they are closed
together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from actors.engines.base import Completion, Engine, Prompt, Request
from pipeline.errors import RequestRejected
from pipeline.records import Item


class Fleet:
    """``engines`` by name; "" is the job's ``model``."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = dict(engines)

    @property
    def capacity(self) -> int:
        """How many samples run at once, all models together."""
        return sum(engine.capacity for engine in self._engines.values())

    def of(self, model: str) -> Engine:
        """The engine of a model. Raises RequestRejected where there is none."""
        engine = self._engines.get(model)
        if engine is None:
            raise RequestRejected(f"the job has no model called {model!r}")
        return engine

    def prepare(self, item: Item, prefix: str = "") -> Prompt:
        return self.of("").prepare(item, prefix)

    async def generate(self, request: Request) -> Completion:
        return await self.of(request.model).generate(request)

    def cancel(self, request_id: str) -> None:
        # Whoever does not run it takes no notice.
        for engine in self._engines.values():
            engine.cancel(request_id)

    async def close(self) -> None:
        await asyncio.gather(*(engine.close() for engine in self._engines.values()))


def engine_of(engine: Engine, model: str) -> Engine:
    """What answers for ``model`` where ``engine`` is all there is. Raises RequestRejected where nothing does."""
    if isinstance(engine, Fleet):
        return engine.of(model)
    return Fleet({"": engine}).of(model)
