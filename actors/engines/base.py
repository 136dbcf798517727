"""What a worker asks of an engine.

An engine turns one request into one completion, can drop a request in mid-generation, and reports tokens as it computed
them. It knows nothing of questions, votes, budgets or the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pipeline.records import Item


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as the engine will compute it: token ids, tokenised once however many samples are drawn."""

    token_ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to generate. Where a field is None the engine takes what it was configured with.

    ``group``: tokens of a group whose confidence is measured. ``cut_below``: end generation, with ``finish_reason``
    cut, once the confidence of a whole group falls below it; an engine that knows no confidences generates to the end.
    """

    request_id: str
    prompt: Prompt
    temperature: float
    sample_index: int
    item_id: str
    top_p: float | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    cut_below: float | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back. Tokens as computed: ``cached_prompt_tokens`` of ``prompt_tokens`` cost nothing.

    ``text`` goes on from the prompt. ``finish_reason`` is stop, length, abort or cut; the last two carry what was
    generated until then. ``min_group_confidence``: None where it is not known, NaN where a token's is not finite.
    """

    text: str
    prompt_tokens: int
    cached_prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    mean_logprob: float | None = None
    min_group_confidence: float | None = None


class Engine(Protocol):
    """One model, ready to generate.

    ``generate`` raises ``RequestRejected`` when this request alone is refused and ``EngineError`` when the engine is
    gone. ``cancel`` makes a running ``generate`` return with ``finish_reason="abort"`` as soon as the engine can.
    """

    @property
    def capacity(self) -> int:
        """How many samples run at once."""
        ...

    def prepare(self, item: Item, prefix: str = "") -> Prompt:
        """Tokenise a question, and ``prefix`` as the beginning of its completion.

        Raises RequestRejected when it cannot fit the context.
        """
        ...

    async def generate(self, request: Request) -> Completion: ...

    def cancel(self, request_id: str) -> None: ...

    async def close(self) -> None: ...
