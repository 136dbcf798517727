"""JSON against a JSON Schema, in a child process: schemas hold patterns, and ``re`` cannot be interrupted.

A ``$ref`` to elsewhere is never fetched. ``format`` is an annotation and is not checked (the specification's default).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.records import Item, Sample, Verdict
from pipeline.verifier_spec import JsonSchemaSpec
from verifiers.child_pool import ChildPool, ExchangeFailed, script
from verifiers.extract import last_object
from verifiers.rules import UNPARSED

MAX_CHARS = 1_000_000
"""Longer JSON is refused unread."""


class JsonSchemaVerifier:
    """1 where the JSON meets the schema, else 0 with where and why. Without JSON: 0."""

    def __init__(self, spec: JsonSchemaSpec, pool: ChildPool | None = None) -> None:
        self.name = spec.label
        self._spec = spec
        self._pool = pool or ChildPool((*script("rule_child.py"), "jsonschema"), "json_schema verifier", size=1)

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        texts = [sample.text if self._spec.on == "text" else sample.answer for sample in samples]
        distinct = list(dict.fromkeys(texts))
        verdicts = dict(zip(distinct, await asyncio.gather(*map(self._judge, distinct)), strict=True))
        return [verdicts[text] for text in texts]

    async def close(self) -> None:
        """End the child. Idempotent."""
        await self._pool.close()

    async def _judge(self, text: str | None) -> Verdict:
        if text is None:
            return Verdict(self.name, score=0.0, detail=UNPARSED)
        document = text.strip()
        if not self._spec.whole and not document.startswith("["):
            found = last_object(text)
            if found is not None:
                # Spelt anew by the child's own parser: what was found inside prose has no text of its own.
                import json

                document = json.dumps(found)
        if len(document) > MAX_CHARS:
            return Verdict(self.name, error=f"longer than {MAX_CHARS} characters: not checked")
        request = {"definition": self._spec.definition, "text": document, "seconds": self._spec.timeout}
        try:
            heard = await self._pool.exchange(request, self._spec.timeout)
        except ExchangeFailed as failed:
            return Verdict(self.name, error=str(failed))
        if "error" in heard:
            return Verdict(self.name, error=str(heard["error"]))
        return Verdict(self.name, score=float(heard["problem"] is None), detail=heard["problem"])
