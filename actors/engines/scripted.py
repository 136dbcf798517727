"""An engine without a model: completions are a pure function of seed, question and sample index.

It is the test double Ponder ships, so that a job, a strategy or a cluster can be tried in seconds. Configured through
``model.options``:

- ``answers``: list of texts to choose from (default ``["1", "2", "3"]``), each completion is ``The answer is X.``
- ``weights``: their weights; a question rotates them by its own hash, so that questions disagree
- ``tokens``: mean completion tokens (default 8); ``seconds``: time a completion takes (default 0)
- ``confidences``: for each answer the mean confidence of its tokens, NaN for an engine gone wrong (default: the engine
  knows none, as one without ``sampling.logprobs``)
- ``poison``: a prompt that contains this text ends the worker's process, as a crashing engine would
- ``reject``: a prompt that contains this text is refused by the engine
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
from typing import NamedTuple

from actors.engines.base import Completion, Prompt, Request
from actors.engines.confidence import GROUP, GroupConfidence
from actors.engines.pretend import Pretence
from pipeline.errors import RequestRejected, SpecError
from pipeline.records import Item
from pipeline.spec import JobSpec

_KNOWN = {"answers", "weights", "tokens", "seconds", "confidences", "poison", "reject"}


class _Trace(NamedTuple):
    tokens: int
    confidence: float | None
    cut: bool


class ScriptedEngine:
    """Deterministic completions; see the module for its options. Raises SpecError for options it does not know."""

    def __init__(self, spec: JobSpec, field: str = "model") -> None:
        """``field``: the section of the job that ``spec.model`` is from, for messages."""
        self._field = field
        options = spec.model.options
        unknown = sorted(set(options) - _KNOWN)
        if unknown:
            raise SpecError(f"{field}.options: the scripted engine has no {unknown[0]!r}; it takes {sorted(_KNOWN)}")
        self._answers: list[str] = [str(answer) for answer in options.get("answers", ["1", "2", "3"])]
        self._weights: list[float] = list(options.get("weights", [8.0, 2.0, 1.0][: len(self._answers)]))
        if len(self._weights) != len(self._answers):
            raise SpecError(f"{field}.options: weights and answers must be of one length")
        self._confidences: list[float] | None = options.get("confidences")
        if self._confidences is not None and len(self._confidences) != len(self._answers):
            raise SpecError(f"{field}.options: confidences and answers must be of one length")
        self._tokens = int(options.get("tokens", 8))
        self._pretence = Pretence(float(options.get("seconds", 0.0)))
        self._poison = options.get("poison")
        self._reject = options.get("reject")
        self._max_len = spec.model.max_model_len
        self._max_tokens = spec.sampling.max_tokens
        self._capacity = spec.model.max_num_seqs
        self._seed = spec.seed

    @property
    def capacity(self) -> int:
        return self._capacity

    def prepare(self, item: Item, prefix: str = "") -> Prompt:
        text = (item.prompt if item.prompt is not None else "\n".join(m.content for m in item.messages or ())) + prefix
        if self._reject and self._reject in text:
            raise RequestRejected(f"the engine refuses prompts that contain {self._reject!r}")
        words = tuple(range(len(text.split())))
        if len(words) + 1 > self._max_len:
            raise RequestRejected(
                f"the prompt has {len(words)} tokens; {self._field}.max_model_len is {self._max_len}: "
                "shorten the prompt"
            )
        return Prompt(words, text)

    async def generate(self, request: Request) -> Completion:
        if self._poison and self._poison in request.prompt.text:
            os.kill(os.getpid(), signal.SIGKILL)
        name = f"{self._seed}/{request.item_id}/{request.sample_index}/{request.temperature}"
        if request.cut_below is not None:
            name += "/watched"
        rng = random.Random(hashlib.blake2b(name.encode()).digest())
        shift = hashlib.blake2b(request.item_id.encode()).digest()[0] % len(self._answers)
        weights = self._weights[shift:] + self._weights[:shift]
        answer = rng.choices(self._answers, weights)[0]
        wanted, room = max(1, round(rng.gauss(self._tokens, self._tokens / 4))), request.max_tokens or self._max_tokens
        tokens = min(wanted, room)
        mean_logprob = -rng.random()
        aborted = not await self._pretence.run(request.request_id)
        trace = self._trace(request, answer, 1 if aborted else tokens, rng)
        text = f"The answer is {answer}."
        if trace.cut:
            text = text[: len(text) * trace.tokens // (tokens + 1)]
        return Completion(
            text=text if not aborted else "",
            prompt_tokens=len(request.prompt.token_ids),
            cached_prompt_tokens=len(request.prompt.token_ids) if request.sample_index else 0,
            completion_tokens=trace.tokens,
            finish_reason="abort" if aborted else "cut" if trace.cut else "length" if wanted > room else "stop",
            mean_logprob=mean_logprob,
            min_group_confidence=trace.confidence,
        )

    def _trace(self, request: Request, answer: str, tokens: int, rng: random.Random) -> _Trace:
        """Tokens up to the end, or to where their confidence falls below the request's bar."""
        if self._confidences is None:
            return _Trace(tokens, None, False)
        mean = self._confidences[self._answers.index(answer)]
        trace = GroupConfidence(request.group or GROUP)
        for count in range(1, tokens):
            trace.add(abs(rng.gauss(mean, mean / 4)))
            if request.cut_below is not None and trace.below(request.cut_below):
                return _Trace(count, trace.lowest, True)
        # The last token ends it by itself.
        trace.add(abs(rng.gauss(mean, mean / 4)))
        return _Trace(tokens, trace.lowest, False)

    def cancel(self, request_id: str) -> None:
        self._pretence.cut(request_id)

    async def close(self) -> None:
        self._pretence.cut_all()
