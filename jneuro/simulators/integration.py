"""From an ODE simulator to a recording: a scan of fixed steps, or Diffrax's adaptive ones."""

import dataclasses
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jneuro.core.devices import scan
from jneuro.core.types import Array, Int, PyTree
from jneuro.simulators.accuracy import WATCH, Coarseness, Place, Steepest, Watch, local_error, potential, some
from jneuro.simulators.adjoint import TimeParallel, time_parallel
from jneuro.simulators.base import state_variables
from jneuro.simulators.ode import ODESimulator, is_separable, require_one_equation
from jneuro.simulators.solvers import (
    Adaptive,
    MembraneTerm,
    RushLarsen,
    Saltating,
    Scheme,
    StaggeredCrankNicolson,
    as_scheme,
)
from jneuro.simulators.spiking import (
    Exact,
    located_step,
    parts,
    reset,
    spike,
    spike_gradient,
    spread,
    surrogate_in_force,
)
from jneuro.simulators.stepping import Frames
from jneuro.simulators.stimuli import Sampled, Stimulus

__all__ = ["ODEState", "Stepper", "begin", "cells_of", "erred", "integrate", "require_integrable", "too_coarse"]


class ODEState(eqx.Module):
    """Where a run of an ODE simulator can be continued.

    Attributes:
        y: the simulator's state.
        carry: what the solver carries from step to step.
        step: steps taken.
        solver: which solver carries it; another one starts afresh from `y`.
        refractory: steps for which each cell is still refractory; None for cells without a refractory period.
    """

    y: PyTree
    carry: PyTree
    step: Int[Array, ""]
    solver: str = eqx.field(static=True, default="")
    refractory: Int[Array, "*neuron"] | None = None


class Stepper(eqx.Module):
    """A fixed-step solver at a given step, ours or one of Diffrax's, under one face.

    `start(y, step)` makes from a state what the solver carries, `advance(carry, step)` takes one step, and
    `observe(carry, step)` tells the state. All loops over time are made of these three.
    """

    solver: Scheme = eqx.field(converter=as_scheme)
    term: MembraneTerm
    """What is integrated; its ends are those of the step."""
    dt: float = eqx.field(static=True)

    def at(self, step: Int[Array, ""], like: PyTree) -> tuple[MembraneTerm, Array, Array]:
        """The term of a step, when it begins, and how long it is: not the difference of rounded times."""
        dtype = jnp.result_type(*jax.tree.leaves(like))
        t0, t1 = step.astype(dtype) * self.dt, (step + 1).astype(dtype) * self.dt
        return dataclasses.replace(self.term, start=t0, end=t1, dt=self.dt), t0, jnp.asarray(self.dt, dtype)

    def start(self, y: PyTree, step: Int[Array, ""]) -> PyTree:
        """What is carried, at the beginning of a run."""
        return self.solver.start(*self.at(step, y), y)

    def advance(self, carry: PyTree, step: Int[Array, ""]) -> PyTree:
        """One step."""
        return self.watched(carry, step)[0]

    def watched(self, carry: PyTree, step: Int[Array, ""]) -> tuple[PyTree, Array | None]:
        """One step, and at which rate [1/ms] the first variable relaxed in it; None where the solver does not know."""
        return self.solver.watched(*self.at(step, carry), carry)

    def observe(self, carry: PyTree, step: Int[Array, ""]) -> Any:
        """The state, from what is carried."""
        return self.solver.observe(*self.at(step, carry), carry)


def require_integrable(
    simulator: ODESimulator,
    stimulus: Stimulus | None,
    solver: Any,
    dt: float,
    start: PyTree,
    gradient: Any = None,
) -> None:
    """Refuse a combination that cannot be integrated, before anything is compiled.

    Args:
        simulator: what to integrate.
        stimulus: what drives it.
        solver: how.
        dt: time step [ms].
        start: the initial state, or what was passed for it.
        gradient: how spikes are differentiated.

    Raises:
        ValueError: naming what is wrong, and what would be right.
    """
    name = type(simulator).__name__
    if not isinstance(solver, Adaptive | diffrax.AbstractSolver):
        raise ValueError(f"solver = {solver!r} must be one of jneuro.simulators.solvers, or one of Diffrax's")
    scheme = type(solver).__name__
    if isinstance(solver, diffrax.AbstractImplicitSolver):
        raise ValueError(f"{scheme} is implicit and needs tolerances; pass Adaptive({scheme}())")
    if isinstance(solver, StaggeredCrankNicolson) and not is_separable(simulator):
        raise ValueError(
            f"StaggeredCrankNicolson would be of first order for {name}, whose variables depend on each other in other "
            "ways than gates on the potential; take RK4 or RushLarsen"
        )
    if isinstance(solver, Adaptive) and solver.rtol < 1e-6 and _dtype(simulator, start) == jnp.float32:
        raise ValueError(f"Adaptive: rtol = {solver.rtol:g} is finer than single precision resolves; take 1e-6 or more")
    jumps = solver.jumps if isinstance(solver, Scheme | Adaptive) else True
    if (simulator.has_reset or _has_refractory(simulator)) and not jumps:
        raise ValueError(f"{scheme} cannot carry the jumps of {name} at its spikes; take RK4, or leave the solver out")
    if isinstance(gradient, Exact):
        if not simulator.has_threshold:
            raise ValueError(f"spike_gradient = Exact() needs spikes, but {name} has no threshold")
        if not (jumps and isinstance(solver, Scheme)):
            raise ValueError(f"spike_gradient = Exact() cannot divide a step of {scheme}; take RK4, or leave it out")
        if _has_refractory(simulator):
            raise ValueError(f"spike_gradient = Exact() knows no refractory period, which {name} has; take a Surrogate")
    _require_samples(stimulus, dt)
    if isinstance(solver, Adaptive) and stimulus is not None and stimulus.jumps().ndim != 1:
        raise ValueError("Adaptive stops at the jumps of the stimulus, which must be one row of times: jumps() is not")
    _require_state(simulator, start)
    cells_of(simulator, stimulus, start)
    if not _traced((simulator, _state(start))):
        _require_resolved(simulator, solver, dt, start)


def _require_samples(stimulus: Any, dt: float) -> None:
    """Refuse samples that the time step does not fit."""
    for sampled in jax.tree.leaves(stimulus, is_leaf=lambda x: isinstance(x, Sampled)):
        open_between = isinstance(sampled, Sampled) and sampled.hold is None and not _traced(sampled.dt)
        if open_between and float(sampled.dt) > dt * 1.0001:
            raise ValueError(
                f"the stimulus is sampled every {float(sampled.dt):g} ms, more coarsely than dt = {dt:g} ms; say what "
                "happens between samples: Sampled(..., hold=True) keeps the last, hold=False interpolates"
            )
        held = isinstance(sampled, Sampled) and sampled.hold is not False and not _traced(sampled.dt)
        if held and float(sampled.dt) < dt * 0.9999:
            raise ValueError(
                f"the stimulus is sampled every {float(sampled.dt):g} ms, more finely than dt = {dt:g} ms, so samples "
                f"would be skipped; take dt = {float(sampled.dt):g} or less, or average them over {dt:g} ms"
            )


def _dtype(*trees):
    found = [x for x in jax.tree.leaves(trees) if eqx.is_inexact_array(x)]
    return jnp.result_type(*(found or [float]))


def _state(start):
    return start.y if isinstance(start, ODEState) else start


def _traced(tree) -> bool:
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(tree))


def _has_refractory(simulator) -> bool:
    """Whether there is a refractory period: one that is a parameter may have any length."""
    return not isinstance(simulator.refractory, int | float) or simulator.refractory > 0


def _require_state(simulator, start):
    """Refuse what is no state of this simulator, or lies outside of the variables' bounds."""
    name, kind = type(simulator).__name__, type(jax.eval_shape(simulator.init, jax.random.key(0)))
    if kind is not simulator.State:
        raise ValueError(f"{name}: init must return a {name}.State, and returns a {kind.__name__}")
    if start is None:
        return
    if not isinstance(_state(start), kind):
        raise ValueError(f"{name} starts from a {name}.State or a recording's final_state, got {start!r}")
    for variable, value in zip(kind._fields, _state(start), strict=True):
        bounds = state_variables(kind)[variable].bounds
        if not isinstance(value, jax.Array | np.ndarray | np.generic | float | int):
            raise ValueError(f"{name}: the initial state has no value for {variable}")
        # A state on its way may leave its bounds by an error of the scheme.
        if not isinstance(start, ODEState) and not _traced(value) and not bounds.contain(np.asarray(value)):
            raise ValueError(f"{name}: {variable} = {value} in the initial state lies outside {bounds}")


def too_coarse(simulator: ODESimulator, solver: Any, dt: float, rate: float, when: str) -> str | None:
    """Say what is wrong with a time step, if anything is.

    Args:
        simulator: what is integrated.
        solver: how.
        dt: time step [ms].
        rate: the fastest relaxation [1/ms].
        when: it was seen.

    Returns:
        A sentence; None where the step resolves the relaxation.
    """
    limit = _scheme_of(solver).limit
    if not dt * rate > limit:
        return None
    stable = isinstance(solver, RushLarsen | StaggeredCrankNicolson)
    return (
        f"dt = {dt:g} ms is too large for {type(solver).__name__}: {type(simulator).__name__} relaxes at "
        f"{rate:.3g}/ms {when}, and dt times that rate must stay below {limit:g}, so take dt below "
        f"{limit / rate:.2g} ms" + ("" if stable else ", or an exponential scheme, RushLarsen()")
    )


def erred(simulator: ODESimulator, solver: Any, dt: float, coarse: Coarseness) -> str | None:
    """Say by how much a step erred, if by too much.

    Args:
        simulator: what was integrated.
        solver: how.
        dt: time step [ms].
        coarse: what was seen on the way.

    Returns:
        A sentence; None where steps were fine enough.
    """
    most, error = _scheme_of(solver).tolerance, float(coarse.error)
    if not error > most:
        return None
    name = "v" if "v" in simulator.State._fields else simulator.State._fields[0]
    return (
        f"dt = {dt:g} ms is too coarse for {type(solver).__name__}: at t = {int(coarse.erred) * dt:g} ms a step errs "
        f"by {100 * error:.2g} % of the range that {name} covers (cell {int(coarse.cell)}), and {100 * most:g} % is "
        f"the most; take dt below {dt * max((most / error) ** 0.5, 1e-2):.2g} ms"
    )


def _scheme_of(solver: Any) -> Any:
    """What has the limits of a solver."""
    if isinstance(solver, Adaptive):
        return solver
    return as_scheme(solver.solver if isinstance(solver, TimeParallel) else solver)


def _require_resolved(simulator, solver, dt, start):
    """Refuse a step that is too coarse at the very start, and two equations that contradict each other."""
    with jax.ensure_compile_time_eval():
        y = simulator.init(jax.random.key(0)) if start is None else _state(start)
        y = type(y)(*(jnp.asarray(x, _dtype(simulator)) for x in y))
        require_one_equation(simulator, y)
        rates = simulator.relaxation(y, 0.0)[1]
        rate = max(float(np.nanmax(np.where(np.isfinite(r), r, 0))) for r in rates)
    if fault := too_coarse(simulator, solver, dt, rate, "in its initial state"):
        raise ValueError(fault)


def cells_of(simulator: ODESimulator, stimulus: Stimulus | None, start: Any) -> tuple[int, ...]:
    """The shape of a variable, from all that has one value a cell.

    Args:
        simulator: what is simulated.
        stimulus: what drives it.
        start: the initial state, or None.

    Raises:
        ValueError: if they do not agree.
    """
    shapes = {"parameters": None, "stimulus": (), "initial state": ()}
    try:
        shapes["parameters"] = simulator.cells
        if stimulus is not None:
            shapes["stimulus"] = jax.eval_shape(stimulus, jnp.zeros(())).shape
        if start is not None:
            shapes["initial state"] = np.broadcast_shapes(*(np.shape(x) for x in jax.tree.leaves(_state(start))))
        shape = np.broadcast_shapes(*shapes.values())
    except ValueError as error:
        seen = ", ".join(f"{k} {v}" for k, v in shapes.items() if v is not None)
        raise ValueError(
            f"{type(simulator).__name__}: parameters, stimulus and initial state do not agree in the number of cells "
            f"({seen}); each must have one value, or one for every cell"
        ) from error
    if len(shape) > 1:
        raise ValueError(f"a population has one axis, got {shape}; use jax.vmap for more")
    return shape


def begin(
    simulator: ODESimulator, stimulus: Stimulus | None, key: Array, start: PyTree, solver: Any, dt: float
) -> ODEState:
    """Make the state from which to integrate.

    Args:
        simulator: what to integrate.
        stimulus: what drives it.
        key: key of the initial state.
        start: an `ODEState`, the bare state of the simulator, or None.
        solver: a fixed-step solver or `Adaptive`.
        dt: time step [ms].

    Returns:
        The state, of one value a cell, with what the solver carries.
    """
    if not isinstance(start, ODEState):
        start = ODEState(simulator.init(key) if start is None else start, None, jnp.int32(0))
    shape = cells_of(simulator, stimulus, start)
    dtype = _dtype(simulator, start.y)
    y = jax.tree.map(lambda x: jnp.broadcast_to(x, shape).astype(dtype), start.y)
    if isinstance(solver, Adaptive):
        return ODEState(y, None, start.step)
    name = type(solver).__name__
    stepper = Stepper(solver, MembraneTerm(simulator, stimulus), dt)
    carry = start.carry if start.solver == name else stepper.start(y, start.step)
    waiting = start.refractory
    if waiting is None and _has_refractory(simulator):
        waiting = jnp.zeros(shape, jnp.int32)
    return ODEState(y, carry, start.step, name, waiting)


def integrate(
    simulator: ODESimulator,
    stimulus: Stimulus | None,
    start: ODEState,
    solver: Any,
    frames: Frames,
    gradient: Any = None,
) -> tuple[ODEState, dict[str, Array], Any, Coarseness | None]:
    """Warm up, then record frame by frame.

    Args:
        simulator: what to integrate.
        stimulus: what drives it.
        start: where to start; see `begin`.
        solver: a fixed-step solver or `Adaptive`.
        frames: what to record.
        gradient: how spikes are differentiated: None, a `Surrogate` or `Exact`.

    Returns:
        The last state; the recorded values; whether the steps were fine enough; and the fastest relaxation on the way,
        None where the solver chooses its own steps.
    """
    exact = isinstance(gradient, Exact)
    with spike_gradient(None if exact else gradient):
        if isinstance(solver, Adaptive):
            return *_adaptive(simulator, stimulus, start, solver, frames), None
        if isinstance(solver, TimeParallel):
            final, values, watch = time_parallel(simulator, stimulus, start, solver, frames)
        else:
            final, values, watch = _fixed(simulator, stimulus, start, solver, frames, exact)
        scheme = _scheme_of(solver)
        still = lax.stop_gradient(Stepper(scheme, MembraneTerm(simulator, stimulus), frames.dt))
        coarse = _Loop(still, exact, 1, exact).judged(watch, min(WATCH, frames.warmup + frames.count * frames.every))
    fine = (coarse.rate * frames.dt <= scheme.limit) & (coarse.error <= scheme.tolerance)
    return final, values, fine, coarse


class _Loop:
    """Steps one after the other, with the spikes in them, and a look now and then at how fast the variables relax.

    What is handed on is `now`: what the solver carries, the number of the step, the refractory steps to come, the
    fastest relaxation of the first variable since the last look, where the solver tells it, how far the potential
    moved in the steepest step since then, and where it was a step ago.
    """

    def __init__(self, stepper: Stepper, counted: bool, every: int, exact: bool) -> None:
        """Take what does not change; `counted`: whether spikes are wanted, `exact`: located within steps."""
        self.stepper, self.counted, self.every, self.exact = stepper, counted, every, exact
        self.simulator = stepper.term.simulator
        self.advance = jax.checkpoint(lambda carry, step: stepper.watched(carry, step))

    def begin(self, start: ODEState) -> Any:
        """What is handed on at the beginning."""
        rate = jax.eval_shape(self.stepper.watched, start.carry, start.step)[1]
        fast = None if rate is None or self.exact else jnp.zeros_like(start.y[0])
        v = some(lax.stop_gradient(potential(start.y)))
        return start.carry, start.step, start.refractory, fast, (jnp.zeros_like(v), v)

    def _moved(self, moved: Any, carry: Any, step: Any) -> Any:
        """How far the potential moved in the steepest step, the last one included, and where it is.

        Told from what is carried: what a step has just computed, XLA would compute again for it.
        """
        (rise, last), v = moved, some(potential(self.stepper.observe(lax.stop_gradient(carry), step)))
        # Downward jumps are resets, which are no steps.
        return jnp.maximum(rise, v - last if self.simulator.has_reset else jnp.abs(v - last)), v

    def none(self, y: Any) -> Any:
        """No spikes yet, in a frame."""
        if not self.counted:
            return None
        if self.exact:
            return (jnp.zeros_like(y[0]),) * 3
        boolean = surrogate_in_force() is None
        return jnp.zeros(y[0].shape, np.min_scalar_type(self.every) if boolean else y[0].dtype)

    def step(self, now: Any, place: Any) -> tuple[Any, Any]:
        """One step, at its place in the frame: integrate, test, reset."""
        (carry, step, waiting, fast, moved), stepper, cell = now, self.stepper, self.simulator
        moved = self._moved(moved, carry, step)
        if self.exact:
            after, spiked, share = located_step(stepper, carry, step)
            return (after, step + 1, waiting, fast, moved), parts(spiked, (place + share) / self.every)
        after, rate = self.advance(carry, step)
        fast = None if rate is None else jnp.maximum(fast, lax.stop_gradient(rate))
        jumps = cell.has_reset or waiting is not None
        if not (jumps or self.counted):
            return (after, step + 1, waiting, fast, moved), None
        before, y = stepper.observe(carry, step), stepper.observe(after, step + 1)
        if waiting is not None:
            y = y._replace(**{n: jnp.where(waiting > 0, getattr(before, n), getattr(y, n)) for n in cell.held})
        fired = spike(cell.threshold(y), inclusive=True)
        may = True if cell.has_reset else cell.threshold(before) < 0
        may = may if waiting is None else may & (waiting == 0)
        fired = fired if may is True else jnp.where(may, fired, jnp.zeros_like(fired))
        if jumps:
            both = zip(y, cell.reset(y), strict=True)
            y = type(y)(*(a if a is b else reset(fired, a, to=b) for a, b in both))
            after = stepper.solver.moved(after, y)
        if waiting is not None:
            period = jnp.maximum(jnp.round(cell.refractory / stepper.dt) - 1, 0).astype(waiting.dtype)
            waiting = jnp.where(fired > 0, period, jnp.maximum(waiting - 1, 0))
        return (after, step + 1, waiting, fast, moved), fired

    def look(self, state: Any) -> Any:
        """Note how fast variables relax, where the potential is, and which window was steepest so far."""
        now, watch = state
        carry, step, waiting, fast, (rise, last) = lax.stop_gradient(now)
        term, t0, _ = self.stepper.at(step, carry)
        y = self.stepper.observe(carry, step)
        rates = lax.stop_gradient(term).relaxation(t0, y)[1]
        rates = (*rates, fast) if fast is not None else rates
        watch = watch.looked(rates, potential(y), rise, Place(carry, step, waiting))
        return (*now[:3], None if fast is None else jnp.zeros_like(fast), (jnp.zeros_like(rise), last)), watch

    def judged(self, watch: Watch, length: int) -> Coarseness:
        """The fastest relaxation, and the largest error of a step in the steepest window, of `length` steps."""
        carry, step, waiting = watch.steepest
        y = self.stepper.observe(carry, step)
        # A solver may remember more than one value a cell; of it, the state is kept.
        whole = all(jnp.shape(x) == y[0].shape for x in jax.tree.leaves(carry))
        start = ODEState(y, carry, step, "", waiting)

        def one(state, _):
            now, seen = state
            carry, step = now[:2]
            term, t0, h = self.stepper.at(step, carry)
            y = self.stepper.observe(carry, step)
            drive = jnp.broadcast_to(jnp.asarray(term.drive(t0 + 0.5 * h, y)), y[0].shape)
            fast = jnp.stack([jnp.max(r) for r in self.simulator.relaxation(y, drive)[1]]).max() if slow else None
            now, fired = self.step(now, 0)
            fired = sum(fired) if self.exact and self.counted else fired
            counts = True if fired is None or not self.simulator.has_reset else ~(fired > 0)
            v = potential(self.stepper.observe(now[0], step + 1))
            seen = seen.noted(potential(y), v, carry if whole else y, drive, step, counts)
            return (now, seen), None if fast is None else (fast, step)

        seen = Steepest.begin(potential(y), carry if whole else y, step)
        seen = seen._replace(low=watch.low, high=watch.high)
        now = self.begin(start)
        slow = now[3] is None  # a solver that tells no rates
        (_, seen), rates = scan(one, (now, seen), None, length=length, unroll=1)
        coarse = watch.coarse
        if rates is not None:
            k = jnp.argmax(jnp.nan_to_num(rates[0]))
            faster = rates[0][k] > coarse.rate
            coarse = Coarseness(*(jnp.where(faster, x[k], old) for x, old in zip(rates, coarse[:2], strict=True)))
        return local_error(self.stepper, seen, coarse, observed=not whole)

    def steps(self, now: Any, counts: Any, first: Any, length: int) -> tuple[Any, Any]:
        """Several steps, the first of them at the place `first` of its frame; and the spikes in them added up."""

        def one(state, place):
            now, fired = self.step(state[0], place)
            if not self.counted:
                return (now, None), None
            return (now, jax.tree.map(lambda c, f: c + f, state[1], fired)), None

        places = first + jnp.arange(length) if self.exact else None
        return scan(one, (now, counts), places, length=length)[0]

    def frame(self, state: Any, length: int) -> tuple[Any, Any]:
        """The steps of a frame, with looks between if there are many."""
        now, watch = state
        carry, step, *_ = now
        counts = self.none(self.stepper.observe(carry, step))
        if length <= WATCH:
            now, counts = self.steps(now, counts, 0, length)
            return (now, watch), counts

        def block(state, k):
            now, watch, counts = state
            now, counts = self.steps(now, counts, k * WATCH, WATCH)
            return (*self.look((now, watch)), counts), None

        whole, rest = divmod(length, WATCH)
        (now, watch, counts), _ = scan(block, (now, watch, counts), jnp.arange(whole), unroll=1)
        now, counts = self.steps(now, counts, whole * WATCH, rest) if rest else (now, counts)
        return (now, watch), counts


def _fixed(simulator, stimulus, start, solver, frames, exact):
    """A scan over frames of a scan over steps."""
    stepper = Stepper(solver, MembraneTerm(simulator, stimulus), frames.dt)
    loop = _Loop(stepper, "spikes" in frames.names, frames.every, exact)

    def frame(state, _):
        state, counts = loop.frame(state, frames.every)
        carry, step, *_ = state[0]
        t = step.astype(float) * frames.dt
        return state, _seen(simulator, stimulus, frames.names, stepper.observe(carry, step), counts, t)

    def several(state, count):
        state, values = scan(frame, state, None, length=count, unroll=1)
        return loop.look(state), values

    # Short frames are grouped, so that looking costs the same whatever the length of a frame.
    group = min(max(WATCH // frames.every, 1), max(frames.count, 1))
    place = Place(start.carry, start.step, start.refractory)
    watch = Watch.begin(*lax.stop_gradient((potential(start.y), place)))
    state = loop.look((loop.begin(start), watch))
    # Warmed up by the same loops as later, so that a compiler that optimises gives the same last bits.
    grouped, left = divmod(frames.warmup, group * frames.every)
    single, left = divmod(left, frames.every)
    for body, times in ((lambda s, _: several(s, group), grouped), (frame, single)):
        if times:
            state, _ = scan(lambda s, _, body=body: (body(s, None)[0], None), state, None, length=times, unroll=1)
    state = loop.frame(state, left)[0] if left else state
    state, values = frames.grouped(several, state, group)
    (carry, step, waiting, *_), watch = state
    if exact and "spikes" in frames.names:
        values["spikes"] = spread(*values["spikes"])
    return ODEState(stepper.observe(carry, step), carry, step, start.solver, waiting), values, watch


def _seen(simulator, stimulus, names, y, spikes, t):
    """What is recorded of a frame."""
    found = y._asdict() | {"spikes": spikes}
    if not set(names) <= set(found):
        current = jnp.broadcast_to(0.0 if stimulus is None else stimulus(t), y[0].shape).astype(y[0].dtype)
        found["current"] = current
    if not set(names) <= set(found):
        found |= {n: jnp.broadcast_to(x, y[0].shape) for n, x in simulator.observables(y, found["current"]).items()}
    return {name: found[name] for name in names}


def _adaptive(simulator, stimulus, start, solver, frames):
    """One call of Diffrax, which interpolates at the frames."""
    dtype, dt = start.y[0].dtype, frames.dt
    first = start.step + frames.warmup
    times = (first + frames.every * jnp.arange(1, frames.count + 1)).astype(dtype) * dt
    t0 = start.step.astype(dtype) * dt
    adjoint = solver.adjoint or diffrax.RecursiveCheckpointAdjoint(checkpoints=frames.checkpoint or 64)
    term, scheme, y = MembraneTerm(simulator, stimulus), _differentiable(solver.solver, stimulus, adjoint), start.y
    solution = diffrax.diffeqsolve(
        term,
        scheme,
        t0,
        times[-1],
        None,
        scheme.moved(term, t0, y) if isinstance(scheme, Saltating) else y,
        saveat=diffrax.SaveAt(ts=jnp.concatenate([(first.astype(dtype) * dt)[None], times])),
        stepsize_controller=_controller(stimulus, solver, t0, times[-1]),
        adjoint=adjoint,
        max_steps=solver.max_steps,
        throw=False,
    )
    saved: Any = solution.ys
    y, spikes = jax.tree.map(lambda x: x[1:], saved), None
    if "spikes" in frames.names:
        above = jax.vmap(simulator.threshold)(saved)
        spikes = jnp.where(above[:-1] < 0, spike(above[1:], inclusive=True), False)
    values = jax.vmap(lambda y, s, t: _seen(simulator, stimulus, frames.names, y, s, t))(y, spikes, times)
    final = ODEState(jax.tree.map(lambda x: x[-1], y), None, first + frames.every * frames.count)
    return final, values, solution.result == diffrax.RESULTS.successful


def _differentiable(solver, stimulus, adjoint):
    """The solver, also with respect to the times of the stimulus's jumps; it is told how to loop, as Diffrax would."""
    if stimulus is None or not stimulus.jumps().size:
        return solver
    if isinstance(solver, diffrax.AbstractRungeKutta) and solver.scan_kind is None:
        kinds = {diffrax.DirectAdjoint: "bounded", diffrax.ForwardMode: "lax"}
        solver = eqx.tree_at(lambda s: s.scan_kind, solver, kinds.get(type(adjoint)), is_leaf=lambda x: x is None)
    return Saltating(solver)


def _controller(stimulus, solver, t0, t1):
    """The step-size controller, told of the stimulus's jumps."""
    controller = diffrax.PIDController(rtol=solver.rtol, atol=solver.atol)
    jumps = None if stimulus is None else lax.stop_gradient(stimulus.jumps())
    if jumps is None or jumps.size == 0:
        return controller
    # Jumps outside of the run, infinite ones among them, are moved to its end, where they cost nothing; and so are
    # those that come together with others but for rounding.
    jumps = jnp.sort(jumps)
    near = 16 * jnp.finfo(jumps.dtype).eps * (1 + jnp.abs(jumps))
    inside = (jumps > t0 + near) & (jumps < t1) & (jnp.diff(jumps, prepend=-jnp.inf) > near)
    return diffrax.ClipStepSizeController(controller, jump_ts=jnp.sort(jnp.where(inside, jumps.astype(t1.dtype), t1)))
