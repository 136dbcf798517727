"""Best-of-N over recorded samples, through the shipped strategy; for ``tests.benchmarks.best_of_n``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actors.virtual import VirtualJob, run_alone, run_market
from actors.virtual_shard import Closed
from pipeline.recording import Columns, Recording
from strategies.base import Strategy
from strategies.best_of_n import BestOfN
from strategies.scored import CONFIDENCE

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
QUESTIONS_A_SLOT = 16
"""As ``pipeline.replay``: with a slot for every question a market is left nothing to choose."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """A recording of equal pools. ``rewards`` and ``answers`` (a code, -1: none): questions × samples, in file order.

    What has no answer has reward 0: it cannot be chosen. ``fold`` is 0 or 1, by a hash of the id.
    """

    name: str
    recording: Recording
    columns: Columns
    score: str
    rewards: Floats
    answers: NDArray[np.int32]
    fold: NDArray[np.int64]

    @property
    def pool(self) -> int:
        return self.rewards.shape[1]


@dataclass(frozen=True)
class Outcome:
    """Repeats × questions: samples drawn, reward of the sample chosen, and whether the answer is right."""

    samples: Floats
    rewards: Floats
    right: Floats


def smollm2() -> Data:
    """Reward: exp(mean log-probability), the model's own confidence; right by the reference."""
    columns = {"item_id": "question_id", "reference": "gold"}
    return _data("SmolLM2 arithmetic", "smollm2_arithmetic_360x40.parquet", columns, CONFIDENCE)


def game24() -> Data:
    """Reward: ``passed``, what the game's own checker says."""
    return _data("Game of 24", "game24_gpt4_cot_100x100.parquet", {"score": "passed"}, "passed")


def _data(name: str, file: str, roles: dict[str, str], score: str) -> Data:
    recording = Recording.open(str(DATA / file), roles)
    [span] = recording.spans(1)
    columns = recording.read(span)
    shape = (recording.questions, int(recording.pools[0]))
    signal = columns.score if score != CONFIDENCE else np.exp(np.asarray(columns.mean_logprob))
    answers = columns.answer.reshape(shape)
    rewards = np.where(answers >= 0, np.nan_to_num(np.asarray(signal).reshape(shape)), 0.0)
    fold = np.array([hashlib.sha256(item_id.encode()).digest()[0] & 1 for item_id in columns.item_ids])
    return Data(name, recording, columns, score, rewards, answers, fold)


def best_of_first(data: Data, repeats: int, seed: int) -> Floats:
    """Questions × pool: the best reward of the first n samples, n = 1 … pool; mean over the orders others draw in."""
    _, rewards = first_n(data, data.pool, repeats, seed)
    found: Floats = np.maximum.accumulate(rewards, axis=2).mean(axis=0)
    return found


def samples_for(curve: Floats, reward: float) -> float:
    """How many samples a question a fixed number needs for this mean reward, read off between whole numbers."""
    return float(np.interp(reward, curve, np.arange(1, len(curve) + 1)))


def alone(data: Data, strategy: Strategy, repeats: int, seed: int) -> Outcome:
    """Every question decides by itself."""
    job, outcome, turn = _job(data, strategy, repeats, seed)
    for repeat in range(repeats):
        turn[0] = repeat
        run_alone(replace(job, repeat=repeat))
    return outcome


def market(data: Data, strategy: Strategy, mean_samples: float, repeats: int, seed: int) -> Outcome:
    """One budget of samples for all questions, by the live market in virtual time."""
    job, outcome, turn = _job(data, strategy, repeats, seed)
    for repeat in range(repeats):
        turn[0] = repeat
        run_market(replace(job, repeat=repeat), int(mean_samples * data.recording.questions))
    return outcome


def uniform_passes(data: Data, n: int, repeats: int, seed: int) -> Floats:
    """Repeats × questions: 1 where one of the first ``n`` samples passed, in the orders the other runs draw in."""
    rewards = data.rewards.ravel()
    return np.array(
        [
            rewards[data.columns.draw_order(seed, repeat)].reshape(data.rewards.shape)[:, :n].max(axis=1)
            for repeat in range(repeats)
        ]
    )


def first_n(data: Data, n: int, repeats: int, seed: int) -> tuple[NDArray[np.int32], Floats]:
    """Answers' codes and rewards of the first ``n`` samples, repeats × questions × n, in the same orders."""
    orders = [data.columns.draw_order(seed, repeat) for repeat in range(repeats)]
    answers = [data.answers.ravel()[order].reshape(data.answers.shape)[:, :n] for order in orders]
    rewards = [data.rewards.ravel()[order].reshape(data.rewards.shape)[:, :n] for order in orders]
    return np.array(answers), np.array(rewards)


def _job(data: Data, strategy: Strategy, repeats: int, seed: int) -> tuple[VirtualJob, Outcome, list[int]]:
    outcome = Outcome(*(np.zeros((repeats, data.recording.questions)) for _ in range(3)))
    turn = [0]

    def closed(one: Closed) -> None:
        place = (turn[0], one.columns.first + one.number)
        reward = one.solution.facts.get("score")
        outcome.samples[place] = one.session.drawn
        outcome.rewards[place] = reward if isinstance(reward, float) else 0.0
        reference = one.columns.references[one.number]
        outcome.right[place] = one.solution.answer == reference if reference is not None else outcome.rewards[place]

    job = VirtualJob(
        recording=data.recording,
        spans=data.recording.spans(1),
        strategy=cache(lambda pool: strategy),
        cost=lambda tokens: 1,
        worst=1,
        seed=seed,
        repeat=0,
        closed=closed,
        slots=max(1, data.recording.questions // QUESTIONS_A_SLOT),
    )
    return job, outcome, turn


def interval(each: Floats, seed: int, draws: int = 1000) -> tuple[float, float]:
    """95% interval of the mean of ``each`` (a number a question), from resampling questions."""
    rng = np.random.default_rng(seed)
    means = [each[rng.integers(0, len(each), len(each))].mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def ratio_interval(
    curves: Floats, samples: Floats, rewards: Floats, seed: int, draws: int = 1000
) -> tuple[float, float]:
    """95% interval of samples over what a fixed number needs for the same mean reward, from resampling questions."""
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(draws):
        again = rng.integers(0, len(samples), len(samples))
        ratios.append(samples[again].mean() / samples_for(curves[again].mean(axis=0), float(rewards[again].mean())))
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def grid(means: Sequence[tuple[float, float]], counts: Sequence[float], costs: Sequence[float]) -> list[BestOfN]:
    """Pandora's stop with every prior (mean and spread; worth how many scores) at every cost."""
    return [
        BestOfN(stop="pandora", cost_per_sample=cost, prior_mean=mean, prior_spread=spread, prior_samples=count)
        for mean, spread in means
        for count in counts
        for cost in costs
    ]
