from __future__ import annotations

import pytest
import torch

from mae.masking.corruption import MASKED, CorruptionPlan
from mae.masking.samplers import RandomCorruption
from mae.masking.seeds import seeded_generator

GRID = (8, 8)


@pytest.fixture(scope="module")
def plan() -> CorruptionPlan:
    plan = RandomCorruption()(2000, GRID, seeded_generator("cpu", 0))
    assert isinstance(plan, CorruptionPlan)
    return plan


def test_shares_of_the_patches_are_those_of_the_paper(plan: CorruptionPlan) -> None:
    own = torch.arange(64).expand_as(plan.source)
    masked = plan.source == MASKED
    swapped = ~masked & (plan.source != own)
    kept = plan.mask & (plan.source == own)

    assert torch.all(plan.mask.sum(dim=1) == 32)
    for what, share in ((masked, 0.40), (swapped, 0.05), (kept, 0.05)):
        assert what.float().mean().item() == pytest.approx(
            share, abs=0.004
        )  # 128,000 draws: a deviation of 0.0014 at most
    assert not (masked | swapped)[~plan.mask].any()


def test_the_other_patch_is_any_but_its_own(plan: CorruptionPlan) -> None:
    own = torch.arange(64).expand_as(plan.source)
    swapped = (plan.source >= 0) & (plan.source != own)
    steps = (plan.source - own)[swapped] % 64

    assert steps.unique().tolist() == list(range(1, 64))
    assert steps.bincount(minlength=64)[1:].float().std() < 4 * (len(steps) / 63) ** 0.5


@pytest.mark.parametrize("edge", [0.0, 1 - 2**-24])
def test_noise_at_the_edges_stays_within_the_image(edge: float) -> None:
    noise = torch.rand(4, 3, 64)
    noise[:, 1:] = torch.tensor([0.85, edge]).view(2, 1)  # all of them swapped
    plan = CorruptionPlan.draw(noise, GRID, 0.5)

    assert plan.source.min() >= 0 and plan.source.max() < 64
    assert (plan.source != torch.arange(64))[plan.mask].all()


def test_embeddings_are_replaced_as_the_plan_says() -> None:
    source = torch.tensor([[0, MASKED, 0, 3]])
    order = torch.tensor([[0, 3, 1, 2]])
    plan = CorruptionPlan(order[:, :2], order[:, 2:], torch.tensor([[False, True, True, False]]), (2, 2), source)
    embeddings = torch.arange(8.0).reshape(1, 4, 2)

    hidden = plan.hide(embeddings, torch.tensor([-1.0, -2.0]))

    assert hidden.tolist() == [[[0, 1], [-1, -2], [0, 1], [6, 7]]]


def test_gradients_reach_the_mask_embedding_and_the_patches_that_are_seen() -> None:
    plan = RandomCorruption()(1, GRID, seeded_generator("cpu", 1))
    embeddings, mask = torch.randn(1, 64, 4, requires_grad=True), torch.zeros(4, requires_grad=True)

    plan.hide(embeddings, mask).sum().backward()

    assert mask.grad is not None and embeddings.grad is not None
    assert mask.grad.tolist() == [(plan.source == MASKED).sum().item()] * 4
    uses = plan.source[plan.source >= 0].bincount(minlength=64)
    assert torch.equal(embeddings.grad[0, :, 0], uses.float())


def test_a_generator_repeats_and_another_device_keeps_the_plan(plan: CorruptionPlan) -> None:
    again = RandomCorruption()(2000, GRID, seeded_generator("cpu", 0)).to("cpu")

    assert isinstance(again, CorruptionPlan)
    assert torch.equal(again.source, plan.source)
    assert torch.equal(again.masked, plan.masked)


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masking\.masked=0\.9 and masking\.swapped=0\.2 are no shares"):
        RandomCorruption(0.5, masked=0.9, swapped=0.2)
    with pytest.raises(ValueError, match=r"noise of shape \(2, 64\) is not \(B, 3, 64\)"):
        CorruptionPlan.draw(torch.rand(2, 64), GRID, 0.5)
