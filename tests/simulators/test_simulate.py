"""From a simulator to a recording: cuts, frames, batches, devices and errors."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jneuro.core.random import trial_keys
from jneuro.recordings import Recording
from jneuro.simulators import Brunel, SimulationError, SuperSpike, first_state, simulate, stimuli
from jneuro.simulators.connectivity import Bernoulli

KEY = jax.random.key(5)
DURATION = 63.0
"""630 steps: a multiple of 1, 7, 10, 15, 45 and 90, not of 100."""


@pytest.fixture(scope="module")
def network():
    """A small, lively network; connected."""
    sim = Brunel(n_excitatory=16, n_inhibitory=4, rate_external=700.0, rule=Bernoulli(0.3), refractory=0.3)
    return sim.connect(jax.random.key(0))


@pytest.fixture(scope="module")
def drive():
    """A drive that differs in every step."""
    return stimuli.Sine(6.0, 45.0) + stimuli.Step(jnp.linspace(0.0, 1200.0, 20), onset=20.0, end=41.0)


@pytest.fixture(scope="module")
def whole(network, drive):
    """Every step of 63 ms."""
    rec = simulate(network, drive, duration=DURATION, key=KEY)
    assert rec.values["spikes"].sum() > 50
    assert np.asarray(rec.values["spikes"])[:630].reshape(90, 7, 20).sum(1).max() > 1, "frames have something to sum"
    return rec


def assert_same(one, two):
    """Bit by bit, whole trees."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# Frames --------------------------------------------------------------------------------------------------------------


def framed(whole, every):
    """What recording every so many steps should give."""
    v, spikes = (np.asarray(whole.values[n]) for n in ("v", "spikes"))
    return v[every - 1 :: every], spikes.reshape(-1, every, spikes.shape[1]).sum(1)


@pytest.mark.parametrize("every", [7, 10, 15, 45])
def test_frames_subsample_states_and_sum_spikes(network, drive, whole, every):
    rec = simulate(network, drive, duration=DURATION, key=KEY, record_every=0.1 * every)
    v, spikes = framed(whole, every)
    np.testing.assert_array_equal(rec.values["v"], v)
    np.testing.assert_array_equal(rec.values["spikes"], spikes)
    assert rec.values["spikes"].dtype == jnp.int32
    assert_same(rec.final_state, whole.final_state)
    assert rec.frames == 630 // every == len(rec.values["v"])
    assert rec.dt == pytest.approx(0.1 * every)
    np.testing.assert_allclose(rec.time, 0.1 * every * np.arange(1, 630 // every + 1), rtol=1e-12)


def test_a_hundred_steps_a_frame(network, drive, whole):
    rec = simulate(network, drive, duration=60.0, key=KEY, record_every=10.0)
    np.testing.assert_array_equal(rec.values["v"], whole.values["v"][99:600:100])
    np.testing.assert_array_equal(
        rec.values["spikes"], np.asarray(whole.values["spikes"])[:600].reshape(6, 100, 20).sum(1)
    )


def test_spike_counts_of_a_long_frame_do_not_overflow():
    sim = Brunel(n_excitatory=2, n_inhibitory=0, refractory=0.0).connect(KEY)
    rec = simulate(sim, stimuli.Constant(1e4), duration=60.0, key=KEY, record_every=30.0)
    np.testing.assert_array_equal(rec.values["spikes"], 300)
    np.testing.assert_array_equal(1000 * rec["spikes"] - 400_000, -100_000)  # nor does what is computed of them


def test_recording_describes_itself(network, whole):
    assert isinstance(whole, Recording)
    assert whole.units == {"v": "mV", "spikes": "1"}
    assert {n: v.shape for n, v in whole.values.items()} == {"v": (630, 20), "spikes": (630, 20)}
    assert bool(whole.ok)
    assert int(whole.first_step) == 0
    assert int(whole.final_state.step) == 630
    np.testing.assert_array_equal(whole.final_state.y.v, whole.values["v"][-1])


@pytest.mark.parametrize("names", [["v"], ("spikes",), []])
def test_recording_less_changes_nothing_else(network, drive, whole, names):
    rec = simulate(network, drive, duration=DURATION, key=KEY, record=names)
    assert sorted(rec.values) == sorted(names)
    for name in names:
        np.testing.assert_array_equal(rec.values[name], whole.values[name])
    assert_same(rec.final_state, whole.final_state)
    assert list(rec.units) == list(names)


# Cuts ----------------------------------------------------------------------------------------------------------------


def test_chunks_equal_the_whole(network, drive, whole):
    state, pieces, first = None, [], 0
    # Less than a block, one more than two blocks, and an odd rest: cut anywhere.
    for duration in (0.4, 3.1, 59.5):
        rec = simulate(network, drive, duration=duration, key=KEY, initial_state=state)
        assert int(rec.first_step) == first
        state, first = rec.final_state, first + rec.frames
        pieces.append(rec)
    assert first == 630
    for name, expected in whole.values.items():
        np.testing.assert_array_equal(np.concatenate([p.values[name] for p in pieces]), expected)
    np.testing.assert_allclose(np.concatenate([p.time for p in pieces]), whole.time)
    assert_same(state, whole.final_state)


def test_warmup_equals_discarding(network, drive, whole):
    rec = simulate(network, drive, duration=40.0, warmup=23.0, record_every=10.0, key=KEY)
    np.testing.assert_array_equal(rec.values["v"], whole.values["v"][329::100])
    counts = np.asarray(whole.values["spikes"])[230:].reshape(4, 100, 20).sum(1)
    np.testing.assert_array_equal(rec.values["spikes"], counts)
    np.testing.assert_allclose(rec.time, [33.0, 43.0, 53.0, 63.0])
    assert int(rec.first_step) == 230
    assert_same(rec.final_state, whole.final_state)


def test_first_state_is_where_a_run_starts(network, drive, whole):
    rec = simulate(network, drive, duration=DURATION, key=KEY, initial_state=first_state(network, KEY))
    np.testing.assert_array_equal(rec.values["spikes"], whole.values["spikes"])
    # Drawn inside or outside the compiled run, a potential may round differently.
    np.testing.assert_allclose(rec.values["v"], whole.values["v"], atol=2e-4)


def test_keys_decide_everything_random(network, drive, whole):
    again = simulate(network, drive, duration=DURATION, key=KEY)
    assert_same(again, whole)
    other = simulate(network, drive, duration=DURATION, key=jax.random.key(6), initial_state=first_state(network, KEY))
    assert not np.array_equal(other.values["v"][0], whole.values["v"][0])


# Batches, compilation, devices ---------------------------------------------------------------------------------------


def test_batched_equals_looped(network, drive):
    keys = trial_keys(KEY, 3)

    def run(key):
        return simulate(network, drive, duration=30.0, record_every=1.0, key=key)

    batched = jax.vmap(run)(keys)
    assert batched.values["v"].shape == (3, 30, 20)
    assert batched.dt == pytest.approx(1.0)
    np.testing.assert_allclose(batched.time, np.arange(1.0, 31.0))
    for i in range(3):
        single = run(keys[i])
        np.testing.assert_array_equal(batched.values["spikes"][i], single.values["spikes"])
        np.testing.assert_allclose(batched.values["v"][i], single.values["v"], rtol=0, atol=2e-4)
    assert not np.array_equal(batched.values["spikes"][0], batched.values["spikes"][1])


def test_batches_of_parameters_and_stimuli(network):
    def run(g, amplitude):
        sim = dataclasses.replace(network, g=g)
        return simulate(sim, stimuli.Constant(amplitude), duration=30.0, record_every=1.0, key=KEY).values["spikes"]

    g, amplitude = jnp.asarray([0.0, 3.0, 9.0]), jnp.asarray([0.0, 5.0, 1.0])
    batched = jax.vmap(run)(g, amplitude)
    for i in range(3):
        np.testing.assert_array_equal(batched[i], run(g[i], amplitude[i]))


def test_jit_within_jit(network, drive, whole):
    rec = jax.jit(lambda key: jax.jit(lambda k: simulate(network, drive, duration=DURATION, key=k))(key))(KEY)
    np.testing.assert_array_equal(rec.values["spikes"], whole.values["spikes"])
    np.testing.assert_allclose(rec.values["v"], whole.values["v"], atol=2e-4)
    assert rec.dt == whole.dt


class Counting(stimuli.Stimulus):
    """Counts how often it is traced."""

    amplitude: jax.Array
    traced: list = eqx.field(static=True)

    def __call__(self, t):
        self.traced.append(t)
        return self.amplitude

    def jumps(self):
        return jnp.zeros(0)


def test_repeated_calls_compile_once(network):
    class Same(list):
        """Static arguments are compared: this list is one, whatever it holds."""

        __hash__ = object.__hash__

        def __eq__(self, other):
            return self is other

    traced = Same()

    def run(amplitude, seed, **options):
        stimulus = Counting(jnp.asarray(amplitude), traced)
        sim = dataclasses.replace(network, g=4.0 + amplitude)
        simulate(sim, stimulus, **({"duration": 6.0} | options), key=jax.random.key(seed))
        return len(traced)

    compiled = run(0.0, 0)
    assert compiled >= 1
    assert run(1.0, 1) == run(2.0, 2) == compiled
    assert run(0.0, 0, duration=7.5) > compiled


def test_trials_on_two_devices_equal_trials_on_one(network, drive):
    assert len(jax.devices()) >= 2
    keys = trial_keys(KEY, 4)

    @jax.jit
    def run(keys):
        return jax.vmap(lambda k: simulate(network, drive, duration=30.0, record_every=1.0, key=k, throw=False))(keys)

    mesh = jax.make_mesh((2,), ("trial",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])
    spread = run(jax.device_put(keys, NamedSharding(mesh, PartitionSpec("trial"))))
    alone = run(keys)
    assert len(spread.values["v"].sharding.device_set) == 2
    np.testing.assert_array_equal(spread.values["spikes"], alone.values["spikes"])
    np.testing.assert_allclose(spread.values["v"], alone.values["v"], atol=2e-4)
    assert spread.ok.all()


@pytest.mark.parametrize(("every", "checkpoint"), [(5, 15), (45, 3)])
def test_checkpoints_change_no_gradient(network, every, checkpoint):
    def mean(g, checkpoint):
        rec = simulate(
            dataclasses.replace(network, g=g),
            duration=18.0,
            record_every=0.1 * every,
            key=KEY,
            checkpoint=checkpoint,
            spike_gradient=SuperSpike(scale=0.01),
            throw=False,
        )
        return jnp.mean(rec.values["v"]) + jnp.mean(rec.values["spikes"])

    value, slope = jax.value_and_grad(mean)(jnp.float32(5.0), None)
    again, same = jax.value_and_grad(mean)(jnp.float32(5.0), checkpoint)
    assert abs(slope) > 1e-3
    assert float(again) == pytest.approx(float(value), rel=1e-6)
    assert float(same) == pytest.approx(float(slope), rel=1e-4)


# Errors --------------------------------------------------------------------------------------------------------------

BAD_CALLS = {
    "no multiple of dt": ({"duration": 10.05}, "duration = 10.05"),
    "half a step too long": ({"duration": 180_000.05}, "duration = 180000.05"),
    "no time": ({"duration": 0.0}, "duration = 0.0"),
    "negative time": ({"duration": -1.0}, "duration = -1.0"),
    "infinite": ({"duration": float("inf")}, "duration = inf"),
    "not a number": ({"duration": float("nan")}, "duration = nan"),
    "no multiple of a frame": (
        {"record_every": 0.7},
        "duration = 10.0 ms must be a positive multiple of record_every = 0.7",
    ),
    "frame of no step": ({"record_every": 0}, "record_every = 0 ms must be at least the time step, 0.1 ms"),
    "negative frame": ({"record_every": -1}, "record_every = -1 ms must be at least"),
    "broken frame": ({"record_every": 0.25}, "record_every = 0.25 ms is not a multiple of the time step"),
    "frame in words": ({"record_every": "1 ms"}, "record_every = '1 ms' must be a number"),
    "class": ({"simulator": Brunel}, r"simulator = Brunel is a class; make an object of it: Brunel\(\)"),
    "number as stimulus": ({"stimulus": 3.0}, r"stimulus must be .* got 3.0; take Constant\(x\)"),
    "no checkpoint": ({"checkpoint": 0}, "checkpoint = 0"),
    "broken checkpoint": ({"checkpoint": 1.5}, "checkpoint = 1.5"),
    "warmup": ({"warmup": 0.05}, "warmup = 0.05"),
    "negative warmup": ({"warmup": -1.0}, "warmup = -1.0"),
    "infinite warmup": ({"warmup": float("inf")}, "warmup = inf"),
    "unknown name": ({"record": ["v", "u"]}, "cannot record 'u'; it records v, spikes"),
    "another step": ({"dt": 0.05}, "dt = 0.05 ms, but Brunel steps by its own dt = 0.1"),
    "solver": ({"solver": object()}, "takes no solver"),
    "integer key": ({"key": 3}, "key must be a typed key"),
    "raw key": ({"key": jax.random.PRNGKey(3)}, "key must be a typed key"),
    "several keys": ({"key": jax.random.split(jax.random.key(0), 2)}, "got a batch"),
}


@pytest.mark.parametrize("case", BAD_CALLS)
def test_bad_arguments_are_refused_by_name(network, case):
    options, message = BAD_CALLS[case]
    with pytest.raises(ValueError, match=message):
        simulate(**({"simulator": network, "duration": 10.0, "key": KEY} | options))


def test_its_own_step_is_accepted(network, drive, whole):
    assert_same(simulate(network, drive, duration=DURATION, key=KEY, dt=0.1), whole)


def test_an_unconnected_network_is_refused():
    with pytest.raises(ValueError, match=r"connect\(key\)"):
        simulate(Brunel(), duration=1.0, key=KEY)


class Poisoned(stimuli.Stimulus):
    """Not a number for one of 20 cells, from 20 ms on."""

    cell: int = eqx.field(static=True, default=3)

    def __call__(self, t):
        return jnp.where((t >= 19.99) & (jnp.arange(20) == self.cell), jnp.nan, 0.0)


def bad_stimulus():
    return Poisoned()


@pytest.mark.parametrize(("every", "time"), [(1, 20.1), (50, 25.0)], ids=lambda value: f"{value}")
def test_a_value_that_is_not_finite_is_named(network, every, time):
    with pytest.raises(SimulationError, match=rf"^v of cell 3 at t = {time:g} ms: .*throw=False"):
        simulate(network, bad_stimulus(), duration=40.0, key=KEY, record_every=0.1 * every)


def test_an_unrecorded_value_that_is_not_finite_is_found_in_the_final_state(network):
    with pytest.raises(SimulationError, match=r"^final state: "):
        simulate(network, bad_stimulus(), duration=40.0, key=KEY, record=["spikes"])


def test_without_throw_the_flag_says_so(network):
    rec = simulate(network, bad_stimulus(), duration=40.0, key=KEY, throw=False)
    assert not rec.ok
    finite = np.isfinite(np.asarray(rec.values["v"]))
    assert finite[:200].all()
    assert not finite[200:, 3].any()


def test_flags_are_per_trial(network):
    def run(value):
        return simulate(network, stimuli.Constant(value), duration=3.0, key=KEY, throw=False).ok

    np.testing.assert_array_equal(jax.vmap(run)(jnp.asarray([0.0, jnp.nan, 1.0])), [True, False, True])


@pytest.mark.parametrize("transform", [jax.jit, lambda f: jax.jit(jax.vmap(f))])
def test_transformed_runs_raise_at_run_time(network, transform):
    def run(value):
        return simulate(network, stimuli.Constant(value), duration=3.0, key=KEY).values["v"]

    batched = jnp.asarray([0.0, 1.0])
    values = transform(run)(batched if transform is not jax.jit else batched[0])
    assert np.isfinite(np.asarray(values)).all()
    # equinox's, or JAX's around it
    with pytest.raises((eqx.EquinoxRuntimeError, jax.errors.JaxRuntimeError), match="left the finite numbers"):
        jax.block_until_ready(transform(run)(batched * jnp.nan if transform is not jax.jit else jnp.nan))
