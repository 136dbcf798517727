"""The worker's side of the ledger: grants come in, samples reserve their worst case, what is left goes back.

Promises: a reservation is covered before a sample starts; every used token is attributed to exactly one grant; the
settlements handed out plus what is still unattributed equal ``spent`` at any moment. Holds no clock and sends nothing:
``settlements`` are repeated by the owner until the allocator acknowledges them.
"""

from __future__ import annotations

from budgets.ledger import Grant, LedgerError, Settlement


class Wallet:
    """Open grants (first in, first out), tokens reserved by running samples and tokens used.

    A token is fungible inside the wallet: a sample reserves tokens, not a grant. Attribution happens when grants are
    closed, oldest first.
    """

    def __init__(self) -> None:
        self._open: dict[str, int] = {}
        self._unacked: dict[str, Settlement] = {}
        self._seen: set[str] = set()
        self._held = 0
        self._reserved = 0
        self._unattributed = 0
        self._spent = 0

    @property
    def free(self) -> int:
        """Tokens a new sample may reserve."""
        return self._held - self._reserved - self._unattributed

    @property
    def reserved(self) -> int:
        """Worst-case tokens of samples now running."""
        return self._reserved

    @property
    def spent(self) -> int:
        """Tokens used over the wallet's whole life."""
        return self._spent

    @property
    def held_grants(self) -> tuple[str, ...]:
        """Ids to acknowledge in the next report: grants received and not closed, oldest first."""
        return tuple(self._open)

    @property
    def settlements(self) -> tuple[Settlement, ...]:
        """Grants closed and not acknowledged yet, to repeat in every report."""
        return tuple(self._unacked.values())

    def add(self, grant: Grant) -> bool:
        """Take a grant; False, and no effect, where this wallet ever had it: replies may repeat and arrive late."""
        if grant.grant_id in self._seen:
            return False
        self._seen.add(grant.grant_id)
        self._open[grant.grant_id] = grant.tokens
        self._held += grant.tokens
        return True

    def reserve(self, worst: int) -> bool:
        """Set aside the worst case of one sample; False where it does not fit."""
        if worst < 0:
            raise LedgerError(f"reservation is {worst!r} tokens: it must be >= 0")
        if worst > self.free:
            return False
        self._reserved += worst
        return True

    def settle(self, worst: int, used: int) -> None:
        """Close one reservation of ``worst`` tokens, of which ``used`` were computed; the rest is free again.

        Raises:
            LedgerError: ``used`` lies outside 0..worst, or so much is not reserved.
        """
        if not 0 <= used <= worst:
            raise LedgerError(f"a sample used {used!r} tokens of {worst} reserved: used must lie in 0..reserved")
        if worst > self._reserved:
            raise LedgerError(f"cannot settle {worst} tokens: only {self._reserved} are reserved")
        self._reserved -= worst
        self._unattributed += used
        self._spent += used

    def take_settlements(self, keep_free: int) -> list[Settlement]:
        """Close grants, oldest first, so that free tokens beyond ``keep_free`` >= 0 return; the newly closed ones.

        A grant closes when it is fully used, or when the rest of it may go: grants are whole, so up to one grant's
        rest more than ``keep_free`` may stay. With ``keep_free`` 0 and nothing reserved all grants close.
        """
        closed: list[Settlement] = []
        for grant_id, tokens in list(self._open.items()):
            used = min(self._unattributed, tokens)
            if tokens - used > max(0, self.free - keep_free):
                continue
            del self._open[grant_id]
            self._held -= tokens
            self._unattributed -= used
            closed.append(Settlement(grant_id, used))
        self._unacked.update((settlement.grant_id, settlement) for settlement in closed)
        return closed

    def acknowledge(self, grant_ids: tuple[str, ...]) -> None:
        """Forget settlements the allocator has booked; unknown ids are ignored."""
        for grant_id in grant_ids:
            self._unacked.pop(grant_id, None)
