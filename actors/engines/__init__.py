"""Engines: what turns a request into a completion. ``start_engine`` picks one by the job's ``model.engine``."""

from __future__ import annotations

import asyncio

from actors.engines.base import Engine
from pipeline.spec import JobSpec


async def start_engine(spec: JobSpec) -> Engine:
    """The engine a job names, loaded and warm. Raises EngineError when it cannot be started."""
    if spec.model.engine == "scripted":
        from actors.engines.scripted import ScriptedEngine

        return ScriptedEngine(spec)
    if spec.model.engine == "replay":
        from actors.engines.replay import ReplayEngine

        return await asyncio.to_thread(ReplayEngine, spec)
    from actors.engines.vllm_engine import VllmEngine

    return await VllmEngine.start(spec)
