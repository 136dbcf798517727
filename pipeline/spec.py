"""The job file: what a user writes, checked before anything is spent.

Pure pydantic: imports neither torch, vllm nor ray, so a laptop validates a job in well under a second. Unknown fields
are errors. ``load`` turns every problem into one ``SpecError`` that names the field, the value and the mend.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.budget_spec import BudgetSpec as BudgetSpec
from pipeline.errors import SpecError
from pipeline.section import Section as Section
from pipeline.strategy_spec import GreedySpec as GreedySpec
from pipeline.strategy_spec import SelfConsistencySpec as SelfConsistencySpec
from pipeline.strategy_spec import StrategySpec as StrategySpec
from pipeline.verifier_kinds import duplicate_label, label_of, needs_reference
from pipeline.verifier_spec import VerifierSpec as VerifierSpec


class DatasetSpec(Section):
    """Where the questions come from, and which columns mean what."""

    path: str | list[str] = Field(
        description="Files: local or s3:// paths or globs ending in .parquet, .jsonl or .csv; or reasoning_gym:TASK"
    )
    id: str | None = Field(None, description="Column that identifies a row; default: a hash of the row's content")
    prompt: str | None = Field(None, description="Jinja template over the row's columns; default {{ prompt }}")
    messages: str | None = Field(None, description="Column holding chat messages, a list of {role, content}")
    reference: str | None = Field(None, description="Column holding the gold answer, if there is one")
    stakes: str | None = Field(None, description="Column holding how much a row matters, a number >= 0; default 1")
    limit: int | None = Field(None, ge=1, description="Read at most this many rows")
    size: int = Field(100, ge=1, description="reasoning_gym: how many tasks to generate")
    seed: int = Field(0, ge=0, description="reasoning_gym: seed of the task generator")
    options: dict[str, Any] = Field(default_factory=dict, description="reasoning_gym: further options of the task")

    @model_validator(mode="after")
    def _one_prompt(self) -> DatasetSpec:
        if self.prompt is not None and self.messages is not None:
            raise ValueError("give either prompt (a template) or messages (a column), not both")
        return self


class ModelSpec(Section):
    """Which model, run by which engine."""

    name: str = Field("smollm2-135m", description="smollm2-135m (bundled), or any name or path vLLM takes")
    engine: Literal["vllm", "scripted", "replay"] = Field(
        "vllm",
        description="scripted: a deterministic test double; replay: recorded samples from the Parquet file in name",
    )
    revision: str | None = Field(None, description="Model revision to pin")
    tokenizer: str | None = Field(None, description="Tokenizer, where it differs from the model")
    dtype: str = Field("auto", description="Weights' type, as vLLM names them")
    tensor_parallel: int = Field(1, ge=1, description="GPUs a worker's engine spans")
    max_model_len: int = Field(2048, ge=16, description="Context length in tokens, prompt and completion together")
    max_num_seqs: int = Field(64, ge=1, description="Samples the engine runs at once; also a worker's slots")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="CUDA only: share of the GPU's memory")
    kv_cache_gib: float = Field(1.0, gt=0, description="CPU build only: GiB of KV cache")
    options: dict[str, Any] = Field(default_factory=dict, description="Passed to vLLM's engine arguments as is")


class SamplingSpec(Section):
    """How candidates are drawn."""

    temperature: float = Field(0.8, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0: off")
    min_p: float = Field(0.0, ge=0, le=1)
    max_tokens: int = Field(512, ge=1, description="Completion tokens a sample may take; what a grant reserves")
    stop: list[str] = Field(default_factory=list, description="Strings that end a completion")
    logprobs: int = Field(0, ge=0, le=20, description="0: the chosen token's only; 20: DeepConf's token confidence too")


class AnswerSpec(Section):
    """How an answer is taken from a completion, and how two answers are compared."""

    extract: Literal["last_number", "boxed", "regex", "choice", "json", "code", "text"] = "last_number"
    pattern: str | None = Field(None, description="regex: the pattern; its first group is the answer")
    field: str | None = Field(None, description="json: the field that holds the answer, dots for nesting")
    choices: str = Field("ABCDE", description="choice: the letters allowed")
    compare: Literal["exact", "numeric", "math"] = Field("exact", description="How an answer meets the reference")
    tolerance: float = Field(1e-6, ge=0, allow_inf_nan=False, description="numeric: relative tolerance")

    @model_validator(mode="after")
    def _complete(self) -> AnswerSpec:
        if self.extract == "regex" and not self.pattern:
            raise ValueError("extract: regex needs pattern")
        if self.extract == "json" and not self.field:
            raise ValueError("extract: json needs field")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as error:
                raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {error}") from None
        return self


class ClusterSpec(Section):
    """How the work is spread."""

    workers: int = Field(1, ge=1, description="Worker actors, an engine each")
    cpus_per_worker: float = Field(1.0, ge=0)
    gpus_per_worker: float | None = Field(
        None, ge=0, description="Default: tensor_parallel on a CUDA build, all models together; else 0"
    )
    shard_size: int = Field(256, ge=1, description="Questions a shard; a shard is the unit of commit")
    max_open_questions: int = Field(2048, ge=1, description="Open questions a worker holds in memory")
    verifiers: int = Field(1, ge=1, description="Verifier actors, always there")
    max_verifiers: int | None = Field(None, ge=1, description="Verifier actors when checks queue; default: verifiers")
    max_attempts: int = Field(3, ge=1, description="Worker deaths a question may be part of before it is set aside")
    max_worker_restarts: int = Field(8, ge=0, description="Restarts over the whole run before it gives up")
    max_failed_fraction: float = Field(0.1, ge=0, le=1, description="More dead letters than this fail the run")

    @model_validator(mode="after")
    def _verifiers_ordered(self) -> ClusterSpec:
        if self.max_verifiers is not None and self.max_verifiers < self.verifiers:
            raise ValueError(f"max_verifiers ({self.max_verifiers}) must not be below verifiers ({self.verifiers})")
        return self


class JobSpec(Section):
    """A whole job. Only ``dataset``, ``budget`` and ``output`` are required."""

    dataset: DatasetSpec
    model: ModelSpec = ModelSpec()
    models: dict[str, ModelSpec] = Field(
        default_factory=dict,
        description="Further models by a name of yours, for strategies that ask several; one that the strategy does "
        "not ask is not loaded",
    )
    sampling: SamplingSpec = SamplingSpec()
    strategy: StrategySpec = SelfConsistencySpec()
    answer: AnswerSpec = AnswerSpec()
    verifiers: list[VerifierSpec] = Field(default_factory=list)
    budget: BudgetSpec
    cluster: ClusterSpec = ClusterSpec()
    reuse: list[str] = Field(
        default_factory=list,
        description="Directories of other runs of the same questions and model: what they sampled is taken from them "
        "in place of generating it, and charged at what it cost there",
    )
    output: str = Field(description="The run's directory: a local path or s3://bucket/prefix", min_length=1)
    seed: int = Field(0, ge=0)

    @property
    def asked(self) -> dict[str, ModelSpec]:
        """The models a worker loads, by name: the main one, called "", first, then those the strategy asks."""
        return {"": self.model, **{name: self.models[name] for name in self.strategy.uses}}

    def with_model(self, name: str) -> JobSpec:
        """This job with one of its models for the main one; as an engine takes it."""
        return self.model_copy(update={"model": self.models[name]}) if name else self

    @field_validator("models", mode="after")
    @classmethod
    def _named(cls, value: dict[str, ModelSpec]) -> dict[str, ModelSpec]:
        for name in value:
            if not _MODEL_NAME.fullmatch(name):
                raise ValueError(f"{name!r} names no model: begin with a letter, go on with letters, digits, _ and -")
        return value

    @model_validator(mode="after")
    def _room(self) -> JobSpec:
        for name, model in {"": self.model, **self.models}.items():
            if self.sampling.max_tokens >= model.max_model_len:
                raise ValueError(
                    f"sampling.max_tokens ({self.sampling.max_tokens}) must be smaller than "
                    f"{field_of(name)}.max_model_len ({model.max_model_len}), which also holds the prompt"
                )
        for field, wanted in (("strategy", self.strategy.uses), ("budget.price.models", self.budget.price.models)):
            unknown = sorted(set(wanted).difference(self.models))
            if unknown:
                names = ", ".join(self.models) or "none"
                raise ValueError(f"{field}: no further model is called {unknown[0]!r}; models has: {names}")
        if self.strategy.begins >= self.sampling.max_tokens:
            raise ValueError(
                f"strategy: it looks at the first {self.strategy.begins} tokens of a completion, and "
                f"sampling.max_tokens allows {self.sampling.max_tokens}: look at fewer, or allow more"
            )
        if self.strategy.begins and self.model.engine == "replay":
            raise ValueError("strategy: recorded completions cannot be gone on with: model.engine replay will not do")
        if self.strategy.groups and self.sampling.logprobs < 2:
            raise ValueError(
                "strategy: it cuts by the confidence of tokens, which is not measured where sampling.logprobs is "
                f"{self.sampling.logprobs}: set sampling.logprobs to 20, or at least to 2"
            )
        if self.strategy.groups >= self.sampling.max_tokens:
            raise ValueError(
                f"strategy: a group of {self.strategy.groups} tokens ends no completion early where "
                f"sampling.max_tokens is {self.sampling.max_tokens}: set strategy.group to a fraction of it"
            )
        comparing = [one for one in self.verifiers if needs_reference(one)]
        if comparing and self.dataset.reference is None and not _is_gym(self.dataset):
            raise ValueError(
                f"verifiers compare against the reference (kind {comparing[0].kind}): "
                "set dataset.reference to its column"
            )
        shared = duplicate_label(self.verifiers)
        if shared is not None:
            raise ValueError(f"two verifiers are called {shared!r}: give one of them a name of its own")
        known = [label_of(one) for one in self.verifiers]
        unknown = sorted(set(self.strategy.checks).difference(known))
        if unknown:
            names = ", ".join(known) or "none"
            raise ValueError(f"strategy: no verifier is called {unknown[0]!r}; the job has: {names}")
        problem = _unwatched(self)
        if problem is not None:
            raise ValueError(f"strategy: {problem}")
        unknown = sorted(set(self.budget.price.verifiers).difference(known))
        if unknown:
            names = ", ".join(known) or "none"
            raise ValueError(f"budget.price.verifiers: no verifier is called {unknown[0]!r}; the job has: {names}")
        return self


JOB_FILE = "the job file"
_MODEL_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def field_of(model: str) -> str:
    """The section of the job that describes a model; empty: the main one's."""
    return f"models.{model}" if model else "model"


def _unwatched(spec: JobSpec) -> str | None:
    """Why the verifier that a strategy has watch its samples cannot, or None."""
    watching = next((one for one in spec.verifiers if label_of(one) == spec.strategy.watches), None)
    if watching is None:
        return None
    if getattr(watching, "kind", None) != "behaviour":
        return f"it votes by what a verifier of kind behaviour tells; {label_of(watching)!r} is of another kind"
    if spec.strategy.hands_over and getattr(watching, "style", None) != "source":
        return f"it hands inputs a model wrote to {label_of(watching)!r}, which takes them with style source"
    if not spec.strategy.hands_over and getattr(watching, "inputs_column", None) is None:
        return f"nobody gives {label_of(watching)!r} inputs: set its inputs_column, or strategy.generate"
    return None


def _is_gym(dataset: DatasetSpec) -> bool:
    return isinstance(dataset.path, str) and dataset.path.startswith("reasoning_gym:")


def load(path: str | Path, overrides: list[str] | None = None, output: str | None = None) -> JobSpec:
    """Read and check a job file. ``overrides`` are ``a.b=value`` strings whose values are read as YAML.

    Raises:
        SpecError: the file is unreadable, no YAML mapping, or a field is wrong.
    """
    raw = read_job(path, overrides or [])
    if output is not None:
        raw["output"] = output
    return parse(raw)


def read_job(path: str | Path, overrides: Sequence[str]) -> dict[str, Any]:
    """A job that is not checked yet. Raises SpecError where the file or an override cannot be read."""
    raw = read_mapping(path, JOB_FILE, "dataset, budget and output")
    for override in overrides:
        _apply(raw, override)
    return raw


def read_mapping(path: str | Path, what: str, fields: str) -> dict[str, Any]:
    """The YAML mapping in a file; ``what`` it is, and the ``fields`` it should have, for messages. Raises SpecError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"cannot read {what} {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{what} {path} is not UTF-8 text") from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"{what} {path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise SpecError(f"{what} {path} must be a mapping with {fields}")
    return raw


def parse(raw: dict[str, Any]) -> JobSpec:
    """Check an already loaded job. Raises SpecError naming every wrong field."""
    try:
        return JobSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError(explain(error)) from None


def _apply(raw: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    if not separator or not name.strip():
        raise SpecError(f"--set {override!r}: write it as field.subfield=value, for example budget.tokens=2e6")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SpecError(f"--set {override!r}: {text!r} is not a YAML value") from None
    *parents, last = name.strip().split(".")
    here = raw
    for parent in parents:
        below = here.setdefault(parent, {})
        if not isinstance(below, dict):
            raise SpecError(f"--set {override!r}: {parent} holds {below!r}, which has no fields")
        here = below
    here[last] = value


def explain(error: ValidationError, what: str = JOB_FILE) -> str:
    """Every wrong field of ``what``, with its value and the mend."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "job"
        kind, value = problem["type"], problem.get("input")
        if kind == "extra_forbidden":
            lines.append(f"{where}: unknown field; remove it or mend its name (`ponder schema` lists all fields)")
        elif kind == "missing":
            settable = f" or use --set {where}=…" if what == JOB_FILE else ""
            lines.append(f"{where}: required, but missing; add it to {what}{settable}")
        else:
            shown = repr(value) if not isinstance(value, dict) else "this section"
            lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')} (got {shown[:120]})")
    return f"{what} is not valid:\n  " + "\n  ".join(lines)
