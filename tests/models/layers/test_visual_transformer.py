from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from mae.models.layers.visual_transformer import (
    FilterTokenizer,
    Projector,
    RecurrentTokenizer,
    TokenTransformer,
    VisualTransformer,
    check_tokens,
)

B, HW, C, L, C_T = 2, 12, 32, 4, 16


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(logit - max(logits)) for logit in logits]
    return [power / sum(powers) for power in powers]


def average(shares: list[float], rows: np.ndarray) -> np.ndarray:
    return sum(share * row for share, row in zip(shares, rows, strict=True))


def weights(module: nn.Module) -> dict[str, np.ndarray]:
    """Return matrices as the paper writes them, (in, out)."""
    return {name.removesuffix(".weight"): w.detach().numpy().T for name, w in module.named_parameters()}


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(B, HW, C, dtype=torch.float64)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randn(B, L, C_T, dtype=torch.float64)


def test_filter_tokenizer_follows_the_paper(features: torch.Tensor) -> None:
    tokenizer = FilterTokenizer(C, L, C_T).double()
    w = weights(tokenizer)
    for x, found in zip(features.numpy(), tokenizer(features).detach().numpy(), strict=True):
        for number in range(L):
            shares = softmax([pixel @ w["filters"][:, number] for pixel in x])
            np.testing.assert_allclose(found[number], average(shares, x @ w["value"]))


def test_recurrent_tokenizer_follows_the_paper(features: torch.Tensor, tokens: torch.Tensor) -> None:
    tokenizer = RecurrentTokenizer(C, C_T).double()
    w = weights(tokenizer)
    for x, t, found in zip(features.numpy(), tokens.numpy(), tokenizer(features, tokens).detach().numpy(), strict=True):
        for number in range(L):
            filter_ = t[number] @ w["filters"]
            shares = softmax([pixel @ filter_ / math.sqrt(C) for pixel in x])
            np.testing.assert_allclose(found[number], average(shares, x @ w["value"]))


def test_token_transformer_follows_the_paper(tokens: torch.Tensor) -> None:
    transformer = TokenTransformer(C_T).double()
    w = weights(transformer)
    assert w["key"].shape == w["query"].shape == (C_T, C_T // 4)
    assert w["hidden"].shape == (C_T, C_T // 2)
    for t, found in zip(tokens.numpy(), transformer(tokens).detach().numpy(), strict=True):
        for number in range(L):
            asks = t[number] @ w["key"]
            shares = softmax([asks @ (other @ w["query"]) / math.sqrt(C_T // 4) for other in t])
            middle = t[number] + average(shares, t)
            expected = middle + np.maximum(middle @ w["hidden"], 0) @ w["output"]
            np.testing.assert_allclose(found[number], expected)


@pytest.mark.parametrize("width", [C, C_T])
def test_projector_follows_the_paper(tokens: torch.Tensor, width: int) -> None:
    key_width = 32
    projector = Projector(width, C_T, key_width).double()
    w = weights(projector)
    features = torch.randn(B, HW, width, dtype=torch.float64)
    groups = [np.arange(start, start + width // 16) for start in range(0, width, width // 16)]
    outs = np.split(np.arange(key_width), 16)
    for x, t, found in zip(features.numpy(), tokens.numpy(), projector(features, tokens).detach().numpy(), strict=True):
        values = t @ w["value"] if width != C_T else t
        for pixel, row in zip(x, found, strict=True):
            query = np.concatenate([pixel[own] @ w["query"][0][:, out] for own, out in zip(groups, outs, strict=True)])
            shares = softmax([query @ (token @ w["key"]) / math.sqrt(key_width) for token in t])
            np.testing.assert_allclose(row, pixel + average(shares, values))
    assert ("value" in w) == (width != C_T)


def test_each_token_shares_itself_out_over_the_pixels(features: torch.Tensor, tokens: torch.Tensor) -> None:
    for shares in (
        FilterTokenizer(C, L, C_T).double().look(features),
        RecurrentTokenizer(C, C_T).double().look(features, tokens),
    ):
        assert shares.shape == (B, L, HW)
        torch.testing.assert_close(shares.sum(dim=2), torch.ones(B, L, dtype=torch.float64))
        assert not torch.allclose(shares.sum(dim=1), shares.sum(dim=1).mean())


def test_tokens_look_near_evenly_at_first() -> None:
    # What looks at one pixel alone hardly learns to look at another.
    shares = FilterTokenizer(512, 16, 64).look(torch.randn(4, 196, 512).relu())
    entropy = -(shares * shares.log()).sum(dim=2).mean() / math.log(196)
    assert 0.8 < entropy < 1


def test_the_order_of_pixels_means_nothing_to_tokens(features: torch.Tensor) -> None:
    module = VisualTransformer(C, L, C_T, key_width=16, recurrent=False).double()
    order = torch.randperm(HW)
    pixels, tokens = module(features)
    moved_pixels, moved_tokens = module(features[:, order])
    torch.testing.assert_close(moved_tokens, tokens)
    torch.testing.assert_close(moved_pixels, pixels[:, order])


def test_without_filters_tokens_are_global_average_pooling(features: torch.Tensor) -> None:
    tokenizer = FilterTokenizer(C, L, C_T).double()
    nn.init.zeros_(tokenizer.filters.weight)
    pooled = tokenizer.value(features.mean(dim=1, keepdim=True)).expand(-1, L, -1)
    torch.testing.assert_close(tokenizer(features), pooled)


def test_without_values_the_projector_changes_nothing(features: torch.Tensor, tokens: torch.Tensor) -> None:
    projector = Projector(C, C_T, 16).double()
    nn.init.zeros_(projector.value.weight)
    assert torch.equal(projector(features, tokens), features)


def test_images_of_a_batch_know_nothing_of_each_other(features: torch.Tensor) -> None:
    module = VisualTransformer(C, L, C_T, key_width=16, recurrent=False).double()
    together = module(features.repeat(3, 1, 1))
    for alone, several in zip(module(features[:1]), together, strict=True):
        torch.testing.assert_close(several[::B], alone.expand(3, -1, -1))


def test_recurrent_tokens_depend_on_those_before(features: torch.Tensor, tokens: torch.Tensor) -> None:
    module = VisualTransformer(C, L, C_T, key_width=16, recurrent=True).double()
    assert not torch.allclose(module(features, tokens)[1], module(features, tokens + 1)[1])


def test_every_parameter_learns(features: torch.Tensor) -> None:
    first = VisualTransformer(C, L, C_T, key_width=16, recurrent=False).double()
    last = VisualTransformer(C, L, C_T, key_width=16, recurrent=True, project=False).double()
    pixels, tokens = last(*first(features))
    tokens.square().sum().backward()
    assert pixels.shape == (B, HW, C)
    for name, parameter in [*first.named_parameters(), *last.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_width_that_keys_cannot_be_a_quarter_of_is_refused() -> None:
    with pytest.raises(ValueError, match="token_width=30 is not divisible by 4"):
        TokenTransformer(30)


@pytest.mark.parametrize("tokens", [7, 0])
def test_no_more_tokens_than_pixels(tokens: int) -> None:
    check_tokens("model.tokens", 6, (2, 3), "larger images")
    with pytest.raises(ValueError, match=rf"model.tokens={tokens} .* 2x3 pixels: choose 1 to 6, larger images"):
        check_tokens("model.tokens", tokens, (2, 3), "larger images")
