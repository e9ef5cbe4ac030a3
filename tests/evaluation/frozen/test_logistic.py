"""Logistic regression against scikit-learn's, fitted afresh for every strength."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mae.evaluation.frozen import logistic
from mae.evaluation.frozen.knn import Labelled
from mae.evaluation.frozen.logistic import fit_logistic

STRENGTHS = (1e-4, 1e-2, 1.0, 100.0)


def draw(count: int, seed: int, classes: int = 3, width: int = 8, noise: float = 1.5) -> Labelled:
    """Draw overlapping classes; the features differ in mean and scale by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(7))
    labels = torch.randint(classes, (count,), generator=generator)
    features = centres[labels] + noise * torch.randn(count, width, generator=generator)
    return features * torch.logspace(-2, 2, width) + torch.linspace(-50, 50, width), labels


def judge(train: Labelled, strength: float) -> Pipeline:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=10_000, tol=1e-8))
    return model.fit(train[0].double().numpy(), train[1].numpy())


def test_probabilities_are_those_of_a_fit_from_the_start() -> None:
    train, val, more = draw(300, 0), draw(100, 1), draw(50, 2)
    for strength in STRENGTHS:
        fit = fit_logistic(train, val, 3, strengths=(strength,))
        assert fit.strength == strength
        assert fit.converged
        expected = judge(train, strength).predict_proba(more[0].double().numpy())
        assert np.allclose(fit.predict(more[0]).softmax(1).numpy(), expected, atol=5e-3)


def test_the_strength_that_validation_prefers_is_chosen() -> None:
    # Few images with much noise want strong regularisation, many with little noise want little.
    chosen = []
    for train, val in ((draw(30, 0, noise=3, width=40), draw(800, 1, noise=3, width=40)), (draw(400, 0), draw(800, 1))):
        accuracies = [judge(train, strength).score(val[0].numpy(), val[1].numpy()) for strength in STRENGTHS]
        fit = fit_logistic(train, val, 3, strengths=STRENGTHS)
        assert fit.val_accuracy == pytest.approx(max(accuracies), abs=0.004)
        assert accuracies[STRENGTHS.index(fit.strength)] > max(accuracies) - 0.004
        assert fit.accuracy(val) == pytest.approx(fit.val_accuracy)
        chosen.append(fit.strength)
    assert chosen[0] != chosen[1]


def test_of_equals_the_strongest_regularisation_is_taken() -> None:
    train, val = draw(60, 0, noise=0.01), draw(60, 1, noise=0.01)
    assert fit_logistic(train, val, 3, strengths=(100.0, 1.0, 10.0)).strength == 1.0


def test_a_path_goes_on_over_equals_and_ends_below_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of unequal classes the commonest wins until C lets the features speak: equal scores are no reason to stop.
    train, val = draw(400, 0, classes=2, noise=0.5), draw(400, 1, classes=2, noise=0.5)
    few = (train[1] == 1).nonzero()[:4, 0]
    rows = torch.cat([(train[1] == 0).nonzero()[:, 0], few])
    fit = fit_logistic((train[0][rows], train[1][rows]), val, 2, strengths=(1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1.0))
    assert fit.strength >= 1e-3
    assert fit.val_accuracy > 0.9

    tried: list[float] = []
    scores = iter([0.5, 0.7, 0.6, 0.7, 0.6, 0.65, 0.9])
    monkeypatch.setattr(logistic, "share_right", lambda *_: next(scores))
    monkeypatch.setattr(logistic._Path, "go_on", lambda _, strength: tried.append(strength) or True)
    best = fit_logistic(train, val, 2)
    assert tried == [1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]
    assert best.strength == 1e-3


def test_fewer_images_than_features_are_no_approximation() -> None:
    train, val = draw(40, 0, width=100), draw(60, 1, width=100)
    fit = fit_logistic(train, val, 3, strengths=(0.1,))
    expected = judge(train, 0.1).predict_proba(val[0].double().numpy())
    assert np.allclose(fit.predict(val[0]).softmax(1).numpy(), expected, atol=5e-3)


def test_wide_features_are_cut_to_their_principal_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "DIRECTIONS", 12)
    generator = torch.Generator().manual_seed(0)
    turn = torch.randn(8, 90, generator=generator)

    def wide(labelled: Labelled) -> Labelled:
        rest = 0.01 * torch.randn(len(labelled[0]), 90, generator=generator)
        return labelled[0] / torch.logspace(-2, 2, 8) @ turn + rest, labelled[1]

    train, val = wide(draw(400, 0)), wide(draw(200, 1))
    before = torch.get_rng_state()
    fit = fit_logistic(train, val, 3, strengths=(1.0,))
    assert torch.equal(torch.get_rng_state(), before)
    assert fit.weight.shape == (3, 90)
    expected = judge(train, 1.0).score(val[0].numpy(), val[1].numpy())
    assert fit.accuracy(val) == pytest.approx(expected, abs=0.02)
    assert fit.accuracy(val) == fit.val_accuracy


@pytest.mark.parametrize("missing", [(), (0,), (2,), (4,), (0, 3), (1, 2, 4)])
def test_columns_are_classes_also_where_some_were_never_seen(missing: tuple[int, ...]) -> None:
    features, labels = draw(500, 0, classes=5, noise=0.3)
    seen = ~torch.isin(labels, torch.tensor(missing))
    train = features[seen], labels[seen]
    fit = fit_logistic(train, train, 5)
    probabilities = fit.predict(features).softmax(1)
    assert probabilities.shape == (500, 5)
    assert torch.allclose(probabilities.sum(1), torch.ones(500))
    assert (probabilities[:, list(missing)] == 0).all()
    assert (probabilities.argmax(1)[seen] == labels[seen]).float().mean() > 0.97


def test_a_feature_that_did_not_vary_in_training_stays_harmless() -> None:
    train, val = draw(200, 0, noise=0.3), draw(200, 1, noise=0.3)
    dead = torch.full((200, 1), 0.1)
    with_dead = torch.cat([train[0], dead], 1), train[1]
    fit = fit_logistic(with_dead, (torch.cat([val[0], dead], 1), val[1]), 3)
    assert fit.scale[-1] == 1
    # It comes to life on other images.
    assert fit.accuracy((torch.cat([val[0], dead + 0.5], 1), val[1])) > 0.97


def test_a_fit_that_did_not_converge_says_so_and_warns_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    train, val = draw(300, 0), draw(100, 1)
    monkeypatch.setattr(logistic, "MOST_ITERATIONS", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not fit_logistic(train, val, 3, strengths=(1.0,)).converged


def test_one_class_is_refused() -> None:
    features, labels = draw(10, 0)
    with pytest.raises(ValueError, match="10 training images are all of one class"):
        fit_logistic((features, torch.ones_like(labels)), (features, labels), 3)
