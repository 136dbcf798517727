"""The ledger: the hard ceiling. Every token of a run is free, reserved by an open grant, or spent.

Promises: ``spent + reserved <= budget`` after every transition, checked; settling or writing off a grant twice changes
nothing. Owns no messages and no clock. Grant ids are the caller's and are never used for a second grant: a closed id
is forgotten, so that memory grows with open grants, not with the length of the run.

The one exception to the ceiling is a ledger restored with more spent than its (lowered) budget: then nothing is free
and nothing is granted until the budget is raised past what is spent.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import PonderError


class LedgerError(PonderError):
    """An impossible transition: it would break the ceiling or invent tokens. Always a defect of the caller."""

    boundary = "budget"


@dataclass(frozen=True, slots=True)
class Grant:
    """A right to spend up to ``tokens``, the worst case, reserved in the ledger until it is settled."""

    grant_id: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """A grant given back: ``used`` tokens were spent, the rest returns."""

    grant_id: str
    used: int


@dataclass(frozen=True, slots=True)
class _Open:
    holder: str
    tokens: int


class Ledger:
    """Budget, spent and reserved tokens of one run."""

    def __init__(self, budget: int) -> None:
        """Start an empty ledger. Raises LedgerError unless ``budget`` >= 1."""
        if budget < 1:
            raise LedgerError(f"budget is {budget!r} tokens: it must be a whole number >= 1")
        self._budget = budget
        self._spent = 0
        self._reserved = 0
        self._open: dict[str, _Open] = {}
        self._settled_by: dict[str, int] = {}

    @classmethod
    def restore(cls, budget: int, spent: int) -> Ledger:
        """A ledger whose journal proves ``spent`` tokens. More than the budget leaves nothing free."""
        ledger = cls(budget)
        ledger.spend(spent)
        return ledger

    @property
    def budget(self) -> int:
        """The ceiling, in tokens."""
        return self._budget

    @property
    def spent(self) -> int:
        """Tokens settled, written off or opened with."""
        return self._spent

    @property
    def reserved(self) -> int:
        """Tokens of open grants."""
        return self._reserved

    @property
    def free(self) -> int:
        """Tokens that may be granted; never negative."""
        return max(0, self._budget - self._spent - self._reserved)

    @property
    def open_grants(self) -> tuple[Grant, ...]:
        """Grants not settled yet, oldest first."""
        return tuple(Grant(grant_id, entry.tokens) for grant_id, entry in self._open.items())

    def grant(self, grant_id: str, holder: str, tokens: int) -> bool:
        """Reserve ``tokens`` >= 1 for ``holder``; False where they do not fit. Repeating an open grant is a no-op.

        Raises:
            LedgerError: ``tokens`` < 1, or the id is open for another holder or amount.
        """
        if tokens < 1:
            raise LedgerError(f"grant {grant_id}: tokens is {tokens!r}: it must be >= 1")
        entry = _Open(holder, tokens)
        known = self._open.get(grant_id)
        if known is not None:
            if known != entry:
                raise LedgerError(f"grant {grant_id} is open for {known.holder} over {known.tokens}: use a new id")
            return True
        if tokens > self.free:
            return False
        self._open[grant_id] = entry
        self._reserved += tokens
        self._check()
        return True

    def settle(self, grant_id: str, used: int) -> bool:
        """Close a grant with ``used`` tokens spent. False, and no effect, where it is not open (closed or unknown).

        Raises:
            LedgerError: ``used`` is negative or more than the grant.
        """
        entry = self._open.get(grant_id)
        if entry is None:
            return False
        if not 0 <= used <= entry.tokens:
            raise LedgerError(f"settlement of {grant_id}: used is {used!r}: it must lie in 0..{entry.tokens}")
        self._close(grant_id, entry, used)
        self._check()
        return True

    def write_off(self, holder: str, proven_spent: int) -> int:
        """Close all open grants of a dead holder; returns the tokens charged.

        ``proven_spent`` is all the journal proves this holder ever spent. Charged is what of it was not settled yet,
        at most the open amount; the rest of the grants returns. A second call finds nothing open.
        """
        if proven_spent < 0:
            raise LedgerError(f"write-off of {holder}: proven_spent is {proven_spent!r}: it must be >= 0")
        held = [(grant_id, entry) for grant_id, entry in self._open.items() if entry.holder == holder]
        owed = max(0, proven_spent - self._settled_by.get(holder, 0))
        charged = 0
        for grant_id, entry in held:
            used = min(owed - charged, entry.tokens)
            charged += used
            self._close(grant_id, entry, used)
        self._check()
        return charged

    def settled_by(self, holder: str) -> int:
        """Tokens this holder has settled so far."""
        return self._settled_by.get(holder, 0)

    def spend(self, tokens: int) -> None:
        """Book an opening balance: tokens a journal proves, spent before this ledger began.

        Raises:
            LedgerError: ``tokens`` is negative, or exceeds what is free while grants are open.
        """
        if tokens < 0:
            raise LedgerError(f"opening balance is {tokens!r} tokens: it must be >= 0")
        if self._reserved and tokens > self.free:
            raise LedgerError(
                f"opening balance of {tokens} tokens exceeds the {self.free} free; book it before granting"
            )
        self._spent += tokens
        self._check()

    def raise_budget(self, budget: int) -> None:
        """Set a larger ceiling. Raises LedgerError for a smaller one: granted tokens cannot be called back."""
        if budget < self._budget:
            raise LedgerError(f"budget cannot fall from {self._budget} to {budget} tokens during a run")
        self._budget = budget
        self._check()

    def _close(self, grant_id: str, entry: _Open, used: int) -> None:
        del self._open[grant_id]
        self._reserved -= entry.tokens
        self._spent += used
        self._settled_by[entry.holder] = self._settled_by.get(entry.holder, 0) + used

    def _check(self) -> None:
        if self._reserved < 0 or (self._reserved and self._spent + self._reserved > self._budget):
            raise LedgerError(
                f"the ceiling broke: spent {self._spent} + reserved {self._reserved} > budget {self._budget} tokens"
            )
