"""Recorded samples as an engine: deterministic completions for live runs, tests and demonstrations without a model.

``model: {engine: replay, name: SAMPLES.parquet}``: sample i of item q is the recorded sample i of q, at whatever
temperature it is asked for; the recorded text, or the answer where no text was recorded. ``name`` is whatever ``ponder
replay`` reads. Configured through ``model.options``:

- ``columns``: role → column, or the text ``role=column,…``, where the recording's names differ
- ``seconds``: time a completion takes (default 0)

Prompts were not recorded: they count as no tokens. Where every token's confidence was recorded (``token_confidence``),
groups of any size are measured, and a completion is cut where its confidence falls below the request's bar; it comes
back without its text, for nothing says which letters the tokens were. Requests with a bar count the recorded samples
from the last one backwards, so that they are others than those without. Holds one page of the recording at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from actors.engines.base import Completion, Prompt, Request
from actors.engines.confidence import GROUP, GroupConfidence
from actors.engines.pretend import Pretence
from pipeline.errors import RequestRejected, SpecError, UsageError
from pipeline.recording import Columns, Recording, Span
from pipeline.recording_parts import Wanted, checked_columns, parse_columns
from pipeline.records import Item
from pipeline.spec import JobSpec

_KNOWN = {"columns", "seconds"}
_PAGE = 256
"""Questions read at once: neighbours in the recording tend to be neighbours in a shard."""


class _Found(NamedTuple):
    page: Columns
    number: int


class ReplayEngine:
    """See the module. Build it in a thread where the event loop must not wait for the recording to be read.

    Raises:
        SpecError: an unknown option, a recording that cannot be read, or one with a sample longer than
            ``sampling.max_tokens``.
    """

    def __init__(self, spec: JobSpec, field: str = "model") -> None:
        """``field``: the section of the job that ``spec.model`` is from, for messages."""
        options = spec.model.options
        unknown = sorted(set(options) - _KNOWN)
        if unknown:
            raise SpecError(f"{field}.options: the replay engine has no {unknown[0]!r}; it takes {sorted(_KNOWN)}")
        self._pretence = Pretence(_seconds(options.get("seconds", 0.0), field))
        self._capacity = spec.model.max_num_seqs
        try:
            self._recording = Recording.open(
                spec.model.name, _columns(options.get("columns", {}), field), Wanted(text=True)
            )
        except UsageError as error:
            raise SpecError(f"{field}.name: {error}") from None
        largest = self._recording.largest or 0
        if largest > spec.sampling.max_tokens:
            self._recording.close()
            raise SpecError(
                f"sampling.max_tokens is {spec.sampling.max_tokens}, but {spec.model.name} holds a sample of {largest} "
                f"tokens; set it to {largest} or more"
            )
        self._page: Columns | None = None

    @property
    def capacity(self) -> int:
        return self._capacity

    def prepare(self, item: Item, prefix: str = "") -> Prompt:
        """The question's words, for its prompt key; no tokens. Raises RequestRejected where nothing was recorded."""
        if prefix:
            raise RequestRejected(f"{self._recording.name} holds whole completions; none can be begun with a prefix")
        self._find(item.item_id)
        return Prompt((), item.prompt if item.prompt is not None else "\n".join(m.content for m in item.messages or ()))

    async def generate(self, request: Request) -> Completion:
        if await self._pretence.run(request.request_id):
            return self._recorded(request)
        return Completion("", 0, 0, 0, "abort")

    def cancel(self, request_id: str) -> None:
        self._pretence.cut(request_id)

    async def close(self) -> None:
        self._pretence.cut_all()
        self._recording.close()

    def _recorded(self, request: Request) -> Completion:
        item_id, sample_index = request.item_id, request.sample_index
        page, number = self._find(item_id)
        row = page.row_of(number, sample_index, backwards=request.cut_below is not None)
        if row is None:
            raise RequestRejected(f"{self._recording.name} has no sample {sample_index} of item {item_id!r}")
        text = page.text[row] if page.text is not None else None
        answer = page.answers[page.answer.item(row)] if page.answer.item(row) >= 0 else None
        finish = page.finish_reason[row] if page.finish_reason is not None else None
        tokens = 0 if page.tokens is None else int(page.tokens.item(row))
        mean_logprob = None if page.mean_logprob is None else _known(page.mean_logprob.item(row))
        confidence: float | None = None
        if page.token_confidence is not None:
            trace = GroupConfidence(request.group or GROUP)
            for count, token in enumerate(page.token_confidence[row].as_py() or (), start=1):
                trace.add(math.nan if token is None else token)
                # The last token ends the completion by itself.
                if request.cut_below is not None and count < tokens and trace.below(request.cut_below):
                    return Completion("", 0, 0, count, "cut", None, trace.lowest)
            confidence = trace.lowest
        elif page.confidence is not None and request.group is None:
            confidence = _known(page.confidence.item(row))
        return Completion(
            text=text if text is not None else answer or "",
            prompt_tokens=0,
            cached_prompt_tokens=0,
            completion_tokens=tokens,
            finish_reason=finish or "stop",
            mean_logprob=mean_logprob,
            min_group_confidence=confidence,
        )

    def _find(self, item_id: str) -> _Found:
        """The page that holds a question. Raises RequestRejected where nothing was recorded of it."""
        place = self._recording.place_of(item_id)
        if place is not None:
            first = place - place % _PAGE
            if self._page is None or self._page.first != first:
                self._page = self._recording.read(Span(first, min(first + _PAGE, self._recording.questions)))
            if self._page.item_ids[place - first] == item_id:
                return _Found(self._page, place - first)
        raise RequestRejected(
            f"{self._recording.name} has no samples of item {item_id!r}; does dataset.id name the column that the "
            "recording calls item_id?"
        )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _seconds(value: Any, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise SpecError(f"{field}.options.seconds: {value!r} is no number >= 0")
    return float(value)


def _columns(value: Any, field: str) -> dict[str, str]:
    if isinstance(value, str):
        return parse_columns(value)
    if isinstance(value, Mapping) and all(isinstance(part, str) for pair in value.items() for part in pair):
        return checked_columns(value)
    raise SpecError(
        f"{field}.options.columns: {value!r} is no mapping of role to column; write {{item_id: question_id}}"
    )
