"""Rollout against a plain loop; what rollouts are compared with and scored by, against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jneuro.datasets.windows import Batch
from jneuro.evaluation.lyapunov import tangent_growth
from jneuro.evaluation.repetition import nearest, period, repeat_period
from jneuro.evaluation.rollouts import Sample, rollout, score_rollouts, valid_frames
from jneuro.models import Seq2SeqLSTM, Seq2SeqLSTMConfig
from jneuro.models.base import Prediction

BATCH, FRAMES = 3, 40
COLUMNS = {  # of a recording with five
    "all": {"input_columns": None, "target_columns": None, "known_columns": ()},
    "driven": {"input_columns": None, "target_columns": (0, 1, 2, 3), "known_columns": (4,)},
    "permuted": {"input_columns": (4, 0, 3), "target_columns": (3, 0), "known_columns": (2, 4)},
    "known wins": {"input_columns": (1, 3), "target_columns": None, "known_columns": (3,)},
}


class Toy(eqx.Module):
    """Linear in the window and in what is known ahead."""

    past: jax.Array
    ahead: jax.Array

    def __call__(self, batch, *, train):
        assert not train
        mean = jnp.einsum("btf,tfhc->bhc", batch.inputs, self.past)
        return Prediction(mean if batch.future is None else mean + jnp.einsum("bhk,kc->bhc", batch.future, self.ahead))


def listed(columns, key):
    return list(range(5)) if columns[key] is None else list(columns[key])


def problem(length, horizon, columns, seed=0):
    rng = np.random.default_rng(seed)
    observed, targets = len(listed(columns, "input_columns")), len(listed(columns, "target_columns"))
    past = rng.normal(size=(length, observed, horizon, targets)) / np.sqrt(length * observed)
    ahead = rng.normal(size=(len(columns["known_columns"]), targets))
    return Toy(jnp.asarray(past), jnp.asarray(ahead)), rng.normal(size=(BATCH, FRAMES, 5))


def plain_loop(toy, recording, length, horizon, steps, columns):
    """Write the predictions, then what is known, over a recording; read each window from there."""
    predicted, known = listed(columns, "target_columns"), list(columns["known_columns"])
    recording, out = recording.copy(), []
    past, ahead = np.asarray(toy.past), np.asarray(toy.ahead)
    for t in range(length, length + steps, horizon):
        window = recording[:, t - length : t, listed(columns, "input_columns")]
        mean = np.einsum("btf,tfhc->bhc", window, past) + recording[:, t : t + horizon][..., known] @ ahead
        truth = recording[:, t : t + horizon, known].copy()
        recording[:, t : t + horizon, predicted] = mean
        recording[:, t : t + horizon, known] = truth
        out.append(mean)
    return np.concatenate(out, axis=1)[:, :steps]


def arguments(recording, length, steps, columns):
    known = list(columns["known_columns"])
    driving = jnp.asarray(recording[:, length : length + steps, known]) if known else None
    return jnp.asarray(recording[:, :length, listed(columns, "input_columns")]), driving, steps


@pytest.mark.parametrize(
    ("length", "horizon", "steps", "kind"),
    [
        (1, 1, 5, "driven"),
        (4, 4, 8, "all"),
        (4, 4, 10, "driven"),
        (4, 4, 3, "driven"),
        (6, 2, 9, "permuted"),
        (4, 1, 6, "known wins"),
        (3, 7, 18, "permuted"),
        (3, 7, 18, "all"),
    ],
)
def test_equals_a_plain_loop(x64, length, horizon, steps, kind):
    columns = COLUMNS[kind]
    toy, recording = problem(length, horizon, columns)
    size = 2 if (length, horizon) == (4, 4) else None
    horizons = range(1, horizon + 1)
    ours = rollout(toy, *arguments(recording, length, steps, columns), horizons=horizons, batch_size=size, **columns)
    assert ours.shape == (BATCH, steps, len(listed(columns, "target_columns")))
    np.testing.assert_allclose(ours, plain_loop(toy, recording, length, horizon, steps, columns), 1e-10, 1e-12)


def build(seed=0):
    config = Seq2SeqLSTMConfig(features=5, outputs=4, length=6, horizons=6, hidden=7, layers=1)
    return Seq2SeqLSTM(config, rngs=nnx.Rngs(seed))


def feed_back(model, inputs, driving):
    """Two windows and a half, by hand."""
    first = model(Batch(inputs, inputs), train=False).mean
    window = jnp.concatenate([first, driving[:, :6]], axis=2)
    second = model(Batch(window, window), train=False).mean
    window = jnp.concatenate([second, driving[:, 6:12]], axis=2)
    return jnp.concatenate([first, second, model(Batch(window, window), train=False).mean[:, :3]], axis=1)


def roll(model, inputs, driving, **options):
    return rollout(model, inputs, driving, 15, horizons=range(1, 7), **COLUMNS["driven"], **options)


def draw_driven(seed):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((BATCH, 6, 5), (BATCH, 15, 1)))


def test_a_model_is_compiled_once_and_nothing_goes_through_the_host(monkeypatch):
    traced, call = [], Seq2SeqLSTM.__call__
    monkeypatch.setattr(Seq2SeqLSTM, "__call__", lambda *args, **kwargs: traced.append(1) or call(*args, **kwargs))
    expected = jax.jit(feed_back, static_argnums=0)(model := build(), *draw_driven(0))
    np.testing.assert_allclose(roll(model, *draw_driven(0)), expected, 1e-5, 1e-6)
    compiled, other, arrays = len(traced), build(1), draw_driven(1)
    assert compiled <= 3 + 2, "the loop is traced, not unrolled"
    with jax.transfer_guard("disallow"):
        assert np.all(roll(other, *arrays) != expected)
    assert len(traced) == compiled


def test_under_jit_with_gradients():
    model, (inputs, driving) = build(), draw_driven(0)
    weight = jnp.asarray(np.random.default_rng(2).normal(size=(BATCH, 15, 4)), jnp.float32)

    @jax.jit
    def gradients(inputs, driving):
        return [
            jax.grad(lambda x, i, function=function: jnp.sum(weight * function(model, x, i)), (0, 1))(inputs, driving)
            for function in (roll, feed_back)
        ]

    ours, expected = gradients(inputs, driving)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-5)
    # Of the last window the three predictions that are kept have read the newest three currents, and nothing later.
    np.testing.assert_array_equal(
        np.any(ours[1] != 0, axis=(0, 2)), [*[True] * 6, *[False] * 3, *[True] * 3, *[False] * 3]
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"horizons": (1, 2, 4)}, r"horizons 1, 2, … without gaps, got \(1, 2, 4\)"),
        ({"horizons": (2, 3)}, r"without gaps, got \(2, 3\)"),
        ({"horizons": (-1, 0)}, r"without gaps, got \(-1, 0\)"),
        ({"horizons": ()}, r"without gaps, got \(\)"),
        ({"horizons": (1, 2), "driving": None, "known_columns": ()}, "predicts 4 horizons, but 2 are named"),
        ({"steps": 0}, "at least 1, got 0 and None"),
        ({"batch_size": 0}, "at least 1, got 8 and 0"),
        ({"driving": None}, r"driving must be \(3, 8, 1\), the known columns \(4,\) at every step, got None"),
        ({"steps": 9}, r"driving must be \(3, 9, 1\), .*, got \(3, 8, 1\)"),
        ({"target_columns": (0, 1, 2)}, r"target_columns \(0, 1, 2\) are 3, but the predictor has 4"),
        ({"input_columns": (0, 1)}, r"input_columns \(0, 1\) are 2, but the predictor has 5"),
        ({"driving": None, "known_columns": ()}, "input column 4 is neither predicted nor known ahead"),
    ],
)
def test_what_cannot_be_rolled_out(change, match):
    toy, recording = problem(4, 4, COLUMNS["driven"])
    inputs, driving, steps = arguments(recording, 4, 8, COLUMNS["driven"])
    known = {"inputs": inputs, "driving": driving, "steps": steps, "horizons": (1, 2, 3, 4)} | COLUMNS["driven"]
    with pytest.raises(ValueError, match=match):
        rollout(toy, **known | change)


@pytest.mark.parametrize("length", [37.0, 61.4, 250.7])
def test_last_period_of_a_sine(length):
    at = 2 * np.pi * np.arange(3000) / length
    wave = np.stack([np.sin(at), np.cos(at) + 3], 1)
    lag = period(wave[:1000, 0])
    assert abs(lag / length - round(lag / length)) < 1e-4 * round(lag / length)
    error = repeat_period(wave[:1000], lag, 2000) - wave[1000:]
    # The straight line between frames is off by (2π / length)² / 8 at most; the rest is the period's own error.
    assert np.abs(error).max() < (2 * np.pi / length) ** 2 / 8 + 2e-2


def test_last_period_drifts():
    wave = np.sin(2 * np.pi * np.cumsum(1 / (60 + np.minimum(np.arange(2000), 1500) / 100)))
    assert np.isclose(period(wave) / 75, np.round(period(wave) / 75), atol=2e-3)
    assert period(np.full(100, 2.0)) == 1
    np.testing.assert_array_equal(repeat_period(np.full((9, 2), 2.0), 1.0, 5), np.full((5, 2), 2.0))


def test_nearest():
    rng = np.random.default_rng(0)
    candidates, queries = rng.normal(size=(50, 3)), rng.normal(size=(7, 3))
    want = np.square(queries[:, None] - candidates).sum(2).argmin(1)
    np.testing.assert_array_equal(nearest(jnp.asarray(candidates), jnp.asarray(queries)), want)


def test_exponent_of_a_linear_system():
    matrix = jnp.asarray([[0.9, 1.0], [0.0, 0.5]])
    growth = tangent_growth(lambda y: matrix @ y, jnp.ones(2), jnp.ones(2), 400)
    assert growth[100:].mean() == pytest.approx(np.log(0.9), abs=1e-5)


def test_exponent_of_the_logistic_map(x64):
    step = lambda y: {"x": 4 * y["x"] * (1 - y["x"])}  # noqa: E731
    growth = jax.jit(lambda y: tangent_growth(step, {"x": y}, {"x": jnp.ones(())}, 20_000))(jnp.asarray(0.3))
    assert growth.mean() == pytest.approx(np.log(2), abs=5e-3)


def test_scores_of_a_shifted_forecast():
    values = np.zeros((2, 60, 3), np.float32)
    values[0, 22::10, 0] = 40  # spikes every 10 frames
    values[..., :2] -= 20
    sample = Sample(values, np.arange(2), np.array([0, 0, 1]), np.array([19, 20, 21]))
    scale, dt, steps = np.array([10.0, 2.0]), 0.5, 30

    def predict(index):
        return sample.cut(index, 1, steps)[..., :2] + np.array([0.0, 3.0])

    scores = score_rollouts(
        predict, sample, scale, dt, steps, batch_size=2, valid_error=1.0, tolerance=1.0, tau=5.0, cost=1.0
    )  # fmt: skip
    np.testing.assert_allclose(scores.squared, np.broadcast_to([0, 2.25], (2, 15, 2)), atol=1e-12)
    found = scores.by_current
    np.testing.assert_allclose(found["coincidence"], 1)
    np.testing.assert_allclose(found["spikes"], [3, 0])
    np.testing.assert_allclose([found["van_rossum"], found["victor_purpura"]], 0, atol=1e-12)
    # √(2.25 / 2) > 1 at once; a limit above it is never exceeded.
    np.testing.assert_array_equal(found["valid_ms"], 0)
    error = np.broadcast_to(np.array([0.0, 1.5]), (1, 30, 2))
    np.testing.assert_array_equal(valid_frames(error, 1.1), 30)
