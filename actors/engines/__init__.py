"""Engines: what turns a request into a completion. ``start_engine`` picks one by the job's ``model.engine``."""

from __future__ import annotations

import asyncio

from actors.engines.base import Engine
from actors.engines.devices import Devices
from actors.engines.fleet import Fleet
from pipeline.spec import JobSpec


async def start_engine(spec: JobSpec) -> Engine:
    """The engine a job names, or one for each of its models, loaded and warm.

    Raises:
        EngineError: one of them cannot be started.
    """
    if not spec.models:
        return await _start(spec)
    engines: dict[str, Engine] = {}
    devices = Devices.visible()
    try:
        # One after the other: an engine takes what memory it finds, and its devices are set in the environment.
        for name, model in {"": spec.model, **spec.models}.items():
            with devices.taken(model.tensor_parallel):
                engines[name] = await _start(spec.model_copy(update={"model": model}))
    except BaseException:
        await Fleet(engines).close()
        raise
    return Fleet(engines)


async def _start(spec: JobSpec) -> Engine:
    if spec.model.engine == "scripted":
        from actors.engines.scripted import ScriptedEngine

        return ScriptedEngine(spec)
    if spec.model.engine == "replay":
        from actors.engines.replay import ReplayEngine

        return await asyncio.to_thread(ReplayEngine, spec)
    from actors.engines.vllm_engine import VllmEngine

    return await VllmEngine.start(spec)
