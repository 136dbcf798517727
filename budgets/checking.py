"""What a check of a voted answer is worth, where checks cost tokens.

Checking is bought where it can change the outcome: the answer ahead is checked, since only its fall changes anything,
and the check competes with one more sample for the same tokens. Pure.
"""

from __future__ import annotations

from budgets.value import check_stakes, check_tokens
from budgets.votes import Standing, p_lead
from pipeline.errors import SpecError


def checking_value(standing: Standing, expected_tokens: float, stakes: float = 1.0) -> float:
    """Bid for a check of the leader: stakes × (1 − P_lead) × share / E[tokens of the check] (value per token).

    The leader is wrong with probability 1 − P_lead; a check that tells so is worth what takes its place: the runner-up,
    by its share of the votes the leader did not get. Without a rival the share is 1: that a lone answer is wrong is
    worth knowing by itself. A settled vote bids next to nothing.

    Raises:
        SpecError: nothing leads, expected_tokens not positive, stakes malformed.
    """
    check_stakes(stakes)
    check_tokens(expected_tokens)
    if standing.leader is None:
        raise SpecError("there is no leading answer whose check could be worth anything")
    rest = sum(standing.counts.values()) - standing.lead_weight
    share = standing.runner_up_weight / rest if rest > 0.0 and standing.runner_up_weight > 0.0 else 1.0
    lead = p_lead(standing.lead_weight, standing.runner_up_weight)
    return stakes * (1.0 - lead) * min(1.0, share) / expected_tokens
