"""The spike function: boolean, or exact forward with a surrogate backward; and the reset."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from jneuro.simulators import Arctan, Boxcar, SuperSpike
from jneuro.simulators.spiking import Surrogate, reset, spike, spike_gradient, surrogate_in_force

X = np.array([-1e6, -30.0, -1.0, -0.26, -0.24, -1e-3, -1e-12, 0.0, 1e-12, 1e-3, 0.24, 0.26, 1.0, 30.0, 1e6])

SURROGATES = {
    "super spike": (SuperSpike(), lambda x: 1 / (1 + abs(x)) ** 2, 2.0),
    "super spike, steep": (SuperSpike(beta=10.0, scale=0.3), lambda x: 0.3 / (1 + 10 * abs(x)) ** 2, 0.06),
    "arctan": (Arctan(), lambda x: 0.5 / (1 + (np.pi * x / 2) ** 2), 1.0),
    "arctan, steep": (Arctan(alpha=4.0, scale=0.5), lambda x: 1.0 / (1 + (2 * np.pi * x) ** 2), 0.5),
    "boxcar": (Boxcar(), lambda x: float(abs(x) < 0.5), 1.0),
    "boxcar, narrow": (Boxcar(width=0.5, scale=0.1), lambda x: 0.2 * (abs(x) < 0.25), 0.1),
}


def float_spike(x, surrogate, **how):
    with spike_gradient(surrogate):
        return spike(x, **how)


@pytest.fixture(params=SURROGATES)
def case(request):
    return SURROGATES[request.param]


def test_forward_is_the_exact_step(case, x64):
    x = jnp.asarray(X)
    np.testing.assert_array_equal(float_spike(x, case[0]), (X > 0).astype(float))
    np.testing.assert_array_equal(float_spike(x, case[0], inclusive=True), (X >= 0).astype(float))


def test_type_is_that_of_the_potential(case):
    assert float_spike(jnp.float32(1.0), case[0]).dtype == jnp.float32
    assert float_spike(jnp.float16(1.0), case[0]).dtype == jnp.float16


def test_derivative_is_the_definition_in_both_modes(case, x64):
    surrogate, definition, _ = case
    expected = [definition(x) for x in X]
    np.testing.assert_allclose(surrogate.derivative(jnp.asarray(X)), expected, rtol=1e-12)
    forward = jax.vmap(lambda x: jax.jvp(lambda y: float_spike(y, surrogate), (x,), (1.0,))[1])(jnp.asarray(X))
    reverse = jax.vmap(jax.grad(lambda x: float_spike(x, surrogate)))(jnp.asarray(X))
    np.testing.assert_allclose(forward, expected, rtol=1e-12)
    np.testing.assert_allclose(reverse, expected, rtol=1e-12)


def test_area_under_the_surrogate(case):
    _, definition, area = case
    whole = sum(quad(definition, a, b, limit=200)[0] for a, b in ((-np.inf, -0.6), (-0.6, 0.6), (0.6, np.inf)))
    assert whole == pytest.approx(area, rel=1e-3)


def test_second_derivative_is_zero(case, x64):
    # The surrogate stands for a derivative; it is not differentiated itself.
    second = jax.grad(jax.grad(lambda x: float_spike(x, case[0])))(jnp.asarray(0.1))
    assert float(second) == 0.0


def test_scale_and_steepness_are_leaves(x64):
    def slope(beta):
        return jax.grad(lambda x: float_spike(x, SuperSpike(beta=beta)))(jnp.asarray(0.5))

    np.testing.assert_allclose(jax.vmap(slope)(jnp.asarray([1.0, 2.0])), [1 / 1.5**2, 1 / 4.0])


def test_without_a_gradient_spikes_are_boolean():
    assert surrogate_in_force() is None
    spikes, at = spike(jnp.asarray(X)), spike(jnp.asarray([-1.0, 0.0, jnp.nan]), inclusive=True)
    assert spikes.dtype == at.dtype == jnp.bool_
    np.testing.assert_array_equal(spikes, X > 0)
    np.testing.assert_array_equal(at, [False, True, False])
    with pytest.raises(ValueError, match=r"spike_gradient = 0\.5 must be a Surrogate, such as"), spike_gradient(0.5):
        pass


def test_a_compiled_function_follows_the_gradient_that_is_asked_for():
    traced = []

    @jax.jit
    def f(x):
        traced.append(x)
        return spike(x)

    x = jnp.float32(1.0)
    assert f(x).dtype == jnp.bool_
    for _ in range(2):
        with spike_gradient(SuperSpike(beta=0.5)):
            assert f(x).dtype == jnp.float32
    with spike_gradient(SuperSpike(beta=2.0)), spike_gradient(None):
        assert f(x).dtype == jnp.bool_
    assert len(traced) == 2


@pytest.mark.parametrize("detach", [True, False])
def test_a_reset_passes_its_gradient_or_not(detach, x64):
    def after(v, surrogate):
        with spike_gradient(surrogate):
            return reset(spike(v - 1.0), v, to=0.25)

    v = jnp.asarray([0.5, 1.5])
    surrogate = SuperSpike(detach_reset=detach)
    np.testing.assert_array_equal(after(v, None), [0.5, 0.25])
    np.testing.assert_array_equal(after(v, surrogate), [0.5, 0.25])
    through = 0.0 if detach else (0.25 - np.asarray(v)) / 1.5**2
    np.testing.assert_allclose(jax.grad(lambda v: after(v, surrogate).sum())(v), np.array([1.0, 0.0]) + through)


def test_a_surrogate_of_one_s_own():
    class Line(Surrogate):
        slope: float = 2.0

        def derivative(self, x):
            return jnp.full_like(x, self.slope)

    assert float(jax.grad(lambda x: float_spike(x, Line(3.0)))(0.5)) == 3.0
