"""On how many images a pretraining run measures its features, and how often: as many as cost little of it."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from mae.config.choices import Choice, Choices
from mae.config.schema.roots import PretrainConfig

MOST = 4, 10_000, 2_000
"""Times, training images and validation images, where the config bounds none of them."""
FLOOR = 256
"""Images of either kind that are measured on in any case: 3% of a run of a few steps would tell nothing."""
ENOUGH = 3_000
"""Images of both kinds together that tell more in a look halfway than at the end: 1,000 queries, and a bank of 2,000."""


@dataclass(frozen=True)
class Measuring:
    """``times`` while training, on ``bank`` training images and ``queries`` validation images each time."""

    times: int
    bank: int
    queries: int


def plan_measuring(budget: float, most: Measuring, bank_cost: float, query_cost: float) -> Measuring:
    """Return what fits into a budget: fewer times first, down to one halfway and one at the end, then fewer images.

    Random weights are measured before training on the same images as the trained ones at the end, so there is one measurement
    more than ``times``, and two where that is 0.

    Args:
        budget: In training steps on one image, as the costs are.
        most: Upper bounds.
        bank_cost: Of a training image, each time.
        query_cost: Of a validation image, each time.
    """

    def cost(plan: Measuring) -> float:
        return (1 + max(1, plan.times)) * (plan.bank * bank_cost + plan.queries * query_cost)

    def within(times: int) -> Measuring:
        each = budget / (1 + max(1, times))
        queries = min(most.queries, max(FLOOR, int(each / 3 / query_cost)))
        bank = min(most.bank, max(FLOOR, int((each - queries * query_cost) / bank_cost)))
        return Measuring(times, bank, min(most.queries, max(queries, int((each - bank * bank_cost) / query_cost))))

    for times in range(most.times, 1, -1):
        if cost(Measuring(times, most.bank, most.queries)) <= budget:
            return Measuring(times, most.bank, most.queries)
    twice = within(min(2, most.times))
    return twice if twice.bank + twice.queries >= min(ENOUGH, most.bank + most.queries) else within(min(1, most.times))


def choose_measuring(
    choices: Choices[PretrainConfig], images: int, train: int, val: int, bank_cost: float, query_cost: float
) -> Measuring:
    """Choose how many images are measured on, and how often; given numbers are upper bounds.

    Args:
        choices: Of a pretraining run.
        images: That it trains on, over all epochs.
        train: Training images that there are.
        val: Validation images that there are.
        bank_cost: Of measuring a training image once, in training steps on one image.
        query_cost: Of measuring a validation image once.
    """
    options = choices.config.callbacks
    names = ("knn_times", "knn_bank", "knn_queries")
    given = [getattr(options, name) for name in names]
    wanted = [most if bound is None else bound for bound, most in zip(given, MOST, strict=True)]
    bounds = [wanted[0], min(wanted[1], train), min(wanted[2], val)]
    plan = plan_measuring(options.share * images, Measuring(*bounds), bank_cost, query_cost)
    cut = f"more would cost more than {options.share:.2g} of the training, callbacks.share"
    reasons = (
        f"{MOST[0]} at most",
        f"{MOST[1]:,} at most, and all there are",
        f"{MOST[2]:,} at most, and all there are",
    )
    for name, bound, limit, value, reason in zip(names, given, bounds, astuple(plan), reasons, strict=True):
        choices.fill(f"callbacks.{name}", value, cut if value < limit else reason)
        if bound is not None and value < limit:
            choices.made.append(Choice(f"callbacks.{name}", value, cut))
    return plan
