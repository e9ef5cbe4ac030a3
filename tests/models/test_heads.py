from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mae.models.heads import AttentiveHead, MLPHead

D, K = 32, 5
RNG = np.random.default_rng(0)

ACTIVATIONS = {
    "relu": lambda x: np.where(x > 0, x, 0),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
}


def scattered(head: nn.Module) -> nn.Module:
    """The head in float64, every weight of it drawn anew: biases start at zero, where a forgotten one would go unseen."""
    head = head.double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter) / math.sqrt(parameter.shape[-1]))
        for name, buffer in head.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(torch.rand_like(buffer) + (0.5 if name.endswith("var") else 0))
    return head


def arrays(head: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.double().numpy() for name, value in head.state_dict().items()}


def linear(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def attentive_by_hand(w: dict[str, np.ndarray], tokens: np.ndarray, heads: int) -> np.ndarray:
    """Logits of one image (N, D) to (K,): the query attends to every token, one attention head after the other."""
    side = D // heads
    query = linear(w, "pool.q", w["pool.latent"][0, 0])
    keys, values = np.split(linear(w, "pool.kv", tokens), 2, axis=-1)
    found = []
    for head in range(heads):
        own = slice(head * side, (head + 1) * side)
        scores = np.array([query[own] @ key[own] / math.sqrt(side) for key in keys])
        shares = np.exp(scores) / np.exp(scores).sum()
        found.append(sum(share * value[own] for share, value in zip(shares, values, strict=True)))
    pooled = linear(w, "pool.proj", np.concatenate(found))
    centred = pooled - pooled.mean()
    normalised = centred / np.sqrt((centred**2).mean() + 1e-5) * w["pool.norm.weight"] + w["pool.norm.bias"]
    pooled = pooled + linear(w, "pool.mlp.fc2", ACTIVATIONS["gelu"](linear(w, "pool.mlp.fc1", normalised)))
    return linear(w, "head.linear", pooled)


@pytest.mark.parametrize("hidden", [None, 48])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_mlp_head_is_two_layers_with_the_activation_between(activation, hidden):
    head = scattered(MLPHead(D, K, hidden=hidden, activation=activation))
    features, w = RNG.normal(size=(6, D)), arrays(head)

    assert w["hidden.weight"].shape == (hidden or D, D)
    expected = linear(w, "linear", ACTIVATIONS[activation](linear(w, "hidden", features)))
    np.testing.assert_allclose(head(torch.from_numpy(features)).detach(), expected, rtol=1e-10)


def test_the_batch_norm_of_an_mlp_head_comes_first_and_has_no_parameters():
    head = scattered(MLPHead(D, K, activation="tanh", batch_norm=True))
    features, w = RNG.normal(size=(6, D)), arrays(head)

    normalised = (features - w["norm.running_mean"]) / np.sqrt(w["norm.running_var"] + 1e-6)
    expected = linear(w, "linear", np.tanh(linear(w, "hidden", normalised)))
    np.testing.assert_allclose(head(torch.from_numpy(features)).detach(), expected, rtol=1e-10)
    assert {name for name, _ in head.named_parameters()} == {
        *("hidden.weight", "hidden.bias", "linear.weight", "linear.bias")
    }


def test_gelu_is_the_usual_activation():
    features, torch_state = torch.randn(4, D), torch.get_rng_state()
    named = MLPHead(D, K, activation="gelu")
    torch.set_rng_state(torch_state)
    assert torch.equal(MLPHead(D, K)(features), named(features))


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("mlp_ratio", [4.0, 0.5])
def test_an_attentive_head_equals_a_loop_over_its_heads_and_tokens(heads, mlp_ratio):
    head = scattered(AttentiveHead(D, K, heads=heads, mlp_ratio=mlp_ratio))
    tokens, w = RNG.normal(size=(3, 17, D)), arrays(head)

    assert w["pool.mlp.fc1.weight"].shape == (mlp_ratio * D, D)
    expected = np.stack([attentive_by_hand(w, image, heads) for image in tokens])
    np.testing.assert_allclose(head(torch.from_numpy(tokens)).detach(), expected, rtol=1e-8)


def test_the_batch_norm_of_an_attentive_head_stands_before_its_linear_layer():
    plain, normed = AttentiveHead(D, K, heads=2), scattered(AttentiveHead(D, K, heads=2, batch_norm=True))
    scattered(plain).load_state_dict(normed.state_dict(), strict=False)
    tokens, w = torch.randn(3, 17, D, dtype=torch.float64), arrays(normed)

    pooled = plain.pool(tokens).detach().numpy()
    normalised = (pooled - w["head.norm.running_mean"]) / np.sqrt(w["head.norm.running_var"] + 1e-6)
    np.testing.assert_allclose(normed(tokens).detach(), linear(w, "head.linear", normalised), rtol=1e-8)


def test_every_token_changes_what_an_attentive_head_says():
    head, tokens = scattered(AttentiveHead(D, K, heads=2)), torch.randn(2, 17, D, dtype=torch.float64)
    before = head(tokens)
    for number in range(17):
        changed = tokens.clone()
        changed[0, number] += 1
        after = head(changed)
        assert (after[0] - before[0]).abs().max() > 1e-6, number
        assert torch.equal(after[1], before[1])


def test_the_order_of_the_tokens_leaves_an_attentive_head_unmoved():
    head, tokens = scattered(AttentiveHead(D, K, heads=2)), torch.randn(2, 17, D, dtype=torch.float64)
    torch.testing.assert_close(head(tokens[:, torch.randperm(17)]), head(tokens))


@pytest.mark.parametrize("batch_norm", [True, False])
def test_every_parameter_of_a_head_gets_a_gradient(batch_norm):
    inputs = {
        MLPHead(D, K, batch_norm=batch_norm): torch.randn(8, D),
        AttentiveHead(D, K, heads=2, batch_norm=batch_norm): torch.randn(8, 17, D),
    }
    for head, values in inputs.items():
        F.cross_entropy(head(values), torch.arange(8) % K).backward()
        assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("std", [0.01, 0.5])
def test_the_last_layer_starts_with_the_deviation_asked_for_and_no_bias(std):
    for layer in (
        MLPHead(100, 100, init_std=std).linear,
        AttentiveHead(100, 100, heads=2, init_std=std).head.linear,
    ):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
        assert not layer.bias.any()


def test_options_that_make_no_head_are_refused():
    with pytest.raises(ValueError, match=r"protocol\.activation='swish' is unknown: choose one of relu, gelu, tanh"):
        MLPHead(D, K, activation="swish")
    with pytest.raises(ValueError, match=r"protocol\.heads=3 does not divide the encoder's width of 32"):
        AttentiveHead(D, K, heads=3)
