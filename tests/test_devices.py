"""The routes around what a device cannot do give the results of the ordinary one; here both run on the CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jneuro.core.devices import double_precision, on_route, route, scan
from jneuro.datasets.windows import Batch
from jneuro.models import LSTMForecasterConfig, build_model
from jneuro.models.kernels.convolution import convolve_transposed
from jneuro.simulators import (
    Brunel,
    HodgkinHuxley,
    Izhikevich,
    IzhikevichReservoir,
    RingNetwork,
    SuperSpike,
    TimeParallel,
    simulate,
    stimuli,
)
from jneuro.simulators.connectivity import Dense
from jneuro.simulators.solvers import RK4

KEY = jax.random.key(0)


def inside_loops(jaxpr, found=None, within=False):
    """Names of the primitives within loops, and the lengths of the loops."""
    names, lengths = found if found is not None else (set(), [])
    for equation in jaxpr.eqns:
        loop = equation.primitive.name in ("scan", "while")
        if within:
            names.add(equation.primitive.name)
        if equation.primitive.name == "scan":
            lengths.append((equation.params["length"], equation.params["unroll"]))
        for value in equation.params.values():
            for item in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(item, "jaxpr", item)
                if isinstance(inner, jax.extend.core.Jaxpr):
                    inside_loops(inner, (names, lengths), within or loop)
    return names, lengths


def both(function, *arguments):
    """Results on each route."""
    found = {}
    for name in ("ordinary", "metal"):
        with on_route(name):
            found[name] = function(*arguments)
    return found["ordinary"], found["metal"]


def test_the_route_is_the_device_s_unless_someone_says_otherwise(monkeypatch):
    monkeypatch.delenv("JNEURO_ROUTE", raising=False)
    assert route() == "ordinary"
    monkeypatch.setattr(jax, "default_backend", lambda: "mps")
    assert route() == "metal"
    monkeypatch.setenv("JNEURO_ROUTE", "ordinary")
    assert route() == "ordinary"
    with on_route("metal"):
        assert route() == "metal"
    monkeypatch.setenv("JNEURO_ROUTE", "vulkan")
    with pytest.raises(ValueError, match=r"'vulkan' must be one of 'ordinary', 'metal'"):
        route()


def test_what_was_compiled_on_one_route_is_not_run_on_another():
    traced = []
    compiled = jax.jit(lambda x: traced.append(route()) or x)
    both(compiled, 1.0)
    both(compiled, 2.0)
    assert traced == ["ordinary", "metal"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 64, 201])
def test_a_scan_in_chunks_is_the_scan(length, reverse):
    xs = jnp.arange(float(length)), jnp.arange(2.0 * length).reshape(length, 2)

    def run(xs):
        return scan(lambda c, x: (0.9 * c + x[0], (c, x[1].sum())), 1.0, xs, reverse=reverse)

    ordinary, metal = both(jax.jit(run), xs)
    jax.tree.map(np.testing.assert_array_equal, ordinary, metal)
    if length:
        count = scan(lambda c, _: (c + 1, None), 0, length=length)[0]
        assert count == length
    with on_route("metal"):
        lengths = inside_loops(jax.make_jaxpr(run)(xs).jaxpr)[1]
    assert all((turns <= 64 and unroll > 1) or turns <= -(-length // 64) for turns, unroll in lengths)


def networks():
    small = {"n_excitatory": 16, "n_inhibitory": 4}
    brunel = Brunel.forecasting_report(**small, propagation="bits").connect(KEY)
    reservoir = {"n_excitatory": 16, "n_inhibitory": 4, "probability_excitatory": 0.3, "probability_inhibitory": 0.3}
    return {
        "brunel": (brunel, None),
        "brunel, surrogate": (Brunel.forecasting_report(**small).connect(KEY), None),
        "ring": (RingNetwork(positions=10, sparsity=2), None),
        "izhikevich": (Izhikevich(), stimuli.Constant(10.0)),
        "reservoir": (IzhikevichReservoir(**reservoir).connect(KEY), None),
        "white noise": (Izhikevich(), stimuli.WhiteNoise(KEY, 5.0, 1.0, 40.0, 8.0)),
    }


@pytest.mark.parametrize(
    "name",
    [
        "brunel",
        pytest.param("brunel, surrogate", marks=pytest.mark.slow),
        "ring",
        "izhikevich",
        pytest.param("reservoir", marks=pytest.mark.slow),
        "white noise",
    ],
)
def test_networks_draw_before_the_loop_and_run_the_same(name, x64):
    simulator, stimulus = networks()[name]
    gradient = SuperSpike() if "surrogate" in name else None

    def run(key):
        how = {"duration": 30.0, "warmup": 9.0, "record_every": 3.0, "throw": False, "spike_gradient": gradient}
        recording = simulate(simulator, stimulus, key=key, **how)
        return recording.values, recording.final_state

    ordinary, metal = both(jax.jit(run), KEY)
    assert ordinary[0]["spikes"].sum() > 0
    for a, b in zip(jax.tree.leaves(ordinary), jax.tree.leaves(metal), strict=True):
        np.testing.assert_allclose(np.asarray(b, float), np.asarray(a, float), rtol=1e-9, atol=1e-9)
    with on_route("metal"):
        names, lengths = inside_loops(jax.make_jaxpr(run)(KEY).jaxpr)
    assert not any("random" in n or "threefry" in n for n in names)
    assert all(turns <= 64 for turns, _ in lengths)


def test_metal_has_no_loop_over_spikes_in_a_small_network():
    assert type(Brunel.forecasting_report().connect(KEY).structure) is not Dense
    with on_route("metal"):
        network = Brunel.forecasting_report().connect(KEY)
        assert type(network.structure) is Dense
        names, _ = inside_loops(
            jax.make_jaxpr(lambda k: simulate(network, duration=3.0, key=k, throw=False))(KEY).jaxpr
        )
    assert "while" not in names


@pytest.mark.parametrize(
    "solver",
    [None, pytest.param(TimeParallel(RK4(), chunk=40), marks=pytest.mark.slow)],
    ids=["default", "time parallel"],
)
def test_an_ode_and_its_gradient(solver, x64):
    cells = stimuli.Constant(jnp.linspace(5.0, 20.0, 3))

    def loss(simulator):
        recording = simulate(simulator, cells, duration=6.0, key=KEY, record_every=0.1, solver=solver, throw=False)
        return recording.values["v"].mean()

    ordinary, metal = both(jax.jit(jax.value_and_grad(loss)), HodgkinHuxley())
    for a, b in zip(jax.tree.leaves(ordinary), jax.tree.leaves(metal), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


def test_an_lstm_and_its_gradients():
    config = LSTMForecasterConfig(features=3, length=70, hidden=4, layers=1, dropout=0.0)
    graph, params, rest = nnx.split(build_model(config, rngs=nnx.Rngs(0)), nnx.Param, ...)
    inputs = jax.random.normal(KEY, (2, 70, 3))

    def loss(params):
        batch = Batch(inputs, jnp.zeros((2, 1, 3)), None)
        return jnp.square(nnx.merge(graph, params, rest, copy=True)(batch, train=False).mean).sum()

    ordinary, metal = both(jax.jit(jax.value_and_grad(loss)), params)
    for a, b in zip(jax.tree.leaves(ordinary), jax.tree.leaves(metal), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_metal_convolves_without_dilation():
    kernel, short = jnp.ones((4, 2, 3)), jnp.ones((1, 6, 3))

    def dilations(name):
        with on_route(name):
            gradient = jax.make_jaxpr(jax.grad(lambda k: jnp.square(convolve_transposed(short, k, 2)).sum()))(kernel)
        text = str(gradient)
        return "conv_general_dilated" in text, "dilation=(2,)" in text

    assert dilations("metal") == (True, False)
    assert dilations("ordinary") == (False, False)
    xla = jax.make_jaxpr(lambda k: convolve_transposed(short, k, 2, "lax"))(kernel)
    assert "dilation=(2,)" in str(xla)  # what is avoided


@pytest.mark.parametrize("name", ["ordinary", "metal"])
def test_double_precision_is_computed_on_the_cpu(name):
    with on_route(name), double_precision():
        x = jnp.ones(3) / 3
        assert x.dtype == jnp.float64
        assert {d.platform for d in x.devices()} == {"cpu"}
    assert jnp.ones(1).dtype == jnp.float32
