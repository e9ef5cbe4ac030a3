from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch

from mae.models.backbones.encoder import Encoder
from mae.models.classifier import Classifier
from mae.models.heads import AttentiveHead, LinearHead
from mae.optim.build import create_optimizer, create_schedule


@pytest.fixture
def model() -> Classifier:
    encoder = Encoder("vit_tiny_patch16_224", 16, patch_size=4, width=32, depth=2, heads=2)
    return Classifier(encoder, LinearHead(32, 5))


def layers(model: Classifier) -> dict[str, Any]:
    return {"layer_decay": 0.65, "depth": 2, "layer_of": model.encoder.layer_of}


def layer(name: str) -> int:
    """The layer of a parameter of the two-block classifier, by hand."""
    if name.startswith("encoder.vit.blocks."):
        return 1 + int(name.split(".")[3])
    return 3 if name.startswith(("head.", "encoder.vit.norm.")) else 0


def cosine(step: int) -> float:
    """Two steps of warm-up, then a cosine over eight more."""
    return (step + 1) / 2 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / 8))


def test_layer_decay_moves_each_layer_at_its_own_rate_at_every_step_of_the_schedule(model):
    # Plain SGD moves a parameter of gradient one by its learning rate, so what moves it is what it is said to be.
    optimizer = create_optimizer(
        model,
        name="sgd",
        lr=0.1,
        weight_decay=0.0,
        momentum=0.0,
        layer_decay=0.65,
        depth=2,
        layer_of=model.encoder.layer_of,
    )
    schedule = create_schedule(optimizer, warmup_steps=2, total_steps=10)

    for step in range(10):
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        schedule.step()
        for name, parameter in model.named_parameters():
            expected = 0.1 * 0.65 ** (3 - layer(name)) * cosine(step)
            moved = (before[name] - parameter.detach()).double()
            torch.testing.assert_close(moved, torch.full_like(moved, expected), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_the_rate_of_every_group_follows_the_schedule(model, name):
    optimizer = create_optimizer(
        model, name=name, lr=0.1, weight_decay=0.05, layer_decay=0.65, depth=2, layer_of=model.encoder.layer_of
    )
    schedule = create_schedule(optimizer, warmup_steps=2, total_steps=10)
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    for step in range(10):
        for group in optimizer.param_groups:
            (own,) = {layer(names[id(parameter)]) for parameter in group["params"]}
            assert group["lr"] == pytest.approx(0.1 * 0.65 ** (3 - own) * cosine(step))
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        schedule.step()


def test_weight_decay_shrinks_matrices_and_leaves_biases_norms_and_tokens(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    optimizer = create_optimizer(model, name="adamw", lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)

    optimizer.step()

    for name, parameter in model.named_parameters():
        matrix = name.endswith(".weight") and "norm" not in name
        expected = 1 - 0.1 * 0.5 if matrix else 1.0
        assert torch.allclose(parameter, torch.tensor(expected)), name


def test_lars_adapts_matrices_whatever_the_decay_and_biases_as_their_weights():
    # The trust ratio of a matrix is 0.001 * |w| / (|g| + decay * |w|), whatever the decay; MAE probes with none.
    for decay in (0.0, 0.2):
        head = AttentiveHead(32, 5, heads=2)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(torch.randn_like(parameter))
                parameter.grad = 3 * torch.randn_like(parameter)
        before = {name: (p.detach().double(), p.grad.double()) for name, p in head.named_parameters()}
        optimizer = create_optimizer(head, name="lars", lr=2.0, weight_decay=decay, momentum=0.9)

        optimizer.step()

        for name, parameter in head.named_parameters():
            (w, step), matrix = before[name], before[name.replace(".bias", ".weight")]
            if name != "pool.latent" and "norm" not in name:
                length, slope = (float((values**2).sum()) ** 0.5 for values in matrix)
                step = 0.001 * length / (slope + decay * length) * (step + decay * w * (parameter.ndim > 1))
            if name == "pool.latent":
                assert not torch.equal(parameter.detach().double(), w)
                continue
            torch.testing.assert_close(parameter.detach().double(), w - 2.0 * step, atol=1e-5, rtol=1e-5, msg=name)


def test_lars_computes_the_gradients_of_a_closure_and_returns_its_loss():
    head = LinearHead(32, 5, init_std=0.5)
    optimizer = create_optimizer(head, name="lars", lr=2.0, weight_decay=0.0)
    before = head.linear.weight.detach().clone()

    def closure() -> torch.Tensor:
        loss = head(torch.ones(1, 32)).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() > 0
    assert not torch.equal(head.linear.weight, before)


def test_lars_moves_the_bias_of_weights_at_zero_plainly_and_leaves_out_what_is_frozen(model):
    model.encoder.requires_grad_(False)
    torch.nn.init.zeros_(model.head.linear.weight)
    optimizer = create_optimizer(model, name="lars", lr=2.0, weight_decay=0.0)
    model.head.linear.weight.grad, model.head.linear.bias.grad = torch.ones(5, 32), torch.ones(5)

    optimizer.step()

    assert torch.equal(model.head.linear.bias.detach(), torch.full((5,), -2.0))


def test_the_momentum_of_lars_adds_nine_tenths_of_the_step_before():
    head = LinearHead(32, 5, init_std=0.5)
    optimizer = create_optimizer(head, name="lars", lr=2.0, weight_decay=0.0, momentum=0.9)
    steps = []
    for _ in range(2):
        head.linear.bias.grad = torch.ones(5)
        head.linear.weight.grad = torch.ones(5, 32)
        w = head.linear.weight.detach().double().clone()
        adapted = 0.001 * float((w**2).sum()) ** 0.5 / 160**0.5
        optimizer.step()
        steps.append((adapted, (w - head.linear.weight.detach()).mean().item() / 2, head.linear.bias[0].item() / -2))

    (ratio, moved, bias), (later_ratio, later_moved, later_bias) = steps
    assert (moved, later_moved) == pytest.approx((ratio, later_ratio + 0.9 * ratio), rel=1e-3)
    assert (bias, later_bias) == pytest.approx((ratio, later_ratio + 1.9 * ratio), rel=1e-3)


def test_lars_goes_on_as_it_began_where_its_state_is_of_before_biases_were_paired():
    head = LinearHead(32, 5, init_std=0.5)
    for parameter in head.parameters():
        parameter.grad = torch.ones_like(parameter)
    create = partial(create_optimizer, head, name="lars", lr=2.0, weight_decay=0.0)
    for earlier in (False, True):
        state = create().state_dict()
        if earlier:
            del state["param_groups"][0]["paired"]
        optimizer = create()
        optimizer.load_state_dict(state)
        head.linear.bias.grad = torch.ones(5)
        before = head.linear.bias.detach().clone()
        optimizer.step()
        moved = (before - head.linear.bias.detach()).mean().item()
        assert (moved == pytest.approx(2.0)) is earlier
        # What it is stays with it when it is saved again.
        assert ("paired" in optimizer.state_dict()["param_groups"][0]) is not earlier


def test_a_probe_at_a_high_rate_of_lars_never_does_much_worse_than_chance():
    # A plain bias throws the loss to 30 and more, 14 times that of equal odds.
    labels = torch.randint(0, 10, (256,))
    features = 2 + torch.randn(256, 32) + (2 * torch.randn(10, 32))[labels]
    for norm in (True, False):
        head = LinearHead(32, 10, batch_norm=norm, init_std=0.01)
        optimizer = create_optimizer(head, name="lars", lr=20, weight_decay=0.0)
        schedule, losses = create_schedule(optimizer, warmup_steps=8, total_steps=150), []
        for _ in range(150):
            batch = torch.randperm(256)[:16]
            loss = torch.nn.functional.cross_entropy(head(features[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        assert max(losses) < 1.5 * math.log(10)
        assert sum(losses[-10:]) / 10 < 0.1


def test_betas_and_momentum_reach_the_optimizer(model):
    paper = create_optimizer(model, name="adamw", lr=0.1, weight_decay=0.0)
    adamw = create_optimizer(model, name="adamw", lr=0.1, weight_decay=0.0, betas=(0.8, 0.99))
    sgd = create_optimizer(model, name="sgd", lr=0.1, weight_decay=0.0, momentum=0.8)

    assert {group["betas"] for group in adamw.param_groups} == {(0.8, 0.99)}
    assert {group["betas"] for group in paper.param_groups} == {(0.9, 0.95)}
    assert {group["momentum"] for group in sgd.param_groups} == {0.8}


def test_an_unknown_optimizer_lists_the_known(model):
    with pytest.raises(ValueError, match=r"optim\.name='adam' is unknown: choose one of adamw, sgd, lars"):
        create_optimizer(model, name="adam", lr=0.1, weight_decay=0.0)


def test_a_schedule_is_the_one_asked_for_with_its_own_end_and_falls():
    def rates(**given: Any) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = create_schedule(optimizer, 2, 10, **given)
        found = []
        for _ in range(11):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    assert rates(final=0.25)[-1] == pytest.approx(0.5)
    assert rates()[-1] == pytest.approx(0)
    assert rates(name="steps", every=4) == pytest.approx([1, 2, 2, 2, 0.2, 0.2, 0.2, 0.2, 0.02, 0.02, 0.02])
    with pytest.raises(ValueError, match=r"optim\.schedule=steps needs optim\.step_epochs"):
        rates(name="steps")
    with pytest.raises(ValueError, match=r"optim\.schedule='linear' is unknown: choose one of cosine, steps"):
        rates(name="linear")
