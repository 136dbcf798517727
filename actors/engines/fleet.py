"""The engines of one worker: one a model that the job's strategy asks.

Promises: each engine keeps a capacity of its own; a prompt is prepared, a sample generated and cut by the engine of its
model alone; engines are started one after the other, the main one first, and where one cannot be started none is left.
Knows models by the names of the job; the main one's is empty.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from actors.engines import start_engine
from actors.engines.base import Engine, Prompt
from actors.engines.devices import visible_to
from pipeline.errors import RequestRejected
from pipeline.records import Item
from pipeline.spec import JobSpec
from strategies.base import Draw


class Fleet:
    """Engines by model. ``Fleet.of`` makes one of a lone engine."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = dict(engines)

    @classmethod
    def of(cls, engine: Engine | Fleet) -> Fleet:
        """``engine`` as the engine of the main model; a fleet as it is."""
        return engine if isinstance(engine, Fleet) else cls({"": engine})

    @classmethod
    async def start(cls, spec: JobSpec) -> Fleet:
        """Load every model the job's strategy asks. Raises EngineError, or SpecError, naming the model's section."""
        engines: dict[str, Engine] = {}
        try:
            spans = {name: model.tensor_parallel for name, model in spec.asked.items()}
            for name, devices in visible_to(spans).items():
                engines[name] = await start_engine(spec, name, devices)
        except BaseException:
            await asyncio.gather(*(engine.close() for engine in engines.values()), return_exceptions=True)
            raise
        return cls(engines)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that are loaded."""
        return tuple(self._engines)

    @property
    def capacity(self) -> int:
        """How many samples run at once, all models together."""
        return sum(engine.capacity for engine in self._engines.values())

    def engine(self, model: str) -> Engine:
        """The engine of a model. Raises RequestRejected where there is none."""
        engine = self._engines.get(model)
        if engine is None:
            known = ", ".join(name for name in self._engines if name) or "none"
            raise RequestRejected(f"the job has no model called {model!r}; further models loaded: {known}")
        return engine

    def prepare(self, item: Item, draw: Draw) -> Prompt:
        """The prompt of a draw, as its model computes it. Raises RequestRejected."""
        return self.engine(draw.model).prepare(item, draw.prefix)

    async def close(self) -> None:
        """Close every engine. The first failure is raised once all were tried."""
        ended = await asyncio.gather(*(engine.close() for engine in self._engines.values()), return_exceptions=True)
        for failure in ended:
            if isinstance(failure, BaseException):
                raise failure
