"""The verb: what it finds, and what it flags."""

import dataclasses
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fit_problems import recording, spiking_target

import jneuro
from jneuro.fitting import (
    CMA,
    CellProblem,
    FitOptions,
    Gradient,
    LeastSquares,
    Match,
    NelderMead,
    Residuals,
    Solution,
    Trainable,
    Voltage,
    predict,
)
from jneuro.fitting.fitter import conclude
from jneuro.fitting.problem import _noise
from jneuro.fitting.uncertainty import intervals
from jneuro.simulators import Brunel, HodgkinHuxley, Izhikevich, SuperSpike

KEY = jax.random.key(0)
GUESS = HodgkinHuxley(g_na=90.0, g_k=50.0)
TRUTH = np.asarray([120.0, 36.0])
NAMES = ("g_na", "g_k")
RAMP = np.linspace(-70.0, 30.0, 60)


def fit(target=None, guess=GUESS, names=NAMES, **options):
    scheme = {"solver": "staggered_crank_nicolson", "dt_ms": 0.0125}
    return jneuro.fit(guess, target or spiking_target(2), names, key=KEY, options=FitOptions(**scheme, **options))


def test_the_truth_is_found_within_its_intervals():
    found = fit()
    assert (found.ok, found.reason) == (True, "")
    assert found.data_cost == pytest.approx(1.0, abs=0.2)
    assert found.simulations <= 50
    with jax.enable_x64(True):
        errors = intervals(found.problem, found.q).standard_errors
    assert np.all(np.abs(np.asarray(found.values) - TRUTH) < 4 * errors)
    assert found.names == NAMES
    assert float(found.simulator.g_na) == pytest.approx(float(found.values[0]))
    how = {"dt": 0.0125, "solver": "staggered_crank_nicolson"}
    predicted = predict(found.simulator, spiking_target(2), own_start=True, **how)
    np.testing.assert_allclose(predicted.v, found.prediction, atol=1e-6)
    assert [len(times) for times in predicted.spike_times()] == [1, 1]
    again = fit()
    np.testing.assert_array_equal(found.values, again.values)


METHODS = {
    "random starts": (LeastSquares(first="random", starts=4), 1e-3),
    "cma": (CMA(evaluations=400), 1e-3),
    "nelder_mead": (NelderMead(evaluations=200), 1e-3),
    "gradient": (Gradient(starts=2, steps=100, learning_rate=0.1), 0.05),
}


@pytest.mark.parametrize(("method", "tolerance"), METHODS.values(), ids=METHODS)
def test_every_method_finds_the_same(method, tolerance):
    """Without noise, the truth itself."""
    found = fit(spiking_target(2, noise=0.0), method=method)
    np.testing.assert_allclose(found.values, TRUTH, rtol=tolerance)
    assert len(found.solution.cost) == getattr(method, "starts", 1)
    assert np.isfinite(found.solution.history).any(1).all()


def judged(*, shift=0.0, target=None, **changes):
    """What is said of a solution, one of whose starts is worse than the other."""
    with jax.enable_x64(True):
        names = {"g_na": (80.0, 160.0), "g_k": None}
        cell = HodgkinHuxley()
        problem = CellProblem.of(cell, target or spiking_target(2), Trainable.of(cell, names))
        residuals = Residuals(problem, (Voltage(),))
        q = jnp.stack([problem.first + 3.0, problem.first.at[0].add(shift)])
        solution = Solution(q, np.asarray([9.0, 1.0]), np.ones((2, 3)), np.asarray([False, True]), 7)
        return conclude(residuals, solution._replace(**changes), FitOptions())


def other_cell():
    """Data that no Hodgkin–Huxley cell makes."""
    target = spiking_target(2)
    return dataclasses.replace(target, v=target.v + 10 * np.sin(target.time)[None])


def without_noise():
    """Data in which there is nothing that could excuse an error."""
    target = spiking_target(2)
    v = 20 * np.sin(target.time)[None] - 50 + 0 * target.v
    return dataclasses.replace(target, v=v, noise_sd=np.asarray(_noise(v)))


FLAGGED = {
    "no noise": ({"target": without_noise}, "no noise was found in the recording, .* set noise_mv to what you accept"),
    "another cell": ({"target": other_cell}, "a model that cannot explain the data"),
    "too few steps": ({"finished": np.asarray([True, False])}, "still moving at its last step"),
    "at its bound": ({"shift": 20.0}, "g_na = 160 is at its bound"),
    "nowhere finite": ({"cost": np.full(2, np.inf)}, "no start gave finite potentials"),
}


@pytest.mark.parametrize(("how", "reason"), FLAGGED.values(), ids=FLAGGED)
def test_what_is_flagged(how, reason):
    how = {name: value() if callable(value) else value for name, value in how.items()}
    found = judged(**how)
    assert not found.ok
    assert re.search(reason, found.reason)


def test_the_best_start_is_taken():
    found = judged()
    assert (found.ok, found.reason, found.agreeing, found.simulations) == (True, "", 0.5, 7)
    np.testing.assert_allclose(found.values, TRUTH)


def test_spikes_without_derivatives_are_refused():
    current = np.full(50, 15.0)
    given = recording(np.full(50, -65.0), current, current_unit="pA")
    with pytest.raises(ValueError, match="gradient=SuperSpike"):
        jneuro.fit(Izhikevich(), given, {"d": (1.0, 20.0)}, key=KEY)
    options = FitOptions(method=LeastSquares(starts=2, steps=2), gradient=SuperSpike())
    found = jneuro.fit(Izhikevich(), given, {"d": (1.0, 20.0)}, key=KEY, options=options)
    assert np.isfinite(found.values).all()


class Peak:
    """The error of the highest potential; has no weight."""

    def residuals(self, predicted, recorded):
        return (predicted.v.max(1) - recorded.v.max(1)) / recorded.noise_sd


class Line:
    """The best of five values along a line through the truth."""

    def solve(self, residuals, key, progress):
        q = residuals.problem.first[None] + jnp.linspace(-0.2, 0.2, 5)[:, None]
        cost = jax.lax.map(residuals.cost, q)
        return Solution(q, cost, cost[:, None], jnp.ones(5, bool), 5)


def test_objects_of_ones_own():
    how = {"key": KEY, "options": FitOptions(solver="heun", accept=100.0)}
    found = jneuro.fit(
        HodgkinHuxley(),
        spiking_target(noise=0),
        {"g_na": (20, 400)},
        objective=["voltage", Peak()],
        method=Line(),
        **how,
    )
    assert found.ok
    assert float(found.values[0]) == pytest.approx(120, rel=1e-6)
    assert (found.simulations, found.solution.best) == (5, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"objective": [Line()]}, "is no objective: it has no method residuals"),
        ({"objective": []}, "names nothing to minimise"),
        ({"method": Peak()}, "is no method: it has no method solve"),
        ({"method": "cmaes"}, "unknown method 'cmaes'; did you mean 'cma', or module:name of your own"),
        ({"method": "features"}, "features is for networks"),
        ({"method": lambda: 3}, "no method"),
        ({"method": {"name": "cma", "evaluation": 3}}, "objective or method: unknown key 'evaluation'; did you mean"),
        ({"simulator": HodgkinHuxley}, "simulator must be an object of .*; HodgkinHuxley is a class"),
        ({"simulator": "hodgkin_huxley"}, "simulator must be an object of .*; got str"),
        (
            {"simulator": Brunel(), "recording": [], "trainable": {"g": (4, 6)}},
            "a fit of a network takes a Recording of several runs, got list",
        ),
        ({"options": {"dt_ms": 0.01}}, r"must be FitOptions, as in FitOptions\(dt_ms=0.01\)"),
        (
            {"recording": recording(RAMP, RAMP), "start": -65.0},
            r"start must be a state of HodgkinHuxley, State\(v, m, h, n\), got ndarray",
        ),
    ],
)
def test_what_is_no_objective_or_method(words, said):
    given = {"simulator": GUESS, "trainable": NAMES, "key": KEY} | words
    if "recording" not in given:
        given["recording"] = spiking_target()
    with pytest.raises(ValueError, match=said) as caught:
        jneuro.fit(**given)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="'tsit5' chooses its own steps; a fit needs fixed ones"):
        FitOptions(solver="tsit5")


class Wrong:
    """Returns something that is no vector of finite residuals."""

    def __init__(self, made):
        self.made = made

    def residuals(self, predicted, recorded):
        return self.made(predicted, recorded)


def swing(recording):
    """Highest potential less the lowest."""
    return recording["v"].max() - recording["v"].min()


REFUSED = {
    "two axes": (Wrong(lambda p, r: p.v - r.v), r"Wrong: residuals returned the shape \(2, 150\).*call .ravel\(\)"),
    "a number": (Wrong(lambda p, r: (p.v - r.v).sum()), r"the shape \(\); it must be \[residual\]"),
    "nothing": (Wrong(lambda p, r: None), "must return an array of real numbers, .residual., not NoneType"),
    "whole numbers": (Wrong(lambda p, r: (p.v > 0).sum(1)), "must return an array of real numbers"),
    "not finite": (Wrong(lambda p, r: jnp.log(p.v.max(1) - r.v.max(1))), "2 of 2 residuals .* not finite; return 0"),
    "it raises": (Wrong(lambda p, r: p.calcium), "residuals raised AttributeError: .*calcium"),
    "NumPy": (Wrong(lambda p, r: np.asarray(p.v).max(1)), "residuals raised TracerArrayConversionError"),
    "no error": (Match(swing), "sd is missing"),
    "other names": (Match(swing, sd={"height": 1.0}), "sd is given for height, the measure returns swing"),
    "not recorded": (Match(lambda recording: recording["ca"].max(), sd=1.0), "raised KeyError: .*no .*ca.*; it has"),
    "whole spikes": (Match("spike_count", sd=1.0), "the measure has no derivative.*take the method cma"),
}


@pytest.mark.parametrize(("objective", "said"), REFUSED.values(), ids=REFUSED)
def test_objectives_that_are_refused_before_anything_is_simulated(objective, said, monkeypatch):
    monkeypatch.setattr(LeastSquares, "solve", None)
    with pytest.raises(ValueError, match=rf"objective\.1: .*{said}") as error:
        jneuro.fit(GUESS, spiking_target(2), NAMES, key=KEY, objective=["voltage", objective])
    assert "\n" not in str(error.value)


class Bent(jneuro.ODESimulator):
    """A leaky cell whose input is bent: a parameter of two numbers."""

    c: jneuro.Param = jneuro.param((1.0, 0.5), bounds=jneuro.POSITIVE)

    class State(NamedTuple):
        """Potential."""

        v: jneuro.Array = jneuro.state(0.0, unit="mV")

    def vector_field(self, y, drive):
        """Leak and input."""
        return self.State(self.c[0] * drive + self.c[1] * jnp.sin(drive) - y.v)


def test_an_array_is_fitted_by_any_method(x64):
    """Given are an optax transformation, least squares, and a search that they refine."""
    current = np.stack([np.repeat([0.0, 1.0, 3.0], 20), np.repeat([2.0, 0.5, 1.5], 20)])
    trials = jneuro.fitting.Trials(0 * current, current, np.asarray(0.01), None, 0.1, ("mV", "1"))
    given = CellProblem.of(Bent(), trials, Trainable.of(Bent(), ["c"]))
    trials = jax.jit(lambda q: given.observe(q))(given.first)
    assert given.names == ("c[0]", "c[1]")
    methods = {
        "adam": Gradient(optimizer=optax.adam(0.1), steps=200, starts=1, nudge=0),
        "least squares": LeastSquares(starts=2),
        "refined": CMA(evaluations=24, refine=20),
    }
    for name, method in methods.items():
        found = jneuro.fit(Bent(c=[0.7, 0.8]), trials, {"c": (0.1, 10)}, key=KEY, method=method)
        np.testing.assert_allclose(found.values, [1.0, 0.5], rtol=0.02 if name == "adam" else 1e-4)
        np.testing.assert_allclose(found.simulator.c, found.values)


def test_a_whole_optimizer_excludes_our_settings():
    with pytest.raises(ValueError, match="sets its own steps, so polyak has no effect"):
        Gradient(optimizer=optax.adam(0.1), polyak=0.5)
    with pytest.raises(ValueError, match="adam is for trainings; take optax:adam"):
        Gradient(optimizer="adam")
