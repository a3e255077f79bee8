"""Gradients of the ring and of Izhikevich's cells: the surrogates' definition by hand, and finite differences."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.core.random import stream
from jneuro.simulators import Arctan, SuperSpike, first_state, simulate, stimuli
from jneuro.simulators.cells import Izhikevich
from jneuro.simulators.ring import RingNetwork
from jneuro.simulators.solvers import SequentialEuler

KEY = jax.random.key(2)
STEPS = 300


def super_spike(x):
    return 0.02 / (1 + 0.7 * np.abs(x)) ** 2


def arctan(x):
    return 0.05 * 0.4 / (1 + (np.pi * 0.8 * x / 2) ** 2)


SURROGATES = {
    "super spike": (SuperSpike(beta=0.7, scale=0.02), super_spike),
    "arctan": (Arctan(alpha=0.8, scale=0.05), arctan),
}


class Dual:
    """A number with its tangents, `[parameter, ...]`: the rules of differentiation, spelled out."""

    __array_ufunc__ = None

    def __init__(self, value, tangent):
        self.value, self.tangent = np.asarray(value, float), np.asarray(tangent, float)

    @staticmethod
    def of(x):
        return x if isinstance(x, Dual) else Dual(x, 0.0)

    def __add__(self, other):
        other = Dual.of(other)
        return Dual(self.value + other.value, self.tangent + other.tangent)

    def __mul__(self, other):
        other = Dual.of(other)
        return Dual(self.value * other.value, self.tangent * other.value + self.value * other.tangent)

    def __truediv__(self, other):
        other = Dual.of(other)
        return self * Dual(1 / other.value, -other.tangent / other.value**2)

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + -Dual.of(other)

    def __rsub__(self, other):
        return Dual.of(other) + -self

    __radd__, __rmul__ = __add__, __mul__

    def exp(self):
        return Dual(np.exp(self.value), np.exp(self.value) * self.tangent)

    def through(self, matrix):
        """Sum over what is heard."""
        return Dual(self.value @ matrix, self.tangent @ matrix)

    def where(self, condition, other):
        return Dual(np.where(condition, self.value, other.value), np.where(condition, self.tangent, other.tangent))


def duals(values, names, shape):
    """Each parameter with the tangent 1 with respect to itself."""
    eye = np.eye(len(names)).reshape(len(names), len(names), *(1,) * len(shape))
    return {n: Dual(np.full(shape, values[n]), eye[i] * np.ones((1, *shape))) for i, n in enumerate(names)}


def spiked(above, slope, awake, detach):
    """The spike, with the surrogate's tangent where the neuron is awake, and the gate of its reset."""
    fired = (awake & (above.value >= 0)).astype(float)
    spike = Dual(fired, np.where(awake, slope(above.value) * above.tangent, 0.0))
    return spike, Dual(fired, 0 * spike.tangent if detach else spike.tangent)


def reduced(trace, spikes):
    """Mean potential and mean of the spikes, with their tangents."""
    count = len(trace)
    return [
        (sum(x.value.mean() for x in part) / count, sum(x.tangent.mean(-1) for x in part) / count)
        for part in (trace, spikes)
    ]


RING = ["tau_m", "v_reset", "v_threshold", "j_ee", "j_ei", "j_ie", "j_ii", "kick", "amplitude"]
RING_PARAMETERS = {
    "delta": RING,
    "current": [*RING, "tau_external", "tau_e", "tau_i"],
    "conductance": [*RING, "tau_external", "tau_e", "tau_i", "v_e", "v_i"],
}


def ring(synapse, **settings):
    return RingNetwork.xiao_lin(
        synapse,
        positions=6,
        sparsity=2,
        j_ee=0.1,
        j_ie=0.08,
        j_ei=0.06,
        j_ii=0.05,
        refractory=1.5,
        dt=0.5,
        external_cap=10,
        **settings,
    )


def ring_drive(amplitude):
    return stimuli.Sine(amplitude * jnp.linspace(0.5, 1.5, 12), 20.0) + stimuli.Constant(amplitude)


def ring_means(sim, theta, gradient):
    changed = {n: x for n, x in theta.items() if n != "amplitude"}
    rec = simulate(
        dataclasses.replace(sim, **changed),
        ring_drive(theta["amplitude"]),
        duration=STEPS * sim.dt,
        key=KEY,
        throw=False,
        spike_gradient=gradient,
    )
    return jnp.stack([rec.values["v"].mean(), rec.values["spikes"].mean()])


def ring_by_hand(sim, theta, slope, detach):
    names, n, dt = RING_PARAMETERS[sim.synapse], 12, sim.dt
    p = duals(theta, names, (n,))
    heard = np.asarray(sim.adjacency, float)
    external = np.asarray(jax.vmap(lambda step: sim.draw(stream(KEY, "noise"), step))(jnp.arange(STEPS)))
    shape = np.asarray(jax.vmap(ring_drive(1.0))(jnp.arange(STEPS) * dt))
    e, none = (np.arange(n) < 6).astype(float), Dual(np.zeros(n), np.zeros((len(names), n)))
    v, spikes, frozen = none + np.asarray(first_state(sim, KEY).y.v), none, np.zeros(n, int)
    # The first potentials are fixed in the run: they are drawn between reset and threshold, and have their tangents.
    drawn = (v.value - theta["v_reset"]) / (theta["v_threshold"] - theta["v_reset"])
    v = p["v_reset"] + (p["v_threshold"] - p["v_reset"]) * drawn
    g = dict.fromkeys(("external", "e", "i"), none)
    trace, trains = [], []
    for k in range(STEPS):
        from_e, from_i = (spikes * e).through(heard), (spikes * (1 - e)).through(heard)
        added = {
            "external": p["kick"] * external[k],
            "e": from_e * (p["j_ee"] * e + p["j_ie"] * (1 - e)),
            "i": from_i * (p["j_ei"] * e + p["j_ii"] * (1 - e)),
        }
        x = v + (p["amplitude"] * shape[k] - v) * dt / p["tau_m"]
        if sim.synapse == "delta":
            x = x + added["external"] + added["e"] - added["i"]
        else:
            if sim.synapse == "current":
                x = x + (g["external"] + g["e"] - g["i"]) * dt
            else:
                x = x - ((g["external"] + g["e"]) * (v - p["v_e"]) + g["i"] * (v - p["v_i"])) * dt
            g = {m: (g[m] + added[m] / p["tau_" + m]) * (Dual.of(-dt) / p["tau_" + m]).exp() for m in g}
        awake = frozen == 0
        spikes, gate = spiked(x - p["v_threshold"], slope, awake, detach)
        v = (1 - gate) * x.where(awake, v) + gate * p["v_reset"]
        frozen = np.where(spikes.value > 0, round(sim.refractory / dt) - 1, np.maximum(frozen - 1, 0))
        trace, trains = [*trace, v], [*trains, spikes]
    return reduced(trace, trains)


CELL_PARAMETERS = ["capacitance", "k", "v_r", "v_t", "v_u", "a", "b", "c", "d", "v_peak", "v_initial", "amplitude"]


def cell_drive(amplitude):
    return stimuli.Sine(amplitude * jnp.linspace(0.2, 0.4, 4), 25.0) + stimuli.Constant(amplitude)


DT, PARTS = 0.5, 2


def cell_means(sim, theta, gradient):
    changed = dataclasses.replace(sim, **{n: x for n, x in theta.items() if n != "amplitude"})
    how = {"duration": 100 * DT, "dt": DT, "solver": SequentialEuler(PARTS), "spike_gradient": gradient}
    rec = simulate(changed, cell_drive(theta["amplitude"]), key=KEY, throw=False, **how)
    return jnp.stack([rec.values["v"].mean(), rec.values["spikes"].mean()])


def cells_by_hand(sim, theta, slope, detach):
    n, dt = 4, DT
    p = duals(theta, CELL_PARAMETERS, (n,))
    shape = np.asarray(jax.vmap(cell_drive(1.0))(jnp.arange(100) * dt))
    v = p["v_initial"]
    u, trace, trains = p["b"] * (v - p["v_u"]), [], []
    for k in range(100):
        for _ in range(PARTS):
            current = p["k"] * (v - p["v_r"]) * (v - p["v_t"]) - u + p["amplitude"] * shape[k]
            v = v + current / p["capacitance"] * (dt / PARTS)
        u = u + p["a"] * (p["b"] * (v - p["v_u"]) - u) * dt
        spikes, gate = spiked(v - p["v_peak"], slope, np.ones(n, bool), detach)
        v, u = (1 - gate) * v + gate * p["c"], u + gate * p["d"]
        trace, trains = [*trace, v], [*trains, spikes]
    return reduced(trace, trains)


def assert_is_the_definition(means, by_hand, theta, detach_reset):
    """Both modes against the tangents by hand; they have to differ from those of the other kind of reset."""
    known, other = by_hand(detach_reset), by_hand(not detach_reset)
    assert known[1][0] > 0.005, "there are spikes"
    assert np.all(np.abs(known[0][1] - other[0][1]).max() > 1e-4 * np.abs(known[0][1]).max()), (
        "the reset's part matters"
    )
    theta = {n: jnp.asarray(x) for n, x in theta.items()}
    for mode in (jax.jacfwd, jax.jacrev):
        slopes, seen = jax.jit(mode(lambda x: (means(x),) * 2, has_aux=True))(theta)
        np.testing.assert_allclose(seen, [known[0][0], known[1][0]], rtol=1e-9)
        for row in (0, 1):
            scale = np.abs(known[row][1]).max()
            np.testing.assert_allclose([slopes[n][row] for n in theta], known[row][1], rtol=1e-7, atol=1e-10 * scale)
    assert np.all(np.abs(known[0][1]) + np.abs(known[1][1]) > 0), "every parameter has its influence"


@pytest.mark.parametrize(
    ("synapse", "name", "detach_reset"),
    [
        pytest.param("delta", "super spike", False, marks=pytest.mark.slow),
        pytest.param("delta", "arctan", True, marks=pytest.mark.slow),
        pytest.param("current", "super spike", True, marks=pytest.mark.slow),
        ("conductance", "super spike", False),
    ],
)
def test_the_ring_s_gradient_is_the_surrogate_s_definition(synapse, name, detach_reset, x64):
    surrogate, slope = SURROGATES[name]
    sim, gradient = ring(synapse), dataclasses.replace(surrogate, detach_reset=detach_reset)
    theta = {n: 0.3 if n == "amplitude" else float(getattr(sim, n)) for n in RING_PARAMETERS[synapse]}
    assert_is_the_definition(
        lambda x: ring_means(sim, x, gradient),
        lambda detach: ring_by_hand(sim, theta, slope, detach),
        theta,
        detach_reset,
    )


@pytest.mark.parametrize(
    ("form", "name", "detach_reset"),
    [
        ("regular_spiking", "super spike", False),
        pytest.param("regular_spiking", "arctan", True, marks=pytest.mark.slow),
        ("regular_spiking_2007", "super spike", True),
    ],
)
def test_the_cells_gradient_is_the_surrogate_s_definition(form, name, detach_reset, x64):
    surrogate, slope = SURROGATES[name]
    sim, gradient = getattr(Izhikevich, form)(n=4), dataclasses.replace(surrogate, detach_reset=detach_reset)
    amplitude = 25.0 if form == "regular_spiking" else 500.0
    theta = {n: amplitude if n == "amplitude" else float(getattr(sim, n)) for n in CELL_PARAMETERS}
    assert_is_the_definition(
        lambda x: cell_means(sim, x, gradient),
        lambda detach: cells_by_hand(sim, theta, slope, detach),
        theta,
        detach_reset,
    )


def assert_central_differences(value, theta):
    """Slopes of `value`, and what it says beside, against central differences at 1e-5."""
    both = jax.jit(jax.value_and_grad(value, has_aux=True))
    (_, spikes), slopes = both(theta)
    assert spikes == 0
    for name, x in theta.items():
        step = 1e-5 * abs(x)
        up, down = (both(theta | {name: x + s * step})[0][0] for s in (1, -1))
        assert abs(slopes[name]) > 1e-7, name
        assert float(slopes[name]) == pytest.approx(float(up - down) / (2 * step), rel=1e-5), name


def weighted(rec, names):
    """Something that no symmetry makes vanish, and the number of spikes."""
    total = sum(jnp.sum(jnp.cos(jnp.arange(x.size).reshape(x.shape)) * x) for x in (rec.values[n] for n in names))
    return total, rec.values["spikes"].sum()


@pytest.mark.parametrize(
    "surrogate", [pytest.param(None, id="none"), pytest.param(SuperSpike(scale=0.0), id="flat", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("synapse", RING_PARAMETERS)
def test_a_silent_ring_s_gradient_is_that_of_finite_differences(synapse, surrogate, x64):
    sim = dataclasses.replace(ring(synapse), v_threshold=jnp.asarray(50.0))
    names = [n for n in RING_PARAMETERS[synapse] if n not in ("v_threshold", "v_reset", "j_ee", "j_ei", "j_ie", "j_ii")]
    # Spikes that are under way before the first step, so that the weights count.
    state = first_state(sim, KEY).y
    state = state._replace(
        v=jnp.linspace(0, 1, 12), sent=jnp.arange(12) % 5 == 0 if surrogate is None else jnp.ones(12)
    )
    weights = ["j_ee", "j_ei", "j_ie", "j_ii"]
    theta = {n: 0.3 if n == "amplitude" else float(getattr(sim, n)) for n in [*names, *weights]}
    for unused in {"delta": ["tau_external", "tau_e", "tau_i"], "current": [], "conductance": []}[synapse]:
        theta.pop(unused, None)

    def value(theta):
        changed = dataclasses.replace(sim, **{n: x for n, x in theta.items() if n != "amplitude"})
        how = {"duration": 50.0, "key": KEY, "initial_state": state, "throw": False, "spike_gradient": surrogate}
        rec = simulate(changed, ring_drive(theta["amplitude"]), **how)
        return weighted(rec, ("v", "excitation", "inhibition"))

    assert_central_differences(value, theta)


@pytest.mark.parametrize(
    "surrogate", [pytest.param(None, id="none"), pytest.param(SuperSpike(scale=0.0), id="flat", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("form", ["regular_spiking", "resonator", "regular_spiking_2007"])
def test_silent_cells_gradient_is_that_of_finite_differences(form, surrogate, x64):
    sim = getattr(Izhikevich, form)(n=4)
    amplitude = 20.0 if form == "regular_spiking_2007" else 0.05
    names = [n for n in CELL_PARAMETERS if n not in ("c", "d", "v_peak")]
    theta = {n: amplitude if n == "amplitude" else float(getattr(sim, n)) for n in names}
    theta |= {"v_u": theta["v_u"] or 0.1, "v_initial": theta["v_initial"] if form != "resonator" else -62.0}

    def value(theta):
        changed = dataclasses.replace(sim, **{n: x for n, x in theta.items() if n != "amplitude"})
        how = {"duration": 30.0, "key": KEY, "throw": False, "spike_gradient": surrogate}
        rec = simulate(changed, cell_drive(theta["amplitude"]), **how)
        return weighted(rec, ("v", "u"))

    assert_central_differences(value, theta)


@pytest.mark.parametrize("synapse", RING_PARAMETERS)
def test_the_external_rate_has_the_gradient_of_its_mean(synapse, x64):
    # Counts are integers; without coupling the mean potential follows their mean.
    sim = dataclasses.replace(ring(synapse), v_threshold=jnp.asarray(1e6), j_ee=jnp.asarray(0.0))
    state = first_state(ring(synapse), KEY)

    def means(rate):
        rec = simulate(
            dataclasses.replace(sim, rate_external=rate), duration=100.0, key=KEY, initial_state=state, throw=False
        )
        return rec.values["external"].mean(), rec.values["excitation"][-1].mean()

    events, excitation = jax.jit(jax.jacrev(means))(550.0)
    assert float(events) == pytest.approx(0.5e-3, rel=1e-9)
    decay = np.exp(-0.5 / float(sim.tau_external))
    charge = 0.07 * 0.5e-3 / float(sim.tau_external) * decay * (1 - decay**200) / (1 - decay)
    assert float(excitation) == pytest.approx(0.07 * 1e-3 if synapse == "delta" else charge, rel=1e-9)


def test_more_current_more_spikes(x64):
    # A surrogate is a stand-in; the sign of the rate's slope has to be right.
    sim, gradient = Izhikevich(n=4), Arctan(alpha=0.05, scale=0.2)
    theta = {n: float(getattr(sim, n)) for n in CELL_PARAMETERS if n != "amplitude"}

    @jax.jit
    @jax.vmap
    def rate_and_slope(amplitude):
        return jax.value_and_grad(lambda x: cell_means(sim, theta | {"amplitude": x}, gradient)[1])(amplitude)

    rates, slopes = rate_and_slope(jnp.asarray([10.0, 25.0, 60.0]))
    assert np.all(np.diff(rates) > 0)
    assert np.all(slopes > 0)
