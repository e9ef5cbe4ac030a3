"""Multinomial logistic regression on frozen features: the linear probe that needs no schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from mae.evaluation.classification_scores import share_right
from mae.evaluation.frozen.features import principal_directions
from mae.evaluation.frozen.knn import Labelled

STRENGTHS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
MOST_ITERATIONS = 500
TOLERANCE = 1e-4
"""Of the slope of the mean loss, in the units of the fit."""
DIRECTIONS = 512
"""Principal directions that wide features are cut to: of 3,072 pixels these keep 98% of the variance and more."""


@dataclass(frozen=True, eq=False)
class LogisticFit:
    """A fitted classifier of D features into K classes.

    Attributes:
        strength: The C that was chosen: the loss summed over the images counts C times beside half the squared weights.
        val_accuracy: On the validation features that chose it.
        converged: False where the chosen fit had not settled after ``MOST_ITERATIONS``.
        mean: (D,), of the training features.
        scale: (D,), their standard deviation; 1 where they do not vary.
        weight: (K, D), on standardised features.
        bias: (K,); minus infinity for a class without a training image.
    """

    strength: float
    val_accuracy: float
    converged: bool
    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Return logits (N, K) of features (N, D); their softmax are the probabilities."""
        return ((features - self.mean) / self.scale) @ self.weight.T + self.bias

    def accuracy(self, labelled: Labelled) -> float:
        """Return the share of images that are classified rightly."""
        return share_right(self.predict(labelled[0]).argmax(dim=1), labelled[1])


@torch.no_grad()
def fit_logistic(
    train: Labelled, val: Labelled, classes: int, *, strengths: Sequence[float] = STRENGTHS
) -> LogisticFit:
    """Fit by L-BFGS to convergence, with the strength C that does best on validation.

    Features are standardised with the training features' mean and deviation. As in Radford et al. 2021 (arXiv 2103.00020,
    appendix A), C is swept over a logarithmic grid. Each fit starts from the one before, from strong regularisation
    to weak, and the path ends after two strengths in a row below the best. Of equals the smallest C is taken.

    The fits are made along the principal directions of the features, each in a unit of its own, in which the loss curves
    about equally along all of them: the same optimum in a tenth of the iterations. Of very wide features, such as the pixels of
    colour images, ``DIRECTIONS`` directions are used; see ``principal_directions``.

    Args:
        train: N images.
        val: Images that choose C.
        classes: K; a class without a training image keeps its column, and is never predicted.
        strengths: Values of C.

    Raises:
        ValueError: The training images are all of one class.
    """
    features, labels = train[0].float(), train[1]
    present, targets = torch.unique(labels, return_inverse=True)
    if len(present) < 2:
        raise ValueError(f"{len(labels)} training images are all of one class: logistic regression needs two or more")
    std, mean = torch.std_mean(features, dim=0, correction=0)
    # Compared exactly: a deviation that rounding alone left would blow a feature up as soon as it varies elsewhere.
    scale = torch.where(features.amax(0) == features.amin(0), 1.0, std)
    x, val_x = (features - mean) / scale, (val[0].float() - mean) / scale
    directions = principal_directions(x, DIRECTIONS)
    path = _Path(x @ directions, targets, len(present))
    val_x = val_x @ directions
    best: LogisticFit | None = None
    below = 0
    for strength in sorted(strengths):
        converged = path.go_on(strength)
        seen_weight, seen_bias = path.columns[:, :-1], path.columns[:, -1]
        accuracy = share_right(present[(val_x @ seen_weight.T + seen_bias).argmax(dim=1)], val[1])
        if best is None or accuracy > best.val_accuracy:
            weight, bias = torch.zeros(classes, x.shape[1]), torch.full((classes,), float("-inf"))
            weight[present], bias[present] = seen_weight @ directions.T, seen_bias
            best = LogisticFit(strength, accuracy, converged, mean, scale, weight, bias)
        below = below + 1 if accuracy < best.val_accuracy else 0
        if below == 2:
            break
    assert best is not None, "strengths is not empty"
    return best


class _Path:
    """Softmax regression of N images by R uncorrelated features and a bias, from one strength to the next.

    Attributes:
        columns: (K, R + 1), weights and bias of the last fit; zero at first.
    """

    def __init__(self, x: Tensor, targets: Tensor, classes: int) -> None:
        self.x, self.targets = F.pad(x, (0, 1), value=1.0), targets
        self.variance = self.x.square().mean(dim=0)
        self.columns = torch.zeros(classes, self.x.shape[1])

    def go_on(self, strength: float) -> bool:
        """Fit with C from where the last fit stands; return whether it converged."""
        N, K = len(self.x), len(self.columns)
        penalty = torch.full_like(self.variance, 1 / (strength * N))
        penalty[-1] = 0  # of the bias
        # The mean loss curves by about p (1 - p) times the variance, with p = 1/K: in this unit by 1, whatever the direction.
        unit = (self.variance / K + penalty).rsqrt()

        def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
            columns = torch.from_numpy(values).float().view(K, -1) * unit
            log_p = (self.x @ columns.T).log_softmax(dim=1)
            value = F.nll_loss(log_p.double(), self.targets) + 0.5 * (penalty * columns.square()).double().sum()
            error = log_p.exp() - F.one_hot(self.targets, K)
            slope = (error.T @ self.x / N + penalty * columns) * unit
            return float(value), slope.double().numpy().ravel()

        limits = {"maxiter": MOST_ITERATIONS, "gtol": TOLERANCE, "ftol": 1e-9}
        start = (self.columns / unit).double().numpy().ravel()
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options=limits)
        self.columns = torch.from_numpy(found.x).float().view(K, -1) * unit
        # Only the limit of iterations counts: a line search that float32 cannot resolve further has arrived.
        return int(found.nit) < MOST_ITERATIONS
