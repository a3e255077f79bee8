"""Baselines reach the best score of the process that they are made for."""

import equinox as eqx
import jax
import numpy as np
import pytest
from evaluation_problems import cut, linear_process, linear_theory

from jneuro.evaluation import fit_baselines, forecast, forecast_scores, targets
from jneuro.evaluation.baselines import (
    ARConfig,
    LookupConfig,
    Persistence,
    VARConfig,
    check_baselines,
)

HORIZONS = (1, 2, 5)


def scores(windows, predictor):
    starts = windows.starts["test"]
    runs = np.asarray(starts) // windows.frames_per_trial
    predicted = forecast(predictor, windows, starts)
    return forecast_scores(predicted, targets(windows, starts), np.asarray(windows.scaling.scale), runs)


@pytest.fixture(scope="module")
def second_order():
    """AR(2), the same for two independent neurons."""
    lags, noise = [np.eye(2) * 1.2, np.eye(2) * -0.5], np.eye(2) * 0.7
    return cut(linear_process(lags, noise), horizons=HORIZONS), linear_theory(lags, noise, HORIZONS)


def test_the_theory_itself():
    # The variance of AR(2) in closed form.
    a, b, noise = 1.2, -0.5, 0.7
    variance, lagged, errors = linear_theory([[[a]], [[b]]], [[noise]], (1, 2))
    assert variance[0] == pytest.approx(noise * (1 - b) / ((1 + b) * ((1 - b) ** 2 - a**2)))
    assert lagged[1] / variance == pytest.approx(a / (1 - b))
    assert errors[1] == pytest.approx(noise)
    assert errors[2] == pytest.approx(noise * (1 + a**2))


@pytest.mark.parametrize("order", [2, 5])
def test_ar_reaches_the_best_score_of_an_ar_process(second_order, order):
    windows, (variance, _, errors) = second_order
    fitted = ARConfig(order=order).fit(windows)
    found = scores(windows, fitted)["per_horizon"]
    for h, r2, se in zip(HORIZONS, found["r2"], found["r2_se"], strict=True):
        assert abs(r2 - (1 - (errors[h] / variance)[0])) < 4 * se
        assert se < 0.02
    # Its coefficients are those of the process: the last two lags, newest last.
    np.testing.assert_allclose(fitted.coefficients[:, order - 2 : order, 0], [[-0.5, 1.2]] * 2, atol=0.02)


def test_one_lag_is_not_enough(second_order):
    windows, _ = second_order
    one, two = (ARConfig(order=n).fit(windows) for n in (1, 2))
    assert scores(windows, one)["r2"] < scores(windows, two)["r2"] - 0.05


def test_persistence_scores_twice_the_autocorrelation_less_one(second_order):
    windows, (variance, lagged, _) = second_order
    found = scores(windows, Persistence(len(HORIZONS), (0, 1)))["per_horizon"]
    for h, r2, se in zip(HORIZONS, found["r2"], found["r2_se"], strict=True):
        assert abs(r2 - (2 * lagged[h] / variance - 1)[0]) < 4 * se


def test_persistence_is_the_last_input(second_order):
    windows, _ = second_order
    batch = windows.gather(windows.starts["test"][:4])
    mean = Persistence(3, (0, 1))(batch).mean
    np.testing.assert_array_equal(mean, np.repeat(np.asarray(batch.inputs)[:, -1:], 3, 1))


def test_var_recovers_a_coupled_process():
    coupling = np.array([[0.5, 0.4, 0.0], [0.0, 0.3, 0.5], [-0.6, 0.0, 0.4]])
    noise = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, 0.0], [0.0, 0.0, 2.0]])
    windows = cut(linear_process([coupling], noise), horizons=HORIZONS)
    variance, _, errors = linear_theory([coupling], noise, HORIZONS)
    fitted = fit_baselines(windows, [ARConfig(order=2), {"name": "var", "order": 2}])
    found = scores(windows, fitted["var"])["per_horizon"]
    for h, r2, se in zip(HORIZONS, found["r2"], found["r2_se"], strict=True):
        assert abs(r2 - (1 - np.mean(errors[h] / variance))) < 4 * se
    assert found["r2"][0] > scores(windows, fitted["ar"])["r2"] + 0.1
    # In z-scores, A_ij becomes A_ij·s_j/s_i; the regressors are two frames of three neurons and a one.
    scale = np.asarray(windows.scaling.scale)
    np.testing.assert_allclose(fitted["var"].coefficients[:, 3:6, 0], coupling * scale / scale[:, None], atol=0.03)


def test_lookup_recovers_the_mean_given_the_present():
    # Even frames are drawn, odd frames follow from them.
    rng, runs, frames = np.random.default_rng(1), 40, 3000
    x = rng.uniform(-2, 2, (runs, frames, 1))
    x[:, 1::2] = np.cos(3 * x[:, ::2]) + 0.3 * rng.normal(size=(runs, frames // 2, 1))
    windows = cut(x, length=1, stride=2)
    lookup = LookupConfig().fit(windows)
    found = scores(windows, lookup)
    variance = x[:, 1::2].var()
    # Within a bin of width 0.04 the cosine moves by at most 0.12, so that the loss is below 0.12²/12.
    best = 1 - 0.3**2 / variance
    assert best - 0.12**2 / 12 / variance - 4 * found["r2_se"] < found["r2"] < best + 4 * found["r2_se"]
    mean, scale = np.asarray(windows.scaling.mean)[0], np.asarray(windows.scaling.scale)[0]
    centres = float(lookup.low) + float(lookup.width) * (np.arange(100) + 0.5)
    table = np.asarray(lookup.table)[:, 0] * scale + mean
    error = table - np.cos(3 * (centres * scale + mean))
    # About 420 samples in a bin.
    assert np.sqrt(np.mean(error[1:-1] ** 2)) < 1.2 * 0.3 / np.sqrt(420)
    assert scores(windows, ARConfig(order=1).fit(windows))["r2"] < 0.2


def test_lookup_takes_what_lies_beyond_into_the_outer_bins():
    windows = cut(linear_process([[[0.5]]], [[1.0]], runs=10, frames=200))
    lookup = LookupConfig(bins=10).fit(windows)
    values = np.array([-1e6, lookup.low - 1e-3, lookup.low + 1e-3, 1e6])
    assert lookup.bin(jax.numpy.asarray(values)).tolist() == [0, 0, 0, 9]


def test_fitted_on_training_windows_only():
    values = linear_process([[[0.5, 0.1], [0.0, 0.3]]], np.eye(2), runs=10, frames=200)
    windows = cut(values)
    config = [ARConfig(order=3), "lookup"]
    before = fit_baselines(windows, config)
    for split in ("validation", "test"):
        values[windows.trials(split)] = 100 * values[windows.trials(split)] ** 2
    after = fit_baselines(cut(values), config)
    assert eqx.tree_equal(before, after)
    values[windows.trials("train")[0]] *= 2
    assert not eqx.tree_equal(before, fit_baselines(cut(values), config))


@pytest.mark.parametrize("batch_size", [7, 5000])
def test_the_batch_size_changes_nothing(batch_size):
    windows = cut(linear_process([np.eye(2) * 0.8], np.eye(2), runs=10, frames=150), horizons=(1, 3))
    starts = windows.starts["test"]
    for baseline in (VARConfig(), LookupConfig(bins=20)):
        a = forecast(baseline.fit(windows), windows, starts)
        assert a.shape == (len(starts), 2, 2)
        b = forecast(baseline.fit(windows, batch_size), windows, starts, batch_size)
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_a_constant_neuron_does_no_harm():
    values = linear_process([np.eye(3) * 0.9], np.eye(3), runs=10, frames=200)
    values[..., 1] = -70
    windows = cut(values)
    for name, predictor in fit_baselines(windows, ["persistence", {"name": "ar", "order": 4}, "var", "lookup"]).items():
        predicted = forecast(predictor, windows, windows.starts["test"])
        assert np.isfinite(predicted).all(), name
        assert name == "lookup" or np.abs(predicted[..., 1]).max() < 1e-3, name
        found = scores(windows, predictor)
        assert np.isfinite([found["r2"], found["r2_se"], found["rmse"]]).all()
        assert np.isfinite(np.delete(found["per_neuron"]["r2"], 1)).all()


def test_fewer_windows_than_regressors():
    windows = cut(linear_process([np.eye(8) * 0.9], np.eye(8), runs=10, frames=12), length=10)
    predicted = forecast(VARConfig(order=8).fit(windows), windows, [0])
    assert np.isfinite(predicted).all()


@pytest.mark.parametrize("name", ["ar", "var"])
def test_an_order_longer_than_the_window_is_refused_and_a_default_shrinks(name):
    windows = cut(linear_process([[[0.5]]], [[1.0]], runs=10, frames=50), length=2)
    with pytest.raises(ValueError, match=f"{name}: order = 6 is more than the 2 frames of a window"):
        fit_baselines(windows, [{"name": name, "order": 6}])
    assert fit_baselines(windows, [name])[name].order == 2
    check_baselines([{"name": name, "order": 2}], 2)
    with pytest.raises(ValueError, match="lookup needs the targets among the inputs; use mean and var"):
        check_baselines(["mean", "lookup"], 2, observed=False)


class LastFrames:
    """A baseline of one's own: the mean of the last frames."""

    def __init__(self, frames=1):
        self.frames = frames

    def fit(self, windows):
        self.seen = windows.count("train")
        return lambda batch: batch.inputs[:, -self.frames :].mean(1, keepdims=True)


def test_a_baseline_of_ones_own_by_object_and_by_name():
    windows = cut(linear_process([[[0.5]]], [[1.0]], runs=10, frames=50))
    own, persistence = fit_baselines(windows, [LastFrames(), "persistence"]).values()
    found = [forecast(p, windows, windows.starts["test"]) for p in (own, persistence)]
    np.testing.assert_array_equal(*found)
    for given, said in {
        "arr": "unknown baseline 'arr'; did you mean 'ar'",
        "json:dumps": "'json:dumps' is no baseline: it has no method fit",
    }.items():
        with pytest.raises(ValueError, match=said):
            fit_baselines(windows, [given])
    with pytest.raises(ValueError, match=r"must be a list of mean, .* as in \[persistence"):
        fit_baselines(windows, "ar")
    with pytest.raises(ValueError, match="'ar' stands there twice"):
        fit_baselines(windows, ["ar", {"name": "ar", "order": 3}])
