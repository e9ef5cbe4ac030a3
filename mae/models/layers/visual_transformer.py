"""Visual Transformers: a few tokens that stand for concepts in place of pixels (Wu et al. 2020, arXiv 2006.03677).

X (B, HW, C) are features, T (B, L, C_T) visual tokens. No layer here has a bias, a norm or positions. Weights start as torch has
them, of deviation 1/sqrt(3 fan-in), so that softmax starts near even. Larger ones let tokens grow from module to module, since
nothing normalises them, and SGD diverges sooner.
"""

from __future__ import annotations

import math

from torch import Tensor, nn


def attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Return how much each query takes of each key: (B, N, d) and (B, M, d) to (B, N, M), which sums to 1 over M."""
    logits: Tensor = queries @ keys.transpose(-2, -1) / math.sqrt(queries.shape[-1])
    return logits.softmax(dim=-1)


class FilterTokenizer(nn.Module):
    """Each token averages the pixels that its own learned filter finds: T = softmax over HW of (X W_A), transposed, X W_V.

    Args:
        width: C.
        tokens: L.
        token_width: C_T.
    """

    def __init__(self, width: int, tokens: int, token_width: int) -> None:
        super().__init__()
        self.filters = nn.Linear(width, tokens, bias=False)
        self.value = nn.Linear(width, token_width, bias=False)

    def look(self, features: Tensor) -> Tensor:
        """Return how much each token takes of each pixel: (B, HW, C) to (B, L, HW)."""
        return self.filters(features).softmax(dim=1).transpose(1, 2)  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        """Return tokens (B, L, C_T) of features (B, HW, C)."""
        return self.value(self.look(features) @ features)  # type: ignore[no-any-return]


class RecurrentTokenizer(nn.Module):
    """The tokens so far say what to look for: W_R = T_in W_TR, T = softmax over HW of (X W_R), transposed, X W_V.

    Args:
        width: C.
        token_width: C_T.
    """

    def __init__(self, width: int, token_width: int) -> None:
        super().__init__()
        self.filters = nn.Linear(token_width, width, bias=False)
        self.value = nn.Linear(width, token_width, bias=False)

    def look(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Return how much each token takes of each pixel: (B, HW, C) and (B, L, C_T) to (B, L, HW)."""
        return attention(self.filters(tokens), features)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Return tokens (B, L, C_T) of features (B, HW, C) and the tokens (B, L, C_T) before them."""
        return self.value(self.look(features, tokens) @ features)  # type: ignore[no-any-return]


class TokenTransformer(nn.Module):
    """Tokens look at each other: T' = T + softmax over L of ((T K)(T Q)^T) T, then T' + ReLU(T' F1) F2.

    One head, and no value matrix. K and Q are C_T / 4 wide, F1 is C_T / 2 wide.

    Args:
        token_width: C_T.

    Raises:
        ValueError: It is no multiple of 4.
    """

    def __init__(self, token_width: int) -> None:
        super().__init__()
        if token_width % 4 or token_width < 4:
            raise ValueError(
                f"token_width={token_width} is not divisible by 4, which keys are narrower by: choose 1024"
            )
        self.key = nn.Linear(token_width, token_width // 4, bias=False)
        self.query = nn.Linear(token_width, token_width // 4, bias=False)
        self.hidden = nn.Linear(token_width, token_width // 2, bias=False)
        self.output = nn.Linear(token_width // 2, token_width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, L, C_T) that know of each other."""
        tokens = tokens + attention(self.key(tokens), self.query(tokens)) @ tokens
        return tokens + self.output(self.hidden(tokens).relu())  # type: ignore[no-any-return]


class Projector(nn.Module):
    """Each pixel takes from the tokens what it needs: X + softmax over L of ((X W_Q)(T W_K)^T) T W_V.

    W_V is there where C and C_T differ. W_Q is a convolution of 16 groups, or it would cost most of all: it meets every pixel.

    Args:
        width: C.
        token_width: C_T.
        key_width: Of W_Q and W_K.
    """

    def __init__(self, width: int, token_width: int, key_width: int) -> None:
        super().__init__()
        self.query = nn.Conv1d(width, key_width, 1, groups=math.gcd(16, width, key_width), bias=False)
        self.key = nn.Linear(token_width, key_width, bias=False)
        self.value = nn.Linear(token_width, width, bias=False) if width != token_width else nn.Identity()

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """Return features (B, HW, C), enriched by tokens (B, L, C_T)."""
        queries = self.query(features.transpose(1, 2)).transpose(1, 2)
        return features + attention(queries, self.key(tokens)) @ self.value(tokens)  # type: ignore[no-any-return]


class VisualTransformer(nn.Module):
    """Tokenizer, transformer and projector: pixels to tokens and back.

    Args:
        width: C.
        tokens: L.
        token_width: C_T.
        key_width: Of the projector's W_Q and W_K.
        recurrent: Take the tokens of the module before for filters; otherwise filters are learned.
        project: Give the tokens back to the pixels. The last module of a classifier leaves it out: nobody would read the pixels, so
            its weights would never have a gradient.
    """

    def __init__(
        self, width: int, tokens: int, token_width: int, *, key_width: int, recurrent: bool, project: bool = True
    ) -> None:
        super().__init__()
        self.tokenizer = (
            RecurrentTokenizer(width, token_width) if recurrent else FilterTokenizer(width, tokens, token_width)
        )
        self.transformer = TokenTransformer(token_width)
        self.projector = Projector(width, token_width, key_width) if project else None

    def forward(self, features: Tensor, tokens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return features (B, HW, C) and tokens (B, L, C_T), of features and, if recurrent, the tokens so far."""
        tokens = self.transformer(self.tokenizer(features) if tokens is None else self.tokenizer(features, tokens))
        if self.projector is not None:
            features = self.projector(features, tokens)
        return features, tokens


def check_tokens(key: str, tokens: int, grid: tuple[int, int], remedy: str) -> None:
    """Raise a ValueError where a map of (h, w) pixels cannot give so many tokens that differ."""
    height, width = grid
    if not 1 <= tokens <= height * width:
        raise ValueError(
            f"{key}={tokens} does not fit a feature map of {height}x{width} pixels: choose 1 to {height * width}, {remedy}"
        )
