"""A verifier from a plain function: ``function: package.module:name``.

The function takes ``(item, sample)`` and returns a score in [0, 1], a bool, or None where it cannot say; with ``batch``
it takes ``(item, samples)`` and returns one of these a sample. It may be a coroutine function.

A synchronous one runs in a thread, since it may block. A thread cannot be ended: past ``timeout`` its verdict is an
error and the thread is left behind, as a daemon, until the function returns. After ``MAX_STUCK`` such threads the
verifier refuses (``VerifierError``), so that a function which always hangs costs a bounded number of them; an actor
whose verifier is ``stuck`` is replaced by the pool.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import SpecError, VerifierError
from pipeline.records import Item, Sample, Verdict
from pipeline.verifier_spec import FunctionSpec

MAX_STUCK = 8
"""Threads that may be left behind before the verifier refuses; those running then may still join them."""
MAX_RUNNING = 8
"""Calls of one function at once: Python runs one thread at a time anyway."""


def find_function(path: str) -> Callable[..., Any]:
    """The callable ``package.module:name`` names.

    Raises:
        SpecError: no such module or name, the module cannot be imported, or it is not callable.
    """
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:  # importing runs the user's code
        why = f"{type(error).__name__}: {error}"
        raise SpecError(f"verifiers.function: cannot import {module!r} ({why}); is it on PYTHONPATH?") from None
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise SpecError(f"verifiers.function: {module} has no {name!r}; mend the name in {path!r}") from None
    if not callable(found):
        raise SpecError(f"verifiers.function: {path!r} is a {type(found).__name__}, not a function")
    function: Callable[..., Any] = found
    return function


class FunctionVerifier:
    """Holds a plain function to the shape of a verifier; ``contract.checked`` does the rest."""

    def __init__(self, spec: FunctionSpec, function: Callable[..., Any] | None = None) -> None:
        self.name = spec.label
        self._spec = spec
        self._function = function or find_function(spec.function)
        self._turns = asyncio.Semaphore(MAX_RUNNING)
        self._left_behind: set[threading.Thread] = set()

    @property
    def stuck(self) -> bool:
        """Are so many threads left behind that it refuses?"""
        self._left_behind = {thread for thread in self._left_behind if thread.is_alive()}
        return len(self._left_behind) >= MAX_STUCK

    async def __call__(self, item: Item, samples: Sequence[Sample]) -> list[Verdict]:
        if not samples:
            return []
        if self._spec.batch:
            return await self._batch(item, list(samples))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(item, sample)) for sample in samples]
        return [task.result() for task in tasks]

    async def _one(self, item: Item, sample: Sample) -> Verdict:
        try:
            return self._verdict(await self._call(item, sample))
        except Exception as error:  # the user's code, on hostile text
            return Verdict(self.name, error=_told(error))

    async def _batch(self, item: Item, samples: list[Sample]) -> list[Verdict]:
        try:
            scores = await self._call(item, samples)
        except Exception as error:
            return [Verdict(self.name, error=_told(error)) for _ in samples]
        # An array will do as well as a list; a string or a mapping will not.
        scores = scores.tolist() if hasattr(scores, "tolist") else scores
        if not isinstance(scores, list | tuple) or len(scores) != len(samples):
            got = len(scores) if isinstance(scores, list | tuple) else type(scores).__name__
            wrong = f"the function must return one score a sample ({len(samples)}), got {got}"
            return [Verdict(self.name, error=wrong) for _ in samples]
        return [self._verdict(score) for score in scores]

    async def _call(self, item: Item, what: Any) -> Any:
        async with self._turns:
            if self.stuck:
                raise VerifierError(f"{MAX_STUCK} calls of {self._spec.function} hang; it is not called again")
            try:
                async with asyncio.timeout(self._spec.timeout):
                    if inspect.iscoroutinefunction(self._function):
                        return await self._function(item, what)
                    said = await self._in_thread(item, what)
                    return await said if inspect.isawaitable(said) else said
            except TimeoutError as error:
                raise TimeoutError(str(error) or f"no result within {self._spec.timeout:g} s") from None

    async def _in_thread(self, item: Item, what: Any) -> Any:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def settle(set_it: Callable[[Any], None], value: Any) -> None:
            if not done.done():
                set_it(value)

        def run() -> None:
            try:
                said, set_it = self._function(item, what), done.set_result
            except BaseException as error:
                # StopIteration cannot go into a future, and a thread's SystemExit is the function's, not ours.
                harmless = isinstance(error, Exception) and not isinstance(error, StopIteration)
                said, set_it = error if harmless else RuntimeError(repr(error)), done.set_exception
            try:
                loop.call_soon_threadsafe(settle, set_it, said)
            except RuntimeError:
                return  # The loop is closed: nobody waits for this any more.

        # Not an executor: its threads are waited for at exit, and one that hangs would hold up the process.
        thread = threading.Thread(target=run, name=f"verifier {self.name}", daemon=True)
        thread.start()
        try:
            return await done
        finally:
            if done.cancelled():
                self._left_behind.add(thread)

    def _verdict(self, said: Any) -> Verdict:
        if isinstance(said, Verdict):
            return said
        if said is None:
            return Verdict(self.name, error="the function gave no score")
        try:
            score = float(said)
        except (TypeError, ValueError, OverflowError):
            return Verdict(self.name, error=f"the function must return a number or bool, got {type(said).__name__}")
        if not math.isfinite(score) or not 0 <= score <= 1:
            return Verdict(self.name, error=f"the function must return a score in [0, 1], got {score!r}")
        return Verdict(self.name, score=score)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
