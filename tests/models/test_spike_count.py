"""The spike-count LSTM: rates that stay positive and finite, and a likelihood that finds the mean."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.datasets.windows import Batch, Scaling, Windows
from jneuro.models import SpikeCountLSTM, SpikeCountLSTMConfig
from jneuro.models.base import Prediction
from jneuro.models.build import initialised
from jneuro.models.spike_count import LOWEST_RATE
from jneuro.training import LOSSES

NEURONS = 3


def build(head, **sizes):
    config = SpikeCountLSTMConfig(features=2 * NEURONS, outputs=NEURONS, length=4, hidden=6, head=head, **sizes)
    return SpikeCountLSTM(config, rngs=nnx.Rngs(0))


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(graph, params, rest, inputs, count):
    def loss(params):
        mean = nnx.merge(graph, params, rest, copy=True)(Batch(inputs, inputs), train=False).mean
        return LOSSES["poisson"](Prediction(mean), Batch(inputs, jnp.full_like(mean, count))).mean(), mean

    return jax.value_and_grad(loss, has_aux=True)(params)


def test_rates_and_likelihood_stay_finite():
    model, inputs = build("poisson"), jnp.ones((2, 4, 2 * NEURONS))
    model.output_layer.kernel[...] *= 0
    for bias in (-1e4, -100.0, -3.0, 0.0, 100.0, 1e4):
        model.output_layer.bias[...] = jnp.full(NEURONS, bias)
        for count in (0.0, 1.0, 30.0):
            (value, mean), grads = value_and_gradients(*nnx.split(model, nnx.Param, ...), inputs, count)
            np.testing.assert_allclose(mean, np.logaddexp(bias, 0) + LOWEST_RATE, 1e-5)
            assert np.isfinite(value)
            assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))


def test_the_heads_differ_by_a_softplus():
    inputs = jnp.ones((2, 4, 2 * NEURONS))
    rate, mean = (jax.jit(lambda x, h=h: build(h)(Batch(x, x), train=False).mean)(inputs) for h in ("poisson", "mse"))
    np.testing.assert_allclose(rate, np.logaddexp(mean, 0) + LOWEST_RATE, 1e-5)
    assert np.any(mean < 0)


def test_learns_which_neuron_fires():
    """Each neuron's mean count in the next bin is its external input in the last: 0.1, or 2."""
    rng = np.random.default_rng(0)
    external = rng.choice([0.1, 2.0], (256, 4, NEURONS))
    inputs = jnp.asarray(np.concatenate([rng.poisson(1.0, external.shape), external], axis=2), jnp.float32)
    batch = Batch(inputs, jnp.asarray(rng.poisson(external[:, -1:]), jnp.float32))
    graph, params, rest = nnx.split(build("poisson"), nnx.Param, ...)

    def loss(params):
        prediction = nnx.merge(graph, params, rest, copy=True)(batch, train=True)
        return LOSSES["poisson"](prediction, batch).mean(), prediction.mean

    @jax.jit
    def descend(params):
        def step(_, state):
            params, velocity, _ = state
            (_, mean), grads = jax.value_and_grad(loss, has_aux=True)(params)
            velocity = jax.tree.map(lambda v, g: 0.9 * v - 0.1 * g, velocity, grads)
            return jax.tree.map(jnp.add, params, velocity), velocity, mean

        start = params, jax.tree.map(jnp.zeros_like, params), jnp.zeros_like(batch.targets)
        return jax.lax.fori_loop(0, 150, step, start)[2]

    error = np.asarray(descend(params)) - external[:, -1:]
    assert np.mean(error**2) < 0.25 * np.var(external)


def test_starts_at_the_means_of_its_training_targets():
    values = np.random.default_rng(0).poisson(0.3, (60, NEURONS + 2)).astype(np.float32)
    starts = {"train": jnp.arange(0, 40, 3), "validation": jnp.arange(45, 50)}
    scaling = Scaling(np.zeros(NEURONS + 2, np.float32), np.ones(NEURONS + 2, np.float32))
    columns = tuple(range(1, NEURONS + 1))
    data = Windows(jnp.asarray(values), starts, scaling, 4, (1,), 1.0, 60, False, target_columns=columns)
    model = initialised(build("mse"), data)
    means = values[np.asarray(starts["train"]) + 4][:, 1 : NEURONS + 1].mean(0)
    np.testing.assert_array_equal(model.output_layer.bias[...], means)
    assert initialised(data, data) is data, "what has no such method stays as it is"


def test_starts_at_the_data_and_hears_its_own_past():
    mean = jnp.asarray([[0.09, 2.0, 0.0]])
    for head, tolerance in (("poisson", 2e-6), ("mse", 0)):
        model = build(head, own_hidden=5, kernel_init="zeros")
        model.start_at(mean)
        out = model(Batch(jnp.ones((2, 4, 2 * NEURONS)), mean), train=False).mean
        floor = 1e-3 if head == "poisson" else 0
        np.testing.assert_allclose(out, np.broadcast_to(np.maximum(mean, floor), out.shape), 1e-5, tolerance)
    # Without the LSTM, a neuron's mean depends on its own two columns and on no others.
    last = model.own[1]
    last.kernel[...] = jnp.ones_like(last.kernel[...])
    with jax.numpy_rank_promotion("allow"):
        slope = jax.jacobian(lambda x: model(Batch(x[None], mean), train=False).mean[0, 0])(jnp.ones((4, 2 * NEURONS)))
    heard = np.any(np.asarray(slope) != 0, axis=1)
    np.testing.assert_array_equal(heard, np.tile(np.eye(NEURONS, dtype=bool), 2))
