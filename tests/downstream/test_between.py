from __future__ import annotations

import torch
from torch import Tensor

from mae.downstream.between import SHARES, mixed, nearest


def right(count: int, of: int = 400) -> Tensor:
    """Return the first ``count`` images right, so that points differ by whole images alone."""
    return torch.arange(of) < count


def test_weights_are_mixed_and_counts_are_the_last_ones() -> None:
    start = {"weight": torch.tensor([0.0, 4.0]), "seen": torch.tensor(3)}
    best = {"weight": torch.tensor([8.0, 4.0]), "seen": torch.tensor(9)}
    points = [mixed(start, best, share) for share in SHARES]
    assert [point["weight"].tolist() for point in points] == [[0, 4], [2, 4], [4, 4], [6, 4], [8, 4]]
    assert {int(point["seen"]) for point in points} == {9}


def test_the_nearest_point_that_none_farther_clearly_beats_is_taken() -> None:
    # One image of 400 more is less than a standard error, ten are more than two of them.
    assert nearest([right(300)] * 5) == 0
    assert nearest([right(300), right(301), right(301), right(301), right(301)]) == 0
    assert nearest([right(300), right(310), right(310), right(311), right(311)]) == 1
    assert nearest([right(300), right(310), right(320), right(330), right(340)]) == 4
    assert nearest([right(300), right(290), right(280), right(290), right(320)]) == 4
    assert nearest([right(300), right(320), right(310), right(290), right(280)]) == 1
