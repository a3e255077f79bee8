"""From an ODE simulator to a recording: a scan of fixed steps, or Diffrax's adaptive ones."""

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
from jneuro.recordings.recording import Recording
from jneuro.simulators.adjoint import TimeParallel, time_parallel
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.solvers import Adaptive, MembraneTerm, Scheme
from jneuro.simulators.stepping import finite, repeat
from jneuro.simulators.stimuli import Sampled, Stimulus

__all__ = ["ODEState", "begin", "integrate", "require_integrable"]


class ODEState(eqx.Module):
    """Where a run of an ODE simulator can be continued.

    Attributes:
        y: the simulator's state.
        carry: what the solver carries from step to step.
        step: steps taken.
        solver: which solver carries it; another one starts afresh from `y`.
    """

    y: PyTree
    carry: PyTree
    step: Int[Array, ""]
    solver: str = eqx.field(static=True, default="")


class _Steps(eqx.Module):
    """A fixed-step solver at a given step, ours or one of Diffrax's, under one face."""

    solver: Any
    simulator: ODESimulator
    stimulus: Stimulus | None
    dt: float = eqx.field(static=True)

    def _at(self, step, like):
        """The term of a step, and when it begins and ends: its length is not the difference of rounded times."""
        dtype = jnp.result_type(*jax.tree.leaves(like))
        t0, t1 = step.astype(dtype) * self.dt, (step + 1).astype(dtype) * self.dt
        return MembraneTerm(self.simulator, self.stimulus, t1, self.dt), t0, t1

    def start(self, y, step):
        """What is carried, at the beginning of a run."""
        term, t0, t1 = self._at(step, y)
        if isinstance(self.solver, Scheme):
            return self.solver.start(term, t0, jnp.asarray(self.dt, t0.dtype), y)
        return y, self.solver.init(term, t0, t1, y, None)

    def advance(self, carry, step):
        """One step."""
        term, t0, t1 = self._at(step, carry)
        if isinstance(self.solver, Scheme):
            return self.solver.advance(term, t0, jnp.asarray(self.dt, t0.dtype), carry)
        y, state = carry
        solver = self.solver
        if isinstance(solver, diffrax.AbstractRungeKutta) and solver.scan_kind is None:
            # Diffrax's own choice for the loop over stages has no forward mode.
            solver = eqx.tree_at(lambda s: s.scan_kind, solver, "bounded", is_leaf=lambda x: x is None)
        # A first-same-as-last stage would remember the stimulus from before a jump.
        y, _, _, state, _ = solver.step(term, t0, t1, y, None, state, jnp.asarray(True))
        return y, state

    def observe(self, carry, step):
        """The state, from what is carried."""
        if isinstance(self.solver, Scheme):
            term, t0, _ = self._at(step, carry)
            return self.solver.observe(term, t0, jnp.asarray(self.dt, t0.dtype), carry)
        return carry[0]


def require_integrable(
    simulator: ODESimulator, stimulus: Stimulus | None, solver: Any, dt: float, start: PyTree
) -> None:
    """Refuse a combination that cannot be integrated, before anything is compiled.

    Args:
        simulator: what to integrate.
        stimulus: what drives it.
        solver: how.
        dt: time step [ms].
        start: the initial state, or what was passed for it.

    Raises:
        ValueError: naming what is wrong, and what would be right.
    """
    name = type(simulator).__name__
    if not isinstance(solver, Adaptive | diffrax.AbstractSolver):
        raise ValueError(f"solver = {solver!r} must be one of jneuro.simulators.solvers, or one of Diffrax's")
    if isinstance(solver, diffrax.AbstractImplicitSolver):
        raise ValueError(
            f"{type(solver).__name__} is implicit and needs tolerances; pass Adaptive({type(solver).__name__}())"
        )
    if type(solver).__name__ == "StaggeredCrankNicolson" and not simulator.separable:
        raise ValueError(
            f"StaggeredCrankNicolson would be of first order for {name}, whose instantaneous gates follow the "
            "potential; take RK4 or RushLarsen"
        )
    if isinstance(solver, Adaptive) and solver.rtol < 1e-6 and _dtype(simulator, start) == jnp.float32:
        raise ValueError(f"Adaptive: rtol = {solver.rtol:g} is finer than single precision resolves; take 1e-6 or more")
    _require_stable(simulator, solver, dt)
    for sampled in jax.tree.leaves(stimulus, is_leaf=lambda x: isinstance(x, Sampled)):
        if (
            isinstance(sampled, Sampled)
            and sampled.hold is None
            and not _traced(sampled.dt)
            and float(sampled.dt) > dt * 1.0001
        ):
            raise ValueError(
                f"the stimulus is sampled every {float(sampled.dt):g} ms, more coarsely than dt = {dt:g} ms; say what "
                "happens between samples: Sampled(..., hold=True) keeps the last, hold=False interpolates"
            )
    expected = type(jax.eval_shape(simulator.init, jax.random.key(0)))
    if start is not None and not isinstance(_state(start), expected):
        raise ValueError(f"{name} starts from a {expected.__name__} or a recording's final_state, got {start!r}")
    _shape(simulator, stimulus, start)


def _dtype(*trees):
    return jnp.result_type(*(x for x in jax.tree.leaves(trees) if eqx.is_inexact_array(x)))


def _state(start):
    return start.y if isinstance(start, ODEState) else start


def _traced(tree) -> bool:
    return any(isinstance(x, Tracer) for x in jax.tree.leaves(tree))


def _require_stable(simulator, solver, dt):
    """Refuse a step with which the fastest relaxation would grow."""
    limit = solver.limit if isinstance(solver, Scheme) else 2.0
    if isinstance(solver, Adaptive) or limit == np.inf or _traced(simulator):
        return
    rate = simulator.fastest_rate()
    if dt * rate > limit:
        raise ValueError(
            f"dt = {dt:g} ms is too large for {type(solver).__name__}: {type(simulator).__name__} relaxes at up to "
            f"{rate:.3g}/ms, so take dt below {limit / rate:.2g} ms, or RushLarsen(), which is stable at any step"
        )


def _shape(simulator, stimulus, start) -> tuple[int, ...]:
    """The shape of a variable, from all that has one value a cell."""
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
    shape = _shape(simulator, stimulus, start)
    dtype = _dtype(simulator, start.y)
    y = jax.tree.map(lambda x: jnp.broadcast_to(x, shape).astype(dtype), start.y)
    if isinstance(solver, Adaptive):
        return ODEState(y, None, start.step)
    name = type(solver).__name__
    carry = start.carry if start.solver == name else _Steps(solver, simulator, stimulus, dt).start(y, start.step)
    return ODEState(y, carry, start.step, name)


def integrate(
    simulator: ODESimulator,
    stimulus: Stimulus | None,
    start: ODEState,
    *,
    solver: Any,
    dt: float,
    names: tuple[str, ...],
    frames: int,
    record_every: int,
    warmup: int,
    checkpoint: int | None,
) -> Recording:
    """Warm up, then record frame by frame.

    Args:
        simulator: what to integrate.
        stimulus: what drives it.
        start: where to start; see `begin`.
        solver: a fixed-step solver or `Adaptive`.
        dt: time step [ms].
        names: what to record.
        frames: how many frames.
        record_every: steps in a frame.
        warmup: steps before the first frame.
        checkpoint: frames between kept states in reverse mode.

    Returns:
        The recording.
    """
    run: Any = _fixed
    if isinstance(solver, Adaptive | TimeParallel):
        run = _adaptive if isinstance(solver, Adaptive) else time_parallel
    values, ok, final = run(simulator, stimulus, start, solver, dt, names, frames, record_every, warmup, checkpoint)
    return Recording(
        values=values,
        ok=ok & finite((values, final)),
        first_step=start.step + warmup,
        final_state=final,
        step=dt,
        record_every=record_every,
        frames=frames,
        unit_pairs=tuple((n, simulator.recordables[n].unit) for n in names),
    )


def _fixed(simulator, stimulus, start, solver, dt, names, frames, every, warmup, checkpoint):
    """A scan over frames of a scan over steps."""
    steps = _Steps(solver, simulator, stimulus, dt)
    advance = jax.checkpoint(lambda carry, step: steps.advance(carry, step))

    def one_step(state, _):
        carry, step = state
        return (advance(carry, step), step + 1), None

    def one_counted_step(state, _):
        (carry, step), spikes = state
        before = steps.observe(carry, step).v
        state, _ = one_step((carry, step), None)
        return (state, spikes + _crossed(simulator, before, steps.observe(*state).v)), None

    def frame(state, _):
        if "spikes" in names:
            none = jnp.zeros(start.y.v.shape, np.min_scalar_type(every))
            (state, spikes), _ = scan(one_counted_step, (state, none), None, length=every)
        else:
            state, spikes = scan(one_step, state, None, length=every)
        carry, step = state
        return state, _seen(simulator, stimulus, names, steps.observe(carry, step), spikes, step.astype(float) * dt)

    state = (start.carry, start.step)
    state, _ = scan(one_step, state, None, length=warmup)
    (carry, step), values = repeat(frame, state, frames, checkpoint)
    return values, True, ODEState(steps.observe(carry, step), carry, step, start.solver)


def _seen(simulator, stimulus, names, y, spikes, t):
    """What is recorded of a frame."""
    found = y._asdict() | {"spikes": spikes}
    if "current" in names:
        found["current"] = jnp.broadcast_to(0.0 if stimulus is None else stimulus(t), y.v.shape).astype(y.v.dtype)
    return {name: found[name] for name in names}


def _crossed(simulator, before, after):
    return (before < simulator.v_spike) & (after >= simulator.v_spike)


def _adaptive(simulator, stimulus, start, solver, dt, names, frames, every, warmup, checkpoint):
    """One call of Diffrax, which interpolates at the frames."""
    dtype = start.y.v.dtype
    first = start.step + warmup
    times = (first + every * jnp.arange(1, frames + 1)).astype(dtype) * dt
    t0 = start.step.astype(dtype) * dt
    solution = diffrax.diffeqsolve(
        MembraneTerm(simulator, stimulus),
        solver.solver,
        t0,
        times[-1],
        None,
        start.y,
        saveat=diffrax.SaveAt(ts=jnp.concatenate([(first.astype(dtype) * dt)[None], times])),
        stepsize_controller=_controller(stimulus, solver, t0, times[-1]),
        adjoint=solver.adjoint or diffrax.RecursiveCheckpointAdjoint(checkpoints=checkpoint or 64),
        max_steps=solver.max_steps,
        throw=False,
    )
    saved: Any = solution.ys
    before, y = saved.v[:-1], jax.tree.map(lambda x: x[1:], saved)
    spikes = _crossed(simulator, before, y.v).astype(np.min_scalar_type(every))
    values = jax.vmap(lambda y, s, t: _seen(simulator, stimulus, names, y, s, t))(y, spikes, times)
    ok = solution.result == diffrax.RESULTS.successful
    return values, ok, ODEState(jax.tree.map(lambda x: x[-1], y), None, first + every * frames)


def _controller(stimulus, solver, t0, t1):
    """The step-size controller, told of the stimulus's jumps."""
    controller = diffrax.PIDController(rtol=solver.rtol, atol=solver.atol)
    jumps = None if stimulus is None else lax.stop_gradient(stimulus.jumps())
    if jumps is None or jumps.size == 0:
        return controller
    # Jumps outside of the run, infinite ones among them, are moved to its end, where they cost nothing.
    inside = (jumps > t0) & (jumps < t1)
    return diffrax.ClipStepSizeController(controller, jump_ts=jnp.sort(jnp.where(inside, jumps.astype(t1.dtype), t1)))
