"""Everything Ponder raises on purpose, named by the boundary that was crossed.

    PonderError
    ├── UsageError            the job file, an argument or the input is wrong: exit code 2, nothing was spent
    │   ├── SpecError         a field of the job file
    │   ├── SourceError       the dataset cannot be read, or breaks its promises (duplicate ids, no rows)
    │   ├── Unrecorded        recorded samples do not hold what a strategy asks for
    │   └── RunMismatch       the output directory holds another run
    ├── StoreRefused          the run directory cannot be used with these credentials or this bucket: usage and store
    ├── StoreError            a write or read of the run directory failed: the run stops, nothing is half-committed
    ├── EngineError           the engine is gone; every request in flight is lost
    │   └── RequestRejected   the engine refused this one request (too long, bad parameters): a dead-letter row
    ├── VerifierError         a verifier failed in a way that is not a verdict
    ├── StrategyError         a strategy broke its contract
    └── RunFailed             too many rows failed, or a worker cannot be kept alive: exit code 1

``BudgetDenied`` is not an error: it is the market's answer "not at this price", and every strategy handles it.
"""

from __future__ import annotations


class PonderError(Exception):
    """Base of all errors raised on purpose. ``boundary`` is what dead-letter rows record."""

    boundary = "ponder"


class UsageError(PonderError):
    """The caller can mend this: bad job file, argument or input. Exit code 2."""

    boundary = "usage"


class SpecError(UsageError):
    """A field of the job file is wrong. The message names field, value and mend."""

    boundary = "spec"


class SourceError(UsageError):
    """The dataset cannot be read or breaks a promise the run needs (unique ids, at least one row)."""

    boundary = "source"


class Unrecorded(UsageError):
    """A strategy asks recorded samples for something that was not recorded. The message names it."""

    boundary = "source"


class RunMismatch(UsageError):
    """The output directory holds a run of another job. The message carries the diff."""

    boundary = "store"


class StoreError(PonderError):
    """Reading or writing the run directory failed. Never swallowed: a lost write is a lost row."""

    boundary = "store"


class StoreRefused(UsageError, StoreError):
    """The object store refuses the caller or has no such bucket: something to mend outside, exit code 2."""

    boundary = "store"


class EngineError(PonderError):
    """The engine died; all requests in flight are lost and are counted as one attempt each."""

    boundary = "engine"


class RequestRejected(EngineError):
    """The engine refused one request. The engine itself is well."""


class VerifierError(PonderError):
    """A verifier failed in a way it could not express as a verdict with ``error``."""

    boundary = "verifier"


class StrategyError(PonderError):
    """A strategy broke its contract, or raised something unexpected."""

    boundary = "strategy"


class RunFailed(PonderError):
    """The run as a whole failed: exit code 1."""

    boundary = "run"


class BudgetDenied(Exception):
    """The market will not pay for these samples at ``price`` (value per token). Answer with what you have."""

    def __init__(self, price: float) -> None:
        super().__init__(f"not bought at price {price:g}")
        self.price = price
