"""Linear probes side by side: each as if it were alone, and the best on validation chosen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mae.evaluation.probe_sweep import Candidate, Pooled, Probe, train_probes
from mae.models.heads import LinearHead
from mae.optim.build import create_optimizer, create_schedule

D, K, N, BATCH, EPOCHS = 8, 3, 43, 10, 6
CANDIDATES = [
    Candidate(pool, batch_norm, lr)
    for pool, batch_norm, lr in itertools.product(("mean", "token"), (True, False), (0.001, 0.3))
]


def draw(count: int, seed: int) -> Pooled:
    """Features by pooling that overlap, those of the token more."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(K, (count,), generator=generator)
    centres = torch.randn(K, D, generator=torch.Generator().manual_seed(7))
    features = {
        pool: centres[labels] + noise * torch.randn(count, D, generator=generator)
        for pool, noise in (("mean", 1.0), ("token", 2.0))
    }
    return features, labels


TRAIN, VAL = draw(N, 0), draw(20, 1)


def order(epoch: int) -> Tensor:
    return torch.randperm(N, generator=torch.Generator().manual_seed(epoch))


def make(candidate: Candidate, name: str = "adamw", init_std: float = 0.01) -> Probe:
    """The same head each time."""
    torch.manual_seed(5)
    head = LinearHead(D, K, batch_norm=candidate.batch_norm, init_std=init_std)
    optimizer = create_optimizer(head, name=name, lr=candidate.base_lr, weight_decay=0.0)
    return Probe(candidate, head, optimizer, create_schedule(optimizer, 2, EPOCHS * (N // BATCH)))


def train(probes: Sequence[Probe], **changes: Any) -> Probe:
    options = {"epochs": EPOCHS, "batch_size": BATCH, "validate_every": 1, "order": order}
    return train_probes(probes, TRAIN, VAL, **{**options, **changes})


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
def test_every_probe_of_several_ends_as_it_would_alone(name: str) -> None:
    together = [make(candidate, name) for candidate in CANDIDATES]
    train(together)
    for candidate, probe in zip(CANDIDATES, together, strict=True):
        alone = make(candidate, name)
        train([alone])
        assert probe.curve == alone.curve
        assert same(probe.head.state_dict(), alone.head.state_dict())
        assert same(probe.best, alone.best)
    ends = {tuple(probe.head.linear.weight.flatten().tolist()) for probe in together}
    assert len(ends) == len(CANDIDATES)


def test_a_probe_takes_the_steps_of_a_loop_by_hand() -> None:
    # Softmax regression by plain gradient descent: warm-up over two steps, then the cosine.
    probe = make(Candidate("token", False, 0.7), "sgd", init_std=0.5)
    probe.optimizer.param_groups[0]["momentum"] = probe.optimizer.param_groups[1]["momentum"] = 0.0
    w, b = (p.detach().double().clone() for p in (probe.head.linear.weight, probe.head.linear.bias))
    train([probe])

    features, labels = TRAIN[0]["token"].double(), TRAIN[1]
    rates = [0.5, 1.0, *(0.5 * (1 + torch.cos(torch.tensor(k * torch.pi / 22)).item()) for k in range(22))]
    for step, rate in enumerate(rates):
        epoch, place = divmod(step, 4)
        # Four batches of ten: three of the 43 images wait for another epoch's order.
        batch = order(epoch)[place * 10 : place * 10 + 10]
        error = (features[batch] @ w.T + b).softmax(dim=1) - torch.eye(K)[labels[batch]]
        w, b = w - 0.7 * rate * error.T @ features[batch] / 10, b - 0.7 * rate * error.mean(dim=0)

    torch.testing.assert_close(probe.head.linear.weight.detach().double(), w, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(probe.head.linear.bias.detach().double(), b, atol=1e-5, rtol=1e-4)


def test_the_best_state_is_that_of_the_first_epoch_that_was_best() -> None:
    probes = [make(candidate) for candidate in CANDIDATES]
    states: list[list[dict[str, Tensor]]] = []

    def keep(epochs: int) -> None:
        assert epochs == len(states) + 1
        states.append([{key: value.clone() for key, value in p.head.state_dict().items()} for p in probes])

    train(probes, after_epoch=keep)

    ties = 0
    for number, probe in enumerate(probes):
        accuracies = [accuracy(probe.candidate, state[number]) for state in states]
        assert probe.curve == pytest.approx(dict(enumerate(accuracies)))
        assert probe.top1 == pytest.approx(max(accuracies))
        first = accuracies.index(max(accuracies))
        assert same(probe.best, states[first][number])
        ties += accuracies.count(max(accuracies)) > 1 and not same(probe.best, states[-1][number])
    assert ties, "without a tie, the first best would be the only one"


def accuracy(candidate: Candidate, state: dict[str, Tensor]) -> float:
    """Validation accuracy of a head in eval mode, from its state."""
    features = VAL[0][candidate.pool]
    if candidate.batch_norm:
        features = (features - state["norm.running_mean"]) / (state["norm.running_var"] + 1e-6).sqrt()
    predicted = (features @ state["linear.weight"].T + state["linear.bias"]).argmax(dim=1)
    return sum(int(a == b) for a, b in zip(predicted.tolist(), VAL[1].tolist(), strict=True)) / len(VAL[1])


def test_the_winner_is_the_best_on_validation_and_the_first_of_equals() -> None:
    probes = [make(candidate) for candidate in CANDIDATES]
    winner = train(probes)
    best = max(max(probe.curve.values()) for probe in probes)
    assert winner is next(probe for probe in probes if max(probe.curve.values()) == best)
    assert min(max(probe.curve.values()) for probe in probes) < best

    twins = [make(winner.candidate) for _ in range(3)]
    assert train(twins) is twins[0]


def test_probes_are_validated_as_often_as_asked_and_go_on_learning() -> None:
    often, seldom = make(CANDIDATES[0]), make(CANDIDATES[0])
    train([often])
    train([seldom], validate_every=3)
    assert seldom.curve == {epoch: often.curve[epoch] for epoch in (2, 5)}
    # Validation leaves statistics alone, and the head in train mode.
    assert same(often.head.state_dict(), seldom.head.state_dict())
    assert often.head.norm.training
    assert int(often.head.norm.num_batches_tracked) == EPOCHS * (N // BATCH)


def test_a_candidate_reads_as_the_overrides_that_repeat_it() -> None:
    assert str(Candidate("token", False, 0.25)) == "protocol.pool=token protocol.batch_norm=false optim.base_lr=0.25"
