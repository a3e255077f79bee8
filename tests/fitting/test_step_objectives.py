"""Spikes in their order, what lies between them, and the search that fits both."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jneuro.fitting.data import Target
from jneuro.fitting.objectives import Features, Observed, Residuals
from jneuro.fitting.parameters import Trainable, double
from jneuro.fitting.problem import Problem
from jneuro.fitting.spikes import Spikes
from jneuro.fitting.step_objectives import OrderedSpikes, Subthreshold
from jneuro.recordings import Recording
from jneuro.simulators import Izhikevich, Pospischil, simulate, stimuli
from jneuro.simulators.solvers import StaggeredCrankNicolson
from jneuro.spikes.detection import Detector, away_from_spikes
from jneuro.spikes.protocols import Step

DT = 0.1
precise = pytest.mark.usefixtures("x64")


def train(times, frames=1000):
    spikes = np.zeros(frames)
    spikes[np.round(np.asarray(times, float) / DT).astype(int)] = 1
    return spikes


def target(current, v=None):
    current = np.atleast_2d(current)
    values = {"v": np.full(current.shape, -65.0) if v is None else v, "current": current}
    recording = Recording(
        {n: x[..., None] for n, x in values.items()},  # pyright: ignore
        np.asarray(True), np.asarray(-1), None, DT, 1, current.shape[1], (("v", "mV"), ("current", "pA")),
    )  # fmt: skip
    return double(Target.of(recording, noise_sd=1.0))


def two_steps(amplitude, frames=1000):
    time = DT * np.arange(frames)
    return np.where((time >= 10) & (time < 50), amplitude, np.where((time >= 60) & (time < 90), -20.0, 0.0))


CASES = {
    "the same": ([15, 30], [15, 30], 0.0),
    "a little late": ([15, 30], [15.3, 30], 0.3),
    "later": ([15, 30], [18, 30], 3.0),
    "one too few": ([15, 30], [15], 20.0),
    "one too many, at the end": ([15, 30], [15, 30, 49.5], 0.5),
    "one too many, early": ([15, 30], [15, 18, 30], 32.0),
}


@precise
def test_the_cost_grows_with_the_error_and_has_no_jumps():
    goal, objective = target(two_steps(30.0)), OrderedSpikes(sd_ms=1, growth=0, first=1, slots=4)
    compared = jax.jit(lambda model, data: jnp.sum(jnp.square(objective.residuals(model, data, goal))))

    def cost(true, found):
        data, model = (Observed(np.zeros((1, 1000)), train(x)[None]) for x in (true, found))
        return float(compared(model, data))

    costs = [cost(true, found) for true, found, _ in CASES.values()]
    sizes = [size for *_, size in CASES.values()]
    assert costs[0] == 0
    assert np.array_equal(np.argsort(costs), np.argsort(sizes))
    assert costs[1] == pytest.approx(2 * (np.sqrt(1.09) - 1), rel=1e-6)
    assert cost([15, 30], [15, 30, 49.9]) < 0.02  # it may as well be after the end


@precise
def test_what_counts_more_and_what_less():
    goal = target(np.stack([two_steps(a) for a in (0.0, 30.0)]))
    quiet = np.zeros((2, 1000))

    @functools.partial(jax.jit, static_argnums=2)
    def compared(model, data, objective):
        return jnp.sum(jnp.square(objective.residuals(model, data, goal)))

    def cost(late, **options):
        objective = OrderedSpikes(**{"sd_ms": 1, "growth": 0, "first": 1, "slots": 4} | options)
        data, model = (Observed(quiet, np.stack([train([]), train(x)])) for x in ([15, 30, 70], late))
        return float(compared(model, data, objective))

    first, second, elsewhere = [16, 30, 70], [15, 31, 70], [15, 30, 71]
    assert cost(first, first=3) == pytest.approx(3 * cost(first))
    assert cost(second, first=3) == pytest.approx(cost(second))
    assert cost(elsewhere, elsewhere=0.25) == pytest.approx(0.25 * cost(elsewhere))
    assert cost(first, elsewhere=0.25) == pytest.approx(cost(first))
    assert cost(second, growth=0.1) < 0.5 * cost(second)


@precise
def test_nothing_is_left_out_and_noise_makes_no_stretches():
    """The recording says how many spikes and stretches there are, before anything is compiled."""
    v = np.linspace(-66.0, -64.0, 1000)[None]
    v[0, 110:490:10] = 20.0
    clean, noisy = (
        target(two_steps(30.0) + noise, v) for noise in (0, 0.1 * np.random.default_rng(0).normal(size=1000))
    )
    known = OrderedSpikes(slots=4).prepare(clean)
    edges, differ, slots = known
    assert (edges, slots) == ((0, 100, 500, 600, 900, 1000, 1000, 1000, 1000), 2 * 38)
    assert OrderedSpikes(slots=4).prepare(noisy) == known
    assert OrderedSpikes(slots=4).prepare(clean, Detector(threshold_mv=30.0))[2] == 4
    assert differ[:5] == (False,) * 5
    several = np.stack([two_steps(a) for a in (0.0, 30.0)]) + 0.1 * np.random.default_rng(0).normal(size=(2, 1000))
    assert OrderedSpikes().prepare(target(several, np.tile(v, (2, 1))))[1][:5] == (False, True, False, False, False)
    assert len(OrderedSpikes().prepare(target(np.tile([0.0, 1.0], 10).repeat(50)))[0]) == 21
    with pytest.raises(ValueError, match=r"the current has 80 stretches, more than 64.*take spike_times"):
        OrderedSpikes().prepare(target(np.tile([0.0, 1.0], 40).repeat(50)))
    cell, scheme = Pospischil(), {"solver": StaggeredCrankNicolson(), "dt": DT}
    problem = Problem.of(cell, clean, Trainable.of(cell, ("g_l",)), **scheme)
    parts = OrderedSpikes(slots=4), Subthreshold(), Features(features={"rate": 1.0})
    spikes = Detector(threshold_mv=-20.0)
    residuals = Residuals(problem, parts, spikes)
    assert residuals.known == ((known,), (), ((spikes, (Step(100, 500, 30.0),)),))
    assert Features(features={"rate": 1.0}, onset_ms=60.0, end_ms=90.0).prepare(clean)[1] == (Step(600, 900, -20.0),)


@precise
def test_subthreshold_errors_leave_spikes_out():
    spikes = train([20.0, 60.0])[None]
    away = np.asarray(away_from_spikes(jnp.asarray(spikes), DT, 3.0, 12.0))[0]
    edges = np.flatnonzero(np.diff(away)) + 1
    np.testing.assert_allclose(DT * edges, [17.0, 32.1, 57.0, 72.1], atol=0.11)
    goal, flat = target(two_steps(30.0)), jnp.full((1, 1000), -65.0)
    data, objective = Observed(flat, spikes), Subthreshold(sd_mv=2, cut_mv=10)
    cost = jax.jit(lambda v: jnp.sum(jnp.square(objective.residuals(Observed(v, spikes), data, goal))))
    assert float(cost(flat + 1)) == pytest.approx(0.25)
    assert float(cost(flat + 100)) == pytest.approx(25)
    assert cost(flat.at[0, 200:250].add(50)) == 0


def problem_of(make, names, start):
    """Two trials of a cell, to be fitted by the same scheme from other values."""
    current = np.stack([two_steps(a, 600) for a in (150.0, 300.0)])
    # The current of a sample flows after it.
    step = stimuli.Sampled(jnp.asarray(np.concatenate([current[:, :1], current], 1).T), DT, hold=True)
    scheme = {"solver": StaggeredCrankNicolson(), "dt": DT} if make is Pospischil else {}
    cell = make() if scheme else make(n=2)
    seen = simulate(cell, step, record=("v", "spikes"), duration=60.0, key=jax.random.key(0), **scheme)
    v = np.asarray(seen.values["v"]).T
    if not scheme:
        v = np.where(np.asarray(seen.values["spikes"]).T, 30.0, v)  # as a recording shows them
    fitted = make(**start)
    return Problem.of(fitted, target(current, v), Trainable.of(fitted, names), **scheme)


SEARCHES = [
    pytest.param(
        *(Izhikevich.regular_spiking_2007, {"k": (0.3, 2.0), "d": (20.0, 400.0)}, {"k": 0.85, "d": 130.0}, 0.1),
        id="stepped",
    ),
    pytest.param(
        *(Pospischil, {"g_l": (0.5, 10.0), "g_m": (1.0, 40.0)}, {"g_l": 3.2, "g_m": 7.0}, 1e-4),
        id="ode",
        marks=pytest.mark.slow,
    ),
]


@precise
@pytest.mark.parametrize(("make", "names", "start", "within"), SEARCHES)
def test_the_search_finds_what_made_the_spikes(make, names, start, within):
    problem = problem_of(make, names, start)
    residuals = Residuals(problem, (OrderedSpikes(slots=8), Subthreshold(weight=0.1)))
    found = Spikes(starts=2, evaluations=60, sigma=0.3, refine=20).solve(residuals, jax.random.key(0))
    assert found.q.shape == (2, 2)
    assert found.cost[found.best] < 0.2 * residuals.cost(problem.first)
    true = [float(getattr(make(), n)) for n in names]
    np.testing.assert_allclose(problem.values(found.q[found.best]), true, rtol=within)
    assert found.history.shape[1] >= 10
    assert found.simulations >= 120
