"""Ways one question is asked: a ``Draw`` resolved against the job, its prompt as the engine computes it, and its key.

Owns no sample. A way is prepared once a question, however many samples are drawn by it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.engines.base import Prompt
from pipeline.errors import RequestRejected
from pipeline.records import Item
from pipeline.spec import JobSpec
from strategies.base import Draw

Prepare = Callable[[Item, Draw], Prompt]


@dataclass(frozen=True, slots=True)
class Way:
    """``draw`` has its temperature resolved; ``key`` is what samples asked this way are filed under."""

    draw: Draw
    prompt: Prompt
    key: str
    max_tokens: int


class Ways:
    """The ways of one question."""

    def __init__(self, spec: JobSpec, item: Item, prepare: Prepare) -> None:
        self._spec, self._item, self._prepare = spec, item, prepare
        self._known: dict[Draw, Way] = {}

    def of(self, draw: Draw) -> Way:
        """The way of a draw. Raises RequestRejected where the engine cannot be asked like this."""
        way = self._known.get(draw)
        if way is None:
            way = self._known[draw] = self._resolve(draw)
        return way

    def _resolve(self, draw: Draw) -> Way:
        sampling = self._spec.sampling
        heat = sampling.temperature if draw.temperature is None else draw.temperature
        tokens = sampling.max_tokens if draw.max_tokens is None else draw.max_tokens
        resolved = dataclasses.replace(draw, temperature=heat)
        prompt = self._prepare(asked(self._item, draw.prompt), resolved)
        return Way(resolved, prompt, prompt_key(self._spec, prompt, resolved), tokens)


def asked(item: Item, prompt: str | None) -> Item:
    """``item`` with ``prompt`` in place of its own, or of a chat's last user turn. Raises RequestRejected."""
    if prompt is None:
        return item
    if not prompt.strip():
        raise RequestRejected("the prompt is empty")
    if item.messages is None:
        return dataclasses.replace(item, prompt=prompt)
    turns = list(item.messages)
    last = max((at for at, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        raise RequestRejected("the chat has no user turn that another prompt could stand in for")
    turns[last] = dataclasses.replace(turns[last], content=prompt)
    return dataclasses.replace(item, messages=tuple(turns))


def prompt_key(spec: JobSpec, prompt: Prompt, draw: Draw) -> str:
    """Hash of everything that shapes a sample: the prompt as the model sees it, the model, and how it is sampled."""
    model = spec.models[draw.model] if draw.model else spec.model
    changed = {
        name: value
        for name in ("temperature", "top_p", "min_p", "max_tokens")
        if (value := getattr(draw, name)) is not None
    }
    asked: dict[str, Any] = {
        "prompt": prompt.text,
        # A further model's name too: two of them may be one model that is run in two ways.
        "model": [*([draw.model] if draw.model else []), model.name, model.revision, model.tokenizer, model.dtype],
        "sampling": spec.sampling.model_dump() | changed,
    }
    # Only where they are set: the keys of plain draws are those of runs that knew nothing else.
    if draw.prefix:
        asked["prefix"] = draw.prefix
    if draw.cut_below is not None:
        asked["cut_below"] = draw.cut_below
    if draw.group is not None:
        asked["group"] = draw.group
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
