"""The real engine, once: what it reports, what it refuses, and that an aborted sample frees its slot at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# In a process of its own: vLLM reads the environment when it is imported and keeps processes.
SCRIPT = """
import asyncio, json
from actors.engines import start_engine
from actors.engines.base import Request
from pipeline.errors import RequestRejected
from pipeline.records import Item, Message
from tests.factories import make_spec

async def main():
    spec = make_spec(
        model={"engine": "vllm", "max_model_len": 256, "max_num_seqs": 1}, sampling={"max_tokens": 200, "logprobs": 20}
    )
    engine = await start_engine(spec)
    request = lambda name, text, heat=1.0: Request(name, engine.prepare(Item("q", prompt=text)), heat, 0, "q")
    found = {}
    try:
        engine.prepare(Item("long", prompt="word " * 300))
    except RequestRejected as error:
        found["refused"] = str(error)
    chat = engine.prepare(Item("chat", prompt=None, messages=(Message("user", "Hello there"),)))
    found["chat"] = chat.text
    # One slot: the second request can only run once the first is gone.
    first = asyncio.create_task(engine.generate(request("first", "Once upon a time there was")))
    await asyncio.sleep(1.0)
    second = asyncio.create_task(engine.generate(request("second", "1 2 3 4 5 6", 0.0)))
    engine.cancel("first")
    cut = await first
    done = await second
    again = await engine.generate(request("again", "1 2 3 4 5 6", 0.0))
    found["cut"] = [cut.finish_reason, cut.completion_tokens]
    found["done"] = [done.finish_reason, done.completion_tokens, done.mean_logprob, done.min_group_confidence]
    found["same"] = done.text == again.text
    await engine.close()
    print(json.dumps(found))

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_the_engine_keeps_its_contract(tmp_path):
    script = tmp_path / "engine_check.py"
    script.write_text(SCRIPT)
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=_environment())
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.strip().splitlines()[-1])
    assert "max_model_len" in found["refused"]
    assert "Hello there" in found["chat"]
    assert len(found["chat"]) > len("Hello there")
    reason, tokens = found["cut"]
    assert reason == "abort"
    assert tokens < 200
    reason, tokens, logprob, confidence = found["done"]
    assert reason in {"stop", "length"}
    assert tokens >= 1
    assert logprob < 0 < confidence
    assert found["same"]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
