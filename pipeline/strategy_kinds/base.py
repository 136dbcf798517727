"""What every strategy's section says of itself. Pydantic only."""

from __future__ import annotations

from budgets.stopping import make_rule
from pipeline.errors import SpecError
from pipeline.section import Section


class StrategySection(Section):
    """Base of all kinds."""

    @property
    def least(self) -> int:
        """Samples every question gets before any gets more."""
        return 1

    @property
    def most(self) -> int:
        """No question gets more samples than these."""
        return 1

    @property
    def checks(self) -> tuple[str, ...]:
        """Names of the verifiers it steers by."""
        return ()

    @property
    def watches(self) -> str | None:
        """Name of the verifier of kind behaviour whose descriptions it votes by."""
        return None

    @property
    def hands_over(self) -> bool:
        """Whether it hands that verifier inputs of its own."""
        return False

    @property
    def uses(self) -> tuple[str, ...]:
        """Names of the job's further models it asks."""
        return ()

    @property
    def by_model(self) -> dict[str, tuple[int, int]] | None:
        """Model → the fewest and the most samples a question gets of it; None where that cannot be told beforehand."""
        return None if self.uses else {"": (self.least, self.most)}

    @property
    def settles(self) -> tuple[str, ...]:
        """What it says itself of how a sample is asked for (``ArmSpec``'s fields): nobody else may say it for it."""
        return ()

    @property
    def embeds(self) -> bool:
        """Whether it compares texts by their embeddings, which its workers then need a model for."""
        return False

    @property
    def begins(self) -> int:
        """Tokens it draws of completions that it means to go on with later; 0: it draws none."""
        return 0

    @property
    def groups(self) -> int:
        """Tokens of a group below whose confidence it has completions cut; 0: it has none cut."""
        return 0


def known_rule(value: str | None) -> str | None:
    """The words of a stopping rule, or None, as they are. Raises ValueError for a rule that cannot be made."""
    if value is not None:
        try:
            make_rule(value)
        except SpecError as error:
            raise ValueError(str(error)) from None
    return value
