"""Permutation importance and integrated gradients of models whose answers can be written down."""

import jax.numpy as jnp
import numpy as np
import pytest
from evaluation_problems import cut
from flax import nnx

from jneuro.evaluation.attribution import input_groups, integrated_gradients, members, permuted_errors, shuffled_within
from jneuro.models.base import Prediction

RNG = np.random.default_rng(0)
NEURONS, LENGTH = 3, 4
WINDOWS = cut(RNG.normal(size=(6, 40, NEURONS)), length=LENGTH)
STARTS = np.asarray(WINDOWS.starts["test"])
RUNS = STARTS // WINDOWS.frames_per_trial
TARGET = np.arange(len(STARTS)) % NEURONS


class Polynomial(nnx.Module):
    """The weighted sum of all inputs, to a power."""

    def __init__(self, power):
        self.weight = nnx.Param(jnp.asarray(RNG.normal(size=(LENGTH, NEURONS, NEURONS)), jnp.float32))
        self.power = power

    def __call__(self, batch, *, train):
        return Prediction((jnp.einsum("btf,tfn->bn", batch.inputs, self.weight[...]) ** self.power)[:, None])


def gathered():
    batch = WINDOWS.gather(jnp.asarray(STARTS))
    return np.asarray(batch.inputs, float), np.asarray(batch.targets, float)[:, 0]


def test_other_windows_are_of_the_same_run():
    other = shuffled_within(RUNS, np.random.default_rng(1))
    assert (RUNS[other] == RUNS).all()
    assert (other != np.arange(len(RUNS))).all()
    assert sorted(other) == list(range(len(RUNS)))


def test_permuted_errors_are_those_of_mixed_windows():
    model, other = Polynomial(1), shuffled_within(RUNS, np.random.default_rng(1))
    groups = np.stack([np.zeros((len(STARTS), NEURONS), bool), RNG.random((len(STARTS), NEURONS)) < 0.5])
    found = permuted_errors(model, WINDOWS, STARTS, TARGET, groups, other, batch_size=7)
    inputs, truth = gathered()
    for group, errors in zip(groups, found, strict=True):
        mixed = np.where(group[:, None], inputs[other], inputs)
        said = np.einsum("btf,tfn->bn", mixed, np.asarray(model.weight[...]))
        expected = (said - truth)[np.arange(len(STARTS)), TARGET] ** 2
        np.testing.assert_allclose(errors, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("power", "steps"), [(1, 2), (3, 2)])
def test_integrated_gradients_add_up_and_are_the_closed_form(power, steps):
    model = Polynomial(power)
    groups = np.stack(
        [np.ones((len(STARTS), NEURONS), bool), np.tile(np.eye(NEURONS, dtype=bool)[0], (len(STARTS), 1))]
    )
    found = integrated_gradients(model, WINDOWS, STARTS, TARGET, groups, steps, batch_size=8)
    np.testing.assert_allclose(found.explained, found.change, rtol=1e-3, atol=1e-4)
    # Of (w·x)ᵖ, x_i has the share w_i x_i (w·x)ᵖ⁻¹; two points integrate a cubic's derivative exactly.
    inputs, _ = gathered()
    weight = np.moveaxis(np.asarray(model.weight[...], float), 2, 0)[TARGET]
    share = weight * inputs * ((weight * inputs).sum((1, 2)) ** (power - 1))[:, None, None]
    for post in range(NEURONS):
        expected = np.abs(share[post == TARGET].sum(1)).mean(0)
        np.testing.assert_allclose(found.pairs[:, post], expected, rtol=1e-3)
    np.testing.assert_allclose(found.lags[0], np.abs(share).sum(2).mean(0)[::-1], rtol=1e-3)
    np.testing.assert_allclose(found.lags[1], np.abs(share[..., 0]).mean(0)[::-1], rtol=1e-3)


def test_groups_of_inputs():
    size = 12
    populations = {"excitatory": np.arange(size) < 9, "inhibitory": np.arange(size) >= 9}
    synapse = RNG.random((2, size, size)) < 0.3
    synapse[0, :9, 4] = True  # all excitatory neurons, and itself: nobody is left to be a stranger
    groups = input_groups(populations, synapse, np.random.default_rng(2))
    self = np.eye(size, dtype=bool)
    for name, group in groups.items():
        assert group.shape == (2, size, size), name
        assert (name == "own past") == (group & self).any(), name
    np.testing.assert_array_equal(groups["all others"], groups["excitatory others"] | groups["inhibitory others"])
    for title, mask in populations.items():
        partners, strangers = groups[f"{title} partners"], groups[f"{title} strangers"]
        np.testing.assert_array_equal(partners, synapse & mask[:, None] & ~self)
        assert not (strangers & synapse).any()
        assert not strangers[:, ~mask].any()
        left = (mask[:, None] & ~self & ~synapse).sum(1)
        np.testing.assert_array_equal(strangers.sum(1), np.minimum(partners.sum(1), left))
    assert not groups["excitatory strangers"][0, :, 4].any()
    assert set(input_groups(populations, None, RNG)) == set(list(groups)[:4])
    run, target = np.array([1, 0]), np.array([3, 5])
    picked = members(groups["excitatory partners"], run, target)
    np.testing.assert_array_equal(
        picked, [groups["excitatory partners"][1, :, 3], groups["excitatory partners"][0, :, 5]]
    )
    same = members(groups["own past"][:1], run, target)
    np.testing.assert_array_equal(same, self[target])
