"""Scores against numbers worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from evaluation_problems import cut, linear_process
from scipy.special import stdtrit

from jneuro.datasets.windows import Batch
from jneuro.evaluation import evaluate, forecast, forecast_scores, ratio_error, targets
from jneuro.models.base import Prediction


def test_scores_by_hand():
    target = np.array([[0, 0], [2, 4], [4, 8], [2, 4]], np.float32)[:, None]
    error = np.array([[1, 0], [-1, 4], [0, 0], [0, -2]], np.float32)[:, None]
    found = forecast_scores(target + error, target, np.array([3.0, 0.5]), np.array([0, 0, 1, 1]))
    # Squared errors 2 and 20, spreads 8 and 32; runs: errors 18 and 4, spreads 20 and 20.
    assert found["r2"] == pytest.approx(1 - 22 / 40)
    assert found["r2_se"] == pytest.approx(np.sqrt(2 * (7**2 + 7**2)) / 40)
    assert found["rmse_z"] == pytest.approx(np.sqrt(22 / 8))
    assert found["mae_z"] == pytest.approx(8 / 8)
    assert found["rmse"] == pytest.approx(np.sqrt((9 * 2 + 0.25 * 20) / 8))
    assert found["mae"] == pytest.approx((3 * 2 + 0.5 * 6) / 8)
    assert found["per_neuron"]["r2"] == pytest.approx([1 - 2 / 8, 1 - 20 / 32])
    assert found["per_neuron"]["rmse"] == pytest.approx([3 * np.sqrt(2 / 4), 0.5 * np.sqrt(20 / 4)])
    assert found["per_neuron"]["mae"] == pytest.approx([3 * 2 / 4, 0.5 * 6 / 4])


def test_r2_is_weighted_by_variance_and_counted_by_horizon():
    rng = np.random.default_rng(0)
    target = rng.normal(size=(50, 3, 4)) * [1, 2, 3, 4] + 5
    predicted = target + rng.normal(size=target.shape) * np.array([0.1, 0.5, 2.0])[:, None]
    found = forecast_scores(predicted, target, np.ones(4), np.arange(50))
    for h in range(3):
        single = 1 - ((predicted - target)[:, h] ** 2).sum(0) / ((target - target.mean(0))[:, h] ** 2).sum(0)
        weighted = np.average(single, weights=target[:, h].var(0))
        assert found["per_horizon"]["r2"][h] == pytest.approx(weighted)
        assert found["per_horizon"]["rmse_z"][h] == pytest.approx(found["per_horizon"]["rmse"][h])
    assert {k: v[0] for k, v in found["per_horizon"].items()} == {k: found[k] for k in found["per_horizon"]}


@pytest.mark.parametrize("constant", [0.1, 12345.678])
def test_r2_of_what_never_changes_is_not_defined(constant):
    """Whether or not the mean of its values is rounded; other neurons are not spoiled."""
    target = np.full((30, 1, 2), constant, np.float32)
    alone = forecast_scores(target + 1, target, np.ones(2), np.arange(30))
    assert np.isnan([alone["r2"], alone["r2_se"], *alone["per_neuron"]["r2"]]).all()
    assert alone["rmse"] == pytest.approx(1)
    target[:, 0, 1] = np.random.default_rng(0).normal(size=30)
    both = forecast_scores(target, target, np.ones(2), np.arange(30))
    assert both["r2"] == 1
    np.testing.assert_array_equal(both["per_neuron"]["r2"], [np.nan, 1])


def test_perfect_and_mean_forecasts():
    target = np.random.default_rng(0).normal(size=(20, 1, 3))
    runs = np.arange(20) // 5
    perfect = forecast_scores(target, target, np.ones(3), runs)
    assert (perfect["r2"], perfect["r2_se"], perfect["rmse"]) == (1, 0, 0)
    mean = forecast_scores(np.broadcast_to(target.mean(0), target.shape), target, np.ones(3), runs)
    assert mean["r2"] == pytest.approx(0, abs=1e-12)
    assert mean["r2_se"] == pytest.approx(0, abs=1e-12)


def test_one_run_has_no_standard_error():
    target = np.random.default_rng(0).normal(size=(20, 1, 3))
    assert np.isnan(forecast_scores(0 * target, target, np.ones(3), np.zeros(20))["r2_se"])


def test_ratio_error_with_equal_denominators_is_that_of_the_mean():
    a = np.random.default_rng(0).normal(size=30)
    assert ratio_error(a, np.full(30, 2.0)) == pytest.approx(a.std(ddof=1) / np.sqrt(30) / 2)
    assert np.isnan(ratio_error(a[:1], a[:1]))
    assert np.isnan(ratio_error(0 * a, 0 * a))


def test_ratio_error_against_a_bootstrap():
    rng = np.random.default_rng(0)
    b = rng.gamma(4, size=200)
    a = 0.3 * b + rng.normal(size=200) * b**0.5
    drawn = rng.integers(0, 200, (4000, 200))
    bootstrap = (a[drawn].sum(1) / b[drawn].sum(1)).std()
    assert ratio_error(a, b) == pytest.approx(bootstrap, rel=0.06)


def half(batch: Batch, *, train: bool = False) -> Prediction:
    return Prediction(0.5 * batch.inputs[:, -1:])


@pytest.fixture(scope="module")
def windows():
    return cut(linear_process([np.eye(2) * 0.5], np.eye(2), runs=20, frames=120))


def test_evaluate_compares_with_the_best_baseline_and_the_ceiling(windows):
    chosen = ["persistence", {"name": "ar", "order": 1}]
    metrics, baselines, predictions = evaluate({"half": half}, windows, baselines=chosen, ceiling={"r2": 0.4})
    assert (metrics["test"].keys(), metrics["baselines"].keys()) == ({"half"}, {"persistence", "ar"})
    ours, best, worse = metrics["test"]["half"], metrics["baselines"]["ar"], metrics["baselines"]["persistence"]
    assert best["r2"] > worse["r2"]
    assert ours["share_of_ceiling"] == pytest.approx(ours["r2"] / 0.4)
    assert ours["gain"] == pytest.approx(ours["r2"] - best["r2"], abs=1e-12)
    assert ours["skill"] == pytest.approx((ours["r2"] - best["r2"]) / (1 - best["r2"]))
    assert (best["gain"], best["comparison"].verdict, best["skill"]) == (0, "not told apart", 0)
    assert (ours["comparison"].verdict, ours["comparison"].paired_by) == ("not told apart", "run")
    assert ours["against"].keys() == {"persistence", "ar"}
    assert ours["against"]["ar"] == ours["comparison"]
    assert ours["against"]["persistence"].verdict == "better"
    assert (ours["horizons_ms"], ours["leaky"], metrics["ceiling"]) == ([1.0], False, {"r2": 0.4})
    # Paired: the two forecast nearly the same, so that their difference is known far better than either.
    low, high = ours["comparison"].ci95
    assert high - low < 0.5 * ours["r2_se"]
    starts = windows.starts["test"]
    np.testing.assert_array_equal(predictions["half"], forecast(half, windows, starts))
    np.testing.assert_allclose(
        predictions["half"][:, 0], 0.5 * np.asarray(windows.gather(starts).inputs)[:, -1], rtol=1e-6
    )
    assert set(baselines) == {"persistence", "ar"}


def test_gain_by_run(windows):
    metrics, baselines, predictions = evaluate({"half": half}, windows, baselines=["persistence"])
    starts = np.asarray(windows.starts["test"])
    target, runs = targets(windows, starts)[:, 0], starts // windows.frames_per_trial
    other = forecast(baselines["persistence"], windows, starts)[:, 0]
    gained = ((other - target) ** 2 - (predictions["half"][:, 0] - target) ** 2).sum(1)
    spread = ((target - target.mean(0)) ** 2).sum(1)
    a, b = (np.array([x[runs == r].sum() for r in np.unique(runs)]) for x in (gained, spread))
    found = metrics["test"]["half"]
    assert found["gain"] == pytest.approx(a.sum() / b.sum(), rel=1e-5)
    low, high = found["comparison"].ci95
    assert (high - low) / 2 == pytest.approx(stdtrit(len(a) - 1, 0.975) * ratio_error(a, b), rel=1e-5)
    assert found["share_of_ceiling"] is None


def test_evaluate_without_baselines(windows):
    metrics, baselines, _ = evaluate({"half": half}, windows, baselines=None)
    assert metrics["baselines"] == baselines == {}
    assert metrics["ceiling"] is None
    assert "skill" not in metrics["test"]["half"]


def test_evaluate_says_that_a_split_is_leaky():
    leaky = cut(linear_process([np.eye(2) * 0.5], np.eye(2), runs=4, frames=50), split="report")
    metrics, _, _ = evaluate({"half": half}, leaky, baselines=["persistence"])
    assert metrics["test"]["half"]["leaky"]
    assert metrics["baselines"]["persistence"]["leaky"]


@pytest.mark.parametrize("batch_size", [1, 64, 10_000])
def test_forecasts_do_not_depend_on_the_batch(windows, batch_size):
    starts = windows.starts["test"][:101]
    expected = 0.5 * windows.gather(starts).inputs[:, -1:]
    np.testing.assert_allclose(forecast(half, windows, starts, batch_size), expected, rtol=1e-6)
    np.testing.assert_array_equal(targets(windows, starts), windows.gather(jnp.asarray(starts)).targets)
