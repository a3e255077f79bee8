"""Every declared parameter of every simulator: documented, checked, typed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.core.registry import accepted
from jneuro.simulators import SIMULATORS, Brunel, HodgkinHuxley, Normal, parameters, stimuli
from jneuro.simulators.base import FRACTION, NON_NEGATIVE, POSITIVE, REAL, Bounds, Parameter
from jneuro.simulators.connectivity import Dense, FixedInDegree

DECLARED = [(name, p) for name in SIMULATORS for p in parameters(SIMULATORS[name]).values()]
NUMBERS = [(name, p) for name, p in DECLARED if isinstance(p.default, int | float)]
ARRAYS = [(name, p) for name, p in DECLARED if not p.static]


UNITS = {"1", "ms", "1/ms", "mV", "Hz", "µA/cm²", "mS/cm²", "µF/cm²", "cm²/(µA·ms)", "pA", "pF", "nS", "nS/mV"}


def named(cases):
    return pytest.mark.parametrize(("name", "p"), cases, ids=[f"{name}.{p.name}" for name, p in cases])


@named(DECLARED)
def test_declarations_are_complete(name, p):
    assert isinstance(p, Parameter)
    assert p.unit in UNITS
    assert p.source.strip()
    assert p.doc.strip()
    assert p.doc == p.doc.rstrip(".")
    assert p.name in accepted(SIMULATORS[name])


@named(NUMBERS)
def test_bounds_contain_the_default(name, p):
    assert p.bounds.contain(p.default)


def outside(p):
    """Values that the bounds exclude."""
    values = [math.nan, math.inf, -math.inf] if isinstance(p.default, float) else []
    for end, beyond in ((p.bounds.low, -1), (p.bounds.high, 1)):
        if math.isfinite(end):
            values += [end + beyond] + ([end] if p.bounds.open else [])
    return values


OUTSIDE = [(name, p, value) for name, p in NUMBERS for value in outside(p)]


@pytest.mark.parametrize(("name", "p", "value"), OUTSIDE, ids=[f"{n}.{p.name}={v}" for n, p, v in OUTSIDE])
def test_values_out_of_bounds_are_refused_by_name_value_and_unit(name, p, value):
    with pytest.raises(ValueError, match="lies outside") as caught:
        SIMULATORS[name](**{p.name: value})
    message = str(caught.value)
    assert f"{p.name} = " in message
    assert str(np.asarray(value)) in message
    assert str(p.bounds) in message
    assert p.doc in message
    assert p.unit == "1" or f" {p.unit} lies" in message


def test_there_is_something_to_refuse():
    assert len(OUTSIDE) >= 2 * len([p for _, p in NUMBERS if isinstance(p.default, float)])


@named([(n, p) for n, p in NUMBERS if isinstance(p.default, int)])
def test_counts_must_be_whole(name, p):
    with pytest.raises(ValueError, match=rf"{p.name} = .* must be a whole number"):
        SIMULATORS[name](**{p.name: p.default + 0.5})


NOT_A_NUMBER = {
    "text": (lambda: HodgkinHuxley(g_na="120"), "HodgkinHuxley: g_na = '120' must be a number .sodium"),
    "truth": (lambda: HodgkinHuxley(g_na=True), "HodgkinHuxley: g_na = True must be a number"),
    "nothing": (lambda: HodgkinHuxley(g_na=None), "HodgkinHuxley: g_na = None must be a number"),
    "text for a count": (lambda: Brunel(n_excitatory="80"), "n_excitatory = '80' must be a whole number .excit"),
    "truth for a count": (lambda: Brunel(n_excitatory=True), "n_excitatory = True must be a whole number"),
    "text for a setting": (lambda: Brunel(dt="0.1"), "Brunel: dt = '0.1' must be a number .time step"),
    "an array for a setting": (
        lambda: Brunel(delay=np.full(100, 1.5)),
        r"delay has the shape \(100,\); it must be one number, the same for all neurons \(transm",
    ),
    "a device's array for a setting": (lambda: Brunel(refractory=jnp.ones(9)), r"shape \(9,\); it must be one number"),
    "a draw for a setting": (
        lambda: Brunel(delay=Normal(1.5, 0.1)),
        "delay is part of .* and cannot be a Normal; give",
    ),
    "a traced setting": (lambda: jax.grad(lambda d: Brunel(delay=d).j)(1.5), "must be known when it is compiled"),
    "a ragged list": (lambda: Brunel(tau_m=[[1.0, 2.0], [3.0]]), "tau_m is a list of lists of unequal lengths"),
    "another name": (lambda: Brunel(tau=10), "Brunel: unknown argument 'tau'; did you mean 'tau_m'"),
    "another name in a preset": (lambda: Brunel.original(gg=3), "Brunel: unknown argument 'gg'; did you mean 'g'"),
    "another name of a cell": (lambda: HodgkinHuxley(gna=1), "HodgkinHuxley: unknown argument 'gna'; did you mean"),
    "another name in a draw": (lambda: Normal(mean=1, std=2), "Normal: unknown argument 'std'; did you mean 'sd'"),
    "stimulus": (lambda: stimuli.Constant("10"), "Constant: amplitude = '10' must be a number"),
    "truth in a stimulus": (lambda: stimuli.Constant(True), "Constant: amplitude = True must be a number"),
    "pulses": (lambda: stimuli.PulseTrain(1.0, 100.0, 1.0, True), "PulseTrain: count = True must be a whole number"),
    "noise": (lambda: stimuli.WhiteNoise(jax.random.key(0), 1.0, "1", 9.0), "WhiteNoise: hold = '1' must be a number"),
    "path": (
        lambda: stimuli.OrnsteinUhlenbeck(mean="1", sd=1, tau=1, duration=9, dt=1, key=jax.random.key(0)),
        "OrnsteinUhlenbeck: mean = '1' must be a number",
    ),
    "distribution": (lambda: Normal("a", 1.0), "Normal: mean = 'a' must be a number"),
    "array of words": (lambda: Dense(np.full((4, 4), "a"), (2, 2)), "array of numbers, got ndarray of <U1"),
    "weights": (lambda: Dense("a", (2, 2)), "relative weights must be an array of numbers, got str"),
}


@pytest.mark.parametrize(("make", "message"), NOT_A_NUMBER.values(), ids=NOT_A_NUMBER)
def test_what_is_no_number_is_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_numbers_of_arrays_are_settings():
    settings = {"n_excitatory": np.int64(80), "n_inhibitory": jnp.asarray(20), "delay": np.float32(1.5)}
    found = Brunel(**settings, rule=FixedInDegree(n=np.int64(5)))
    assert [type(x) for x in (found.n_excitatory, found.n_inhibitory, found.delay)] == [int, int, float]
    assert found.rule == FixedInDegree(n=5)


@named(ARRAYS)
def test_traced_values_pass(name, p):
    cls = SIMULATORS[name]
    assert float(jax.jit(lambda x: getattr(cls(**{p.name: x}), p.name))(-1e6)) == -1e6
    slope = jax.grad(lambda x: getattr(cls(**{p.name: x}), p.name) ** 2)(float(p.default))
    assert float(slope) == pytest.approx(2 * p.default)


@named(ARRAYS)
@pytest.mark.parametrize(
    "value", [3, 3.0, np.float32(3), np.array(3.0), jnp.asarray(3.0)], ids=lambda v: type(v).__name__
)
def test_parameters_are_strongly_typed_arrays(name, p, value):
    if not p.bounds.contain(3.0):
        pytest.skip("3 lies outside")
    held = getattr(SIMULATORS[name](**{p.name: value}), p.name)
    assert isinstance(held, jax.Array)
    assert (held.dtype, held.weak_type, held.shape) == (jnp.float32, False, ())
    assert float(held) == 3.0


@pytest.mark.parametrize("name", SIMULATORS)
def test_double_precision_where_it_is_in_force(name, x64):
    sim = SIMULATORS[name]().connect(jax.random.key(0))
    leaves = [x for x in jax.tree.leaves((sim, sim.init(jax.random.key(0)))) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert leaves
    assert {x.dtype for x in leaves} == {np.dtype("float64")}


@pytest.mark.parametrize("name", SIMULATORS)
def test_only_parameters_that_are_not_static_are_leaves(name):
    sim = SIMULATORS[name]()
    assert len(jax.tree.leaves(sim)) == len([p for n, p in ARRAYS if n == name])


@pytest.mark.parametrize("name", SIMULATORS)
def test_an_instance_shows_its_own_values(name):
    cls = SIMULATORS[name]
    p = next(p for n, p in ARRAYS if n == name)
    changed = parameters(cls(**{p.name: 1.25 * p.default}))
    assert float(changed[p.name].default) == pytest.approx(1.25 * p.default)
    assert list(changed) == list(parameters(cls))


@pytest.mark.parametrize("name", SIMULATORS)
def test_presets_build_it(name):
    cls = SIMULATORS[name]
    assert cls.presets
    for preset in cls.presets:
        assert isinstance(getattr(cls, preset)(), cls)


@pytest.mark.parametrize("name", SIMULATORS)
def test_batches_of_values_are_checked_too(name):
    cls = SIMULATORS[name]
    p = next(p for n, p in ARRAYS if n == name and p.bounds is POSITIVE)
    assert getattr(cls(**{p.name: jnp.asarray([1.0, 2.0])}), p.name).shape == (2,)
    with pytest.raises(ValueError, match=p.name):
        cls(**{p.name: jnp.asarray([1.0, -2.0])})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "ring"}, "unknown rule 'ring'; known are bernoulli, fixed_in_degree"),
        ({"delay": 1.55}, "delay = 1.55 ms is not a multiple of the time step, 0.1 ms"),
        ({"refractory": 0.25}, "refractory = 0.25 ms is not a multiple"),
        ({"rate_external": 1e4}, "rate_external = 10000.0 Hz is more than one spike a step"),
        ({"n_external": 1000, "external_cap": 20}, r"external_cap = 20 cuts .* set it to 1\d\d"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_combinations_that_cannot_be_simulated(settings, message):
    with pytest.raises(ValueError, match=message):
        SIMULATORS["brunel"](**settings)


def test_the_suggested_cap_is_accepted():
    for rate in (1.0, 500.0, 5000.0):
        with pytest.raises(ValueError, match="set it to") as caught:
            SIMULATORS["brunel"](n_external=1000, external_cap=1, rate_external=rate)
        cap = int(str(caught.value).rsplit(" ", 1)[1])
        SIMULATORS["brunel"](n_external=1000, external_cap=cap, rate_external=rate)


@pytest.mark.parametrize(
    ("bounds", "inside", "beyond", "text"),
    [
        (REAL, [-1e30, 0, 1e30], [math.inf, math.nan], "(-inf, inf)"),
        (POSITIVE, [1e-30, 5], [0, -1, math.inf], "(0, inf)"),
        (NON_NEGATIVE, [0, 5], [-1e-30, math.nan], "[0, inf)"),
        (FRACTION, [0, 0.5, 1], [-0.1, 1.1], "[0, 1]"),
        (Bounds(2, 3, open=True), [2.5], [2, 3, [2.5, 3.5]], "(2, 3)"),
    ],
    ids=str,
)
def test_bounds(bounds, inside, beyond, text):
    assert all(bounds.contain(x) for x in inside)
    assert not any(bounds.contain(x) for x in beyond)
    assert str(bounds) == text
