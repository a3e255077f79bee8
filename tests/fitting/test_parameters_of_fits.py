"""Trainable parameters: bounds, unconstrained numbers, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.fitting import Trainable
from jneuro.simulators import Brunel, HodgkinHuxley

INF = math.inf
BOUNDS = {
    "lower bound": ((0.0, INF), 36.0),
    "lower bound above zero": ((1.0, INF), 36.0),
    "upper bound": ((-INF, 10.0), -77.0),
    "positive": ((1.0, 100.0), 36.0),
    "from zero": ((0.0, 100.0), 36.0),
    "of both signs": ((-100.0, 50.0), -77.0),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "value"), BOUNDS.values(), ids=BOUNDS)
def test_values_and_unconstrained_numbers_are_each_others_inverse(bounds, value):
    trainable = Trainable(("x",), (bounds,), (abs(value),))
    q = trainable.unconstrain(jnp.asarray([value]))
    np.testing.assert_allclose(trainable.constrain(q), [value], rtol=1e-12)
    far = jnp.linspace(-20, 20, 41)[:, None] + q[None]
    values = np.asarray(trainable.constrain(far))[:, 0]
    assert np.all(np.diff(values) >= 0)
    assert np.all((values >= bounds[0]) & (values <= bounds[1]))
    slope = jax.jacfwd(trainable.constrain)(q)
    assert np.isfinite(slope).all()
    assert slope[0, 0] > 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("bounds", "value"), BOUNDS.values(), ids=BOUNDS)
def test_a_value_at_its_bound_is_moved_inside(bounds, value):
    trainable = Trainable(("x",), (bounds,), (abs(value),))
    for end in bounds:
        if math.isfinite(end):
            q = trainable.unconstrain(jnp.asarray([end]))
            assert np.isfinite(q).all()
            assert bounds[0] < trainable.constrain(q)[0] < bounds[1]


@pytest.mark.usefixtures("x64")
def test_values_go_in_and_come_out():
    cell = HodgkinHuxley()
    trainable = Trainable.of(cell, {"g_k": None, "e_l": (-80, -40)})
    changed = trainable.insert(cell, jnp.asarray([20.0, -60.0]))
    np.testing.assert_array_equal(trainable.values(changed), [20.0, -60.0])
    assert (changed.g_k, changed.e_l, changed.g_na) == (20.0, -60.0, cell.g_na)
    q = jnp.stack([trainable.unconstrain(trainable.values(c)) for c in (cell, changed)])
    np.testing.assert_allclose(trainable.constrain(q)[1], [20.0, -60.0], rtol=1e-12)


CELL = HodgkinHuxley()
REFUSED = {
    "nothing": (CELL, [], "at least one"),
    "unknown": (CELL, ["g_nb"], "did you mean 'g_na'"),
    "structural": (Brunel(), ["n_e"], "unknown parameter 'n_e'"),
    "without bounds": (CELL, ["e_na"], "e_na has no bounds.*{e_na: \\[lower, upper\\]}"),
    "a word": (CELL, "g_na", r"trainable = 'g_na' must be a list, as in \['g_na'\]"),
    "none": (CELL, None, "trainable = None must be a list of parameters, or map them to bounds"),
    "a number": (CELL, 3, "trainable = 3 must be a list of parameters"),
    "numbers": (CELL, [3], r"trainable = \[3\] must be a list of parameters"),
    "lists": (CELL, [["g_na"]], r"trainable = \[\['g_na'\]\] must be a list of parameters"),
    "mappings": (CELL, ["g_k", {"g_na": None}], "must be a list of parameters, or map them to bounds"),
    "one bound": (CELL, {"g_na": 3}, r"the bounds of g_na must be two numbers, \[lower, upper\], got 3"),
    "a bound alone": (CELL, {"g_na": (3,)}, r"two numbers, \[lower, upper\], got \(3,\)"),
    "three bounds": (CELL, {"g_na": (3, 200, 5)}, "two numbers"),
    "bounds in words": (CELL, {"g_na": ("a", "b")}, "two numbers"),
    "half a pair": (CELL, {"g_na": (None, 200)}, "two numbers"),
    "wrong order": (CELL, {"g_na": (200, 100)}, "lower one must come first"),
    "outside the declared ones": (CELL, {"g_na": (-1, 200)}, "leave \\[0, inf\\)"),
    "value outside": (CELL, {"g_na": (1, 100)}, "g_na = 120 lies outside"),
    "an element outside": (HodgkinHuxley(g_na=np.asarray([100.0, 0.5])), {"g_na": (1, 200)}, "g_na.1. = 0.5 lies out"),
}


@pytest.mark.parametrize(("simulator", "names", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(simulator, names, message):
    with pytest.raises(ValueError, match=message):
        Trainable.of(simulator, names)
