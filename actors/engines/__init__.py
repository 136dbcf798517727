"""Engines: what turns a request into a completion. ``start_engine`` picks one by a model's ``engine``."""

from __future__ import annotations

import asyncio

from actors.engines.base import Engine
from pipeline.spec import JobSpec, field_of


async def start_engine(spec: JobSpec, model: str = "", devices: str | None = None) -> Engine:
    """The engine of one of the job's models, loaded and warm; ``devices``: the GPUs it is shown, None: all.

    Raises EngineError, or SpecError, naming the model's section where it cannot be started.
    """
    spec, field = spec.with_model(model), field_of(model)
    if spec.model.engine == "scripted":
        from actors.engines.scripted import ScriptedEngine

        return ScriptedEngine(spec, field)
    if spec.model.engine == "replay":
        from actors.engines.replay import ReplayEngine

        return await asyncio.to_thread(ReplayEngine, spec, field)
    from actors.engines.vllm_engine import VllmEngine

    return await VllmEngine.start(spec, field, devices)
