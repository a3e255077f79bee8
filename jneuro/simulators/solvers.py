r"""How the ODE simulators are integrated: fixed-step schemes, and Diffrax's adaptive ones.

Every scheme is a Diffrax solver. `simulate(..., solver=...)` takes

- one of the schemes here, or an explicit Runge–Kutta solver of Diffrax's, and steps it by `dt` in a plain scan;
- `Adaptive(diffrax.Tsit5())` and its like, which chooses its steps by the estimated error and stops at the stimulus's
  jumps.

| scheme | order | for |
|---|---|---|
| `Euler`, `Heun`, `RK4` | 1, 2, 4 | explicit; the step must resolve the fastest rate |
| `RushLarsen` | 1 | exponential Euler; stable at any step |
| `StaggeredCrankNicolson` | 2 | gates half a step from the potential; stable at any step; separable simulators only |
| `SequentialEuler` | 1 | the potential, then the rest, as in Izhikevich's program |
"""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Float, PyTree
from jneuro.simulators.base import Drive
from jneuro.simulators.stimuli import Stimulus, before_end, moved_jumps

__all__ = [
    "RK4",
    "Adaptive",
    "Euler",
    "Heun",
    "MembraneTerm",
    "RushLarsen",
    "Saltating",
    "Scheme",
    "SequentialEuler",
    "StaggeredCrankNicolson",
    "as_scheme",
    "gain",
]


def gain(simulator: Any, y: Any, current: Float[Array, "*neuron"] | float) -> Float[Array, "*neuron"]:
    r"""How much a current moves the potential, \(\partial\dot v/\partial I\).

    Args:
        simulator: the cell.
        y: its state.
        current: the current, in the simulator's unit.

    Returns:
        The derivative, of the shape of the potential.
    """
    current = jnp.asarray(current, y.v.dtype)
    return jax.jvp(lambda i: simulator.vector_field(y, i).v, (current,), (jnp.ones_like(current),))[1]


class MembraneTerm(diffrax.AbstractTerm):
    """A simulator under its stimulus, as Diffrax's solvers see it."""

    simulator: Any
    """An `ODESimulator`."""
    stimulus: Stimulus | None
    start: Float[Array, ""] | None = None
    """Beginning of the step [ms]: what jumps in it counts by its share; None: the stimulus is that of an instant."""
    end: Float[Array, ""] | None = None
    """End of the step [ms]; what begins there is of the next one."""
    dt: float | Float[Array, ""] | None = None
    """Length of the step [ms], where the difference of its rounded ends is not good enough."""

    def drive(self, t: Float[Array, ""], y: PyTree) -> Float[Array, "*neuron"] | float | Drive:
        """What drives the cell at time `t` [ms], in state `y`: a current, or a `Drive`; here, the stimulus."""
        del y
        if self.stimulus is None:
            return 0.0
        if self.start is not None:
            return self.stimulus.over(t, self.start, cast(Any, self.dt))
        return self.stimulus(t if self.end is None else before_end(self.stimulus, t, self.end))

    def relaxation(self, t: Float[Array, ""], y: Any) -> tuple[Any, Any]:
        """Steady values and rates [1/ms]; see `ODESimulator.relaxation`."""
        drive = self.drive(t, y)
        if not isinstance(drive, Drive):
            return self.simulator.relaxation(y, drive)
        steady, rate = self.simulator.relaxation(y, drive.current)
        if drive.conductance is None:
            return steady, rate
        total = rate.v + gain(self.simulator, y, drive.current) * drive.conductance
        return steady._replace(v=rate.v * steady.v / total), rate._replace(v=total)

    def vf(self, t, y, args):
        """The vector field."""
        del args
        drive = self.drive(jnp.asarray(t), y)
        if isinstance(drive, Drive):
            current, conductance = drive
            drive = current if conductance is None else current - conductance * y.v
        return self.simulator.vector_field(y, drive)

    def contr(self, t0, t1, **kwargs):
        """The length of the step."""
        del kwargs
        return t1 - t0 if self.dt is None else jnp.asarray(self.dt, jnp.result_type(t1))

    def prod(self, vf, control):
        """Their product."""
        return jax.tree.map(lambda f: f * control, vf)


class Adaptive(eqx.Module):
    """Let an embedded error estimate choose the steps.

    `dt` of `simulate` is then only the grid on which frames lie. A run that is cut and continued starts with a new
    step, so it agrees with the whole to the tolerance only.
    """

    solver: diffrax.AbstractSolver
    """Such as `diffrax.Tsit5()`, `diffrax.Dopri8()`, or `diffrax.Kvaerno5()` for stiff kinetics."""
    rtol: float = eqx.field(default=1e-5, static=True)
    """Relative tolerance."""
    atol: float = eqx.field(default=1e-7, static=True)
    """Absolute tolerance, the same for all variables; gates and concentrations are small."""
    max_steps: int = eqx.field(default=1_000_000, static=True)
    """Most steps between the beginning and the end."""
    adjoint: diffrax.AbstractAdjoint | None = None
    """None: reverse mode. `diffrax.ForwardMode()` for `jax.jvp` and `jax.jacfwd`."""

    limit: ClassVar[float] = math.inf
    tolerance: ClassVar[float] = math.inf
    jumps: ClassVar[bool] = False

    def __check_init__(self) -> None:
        """Refuse what cannot work."""
        if not isinstance(self.solver, diffrax.AbstractAdaptiveSolver):
            raise ValueError(
                f"Adaptive: {type(self.solver).__name__} estimates no error; pass it as a fixed-step solver"
            )
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"Adaptive: {name} = {value} must be positive")
        if not isinstance(self.max_steps, int) or self.max_steps < 1:
            raise ValueError(f"Adaptive: max_steps = {self.max_steps!r} must be a positive whole number")
        kinds = diffrax.RecursiveCheckpointAdjoint | diffrax.ForwardMode | diffrax.DirectAdjoint | None
        if not isinstance(self.adjoint, kinds):
            raise ValueError(
                f"Adaptive: {type(self.adjoint).__name__} is not offered, because its gradients are those of another "
                "equation; take RecursiveCheckpointAdjoint, ForwardMode or DirectAdjoint"
            )


class Saltating(diffrax.AbstractWrappedSolver):
    """A solver after whose stops at jumps of the stimulus the state depends on when they are.

    That the step ends at a jump is no derivative: times of steps are constants. At the jump the state moves by its time
    times the difference of the slopes before and after it, as for any jump of a vector field.

    References:
        Dieci L., Lopez L., Journal of Computational and Applied Mathematics 236 (2012) 3967, for the saltation matrix.
    """

    solver: diffrax.AbstractSolver

    @property
    def term_structure(self):  # pyright: ignore
        """See Diffrax."""
        return self.solver.term_structure

    @property
    def interpolation_cls(self):  # pyright: ignore
        """See Diffrax."""
        return self.solver.interpolation_cls

    @property
    def scan_kind(self) -> Any:
        """How the solver loops over its stages, which it has been told."""
        return cast(Any, self.solver).scan_kind or "checkpointed"

    @property
    def root_finder(self) -> Any:
        """That of an implicit solver."""
        return cast(Any, self.solver).root_finder

    def order(self, terms):
        """Order of convergence."""
        return self.solver.order(terms)

    def error_order(self, terms):
        """See Diffrax."""
        return self.solver.error_order(terms)

    def init(self, terms, t0, t1, y0, args):
        """See Diffrax."""
        return self.solver.init(terms, t0, t1, y0, args)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """See Diffrax."""
        y0 = lax.cond(jnp.asarray(made_jump), lambda y: self.moved(_unwrapped(terms), t0, y), lambda y: y, y0)
        terms = eqx.tree_at(lambda t: _unwrapped(t).end, terms, t1, is_leaf=lambda x: x is None)
        return self.solver.step(terms, t0, t1, y0, args, solver_state, made_jump)

    def func(self, terms, t0, y0, args):
        """See Diffrax."""
        return self.solver.func(terms, t0, y0, args)

    @staticmethod
    def moved(term: MembraneTerm, t: Any, y: Any) -> Any:
        """The state after a jump of the stimulus, with its derivative with respect to when that is.

        Args:
            term: what is integrated.
            t: when [ms], up to rounding.
            y: the state before.
        """
        drive = term.drive(jnp.asarray(t), y)
        shift = moved_jumps(cast(Stimulus, term.stimulus), jnp.asarray(t))
        there, here = (term.simulator.vector_field(y, i) for i in (cast(Any, drive) + shift, drive))
        return jax.tree.map(lambda x, a, b: x + (a - b).astype(x.dtype), y, there, here)


class Scheme(diffrax.AbstractSolver):
    """A fixed-step scheme; abstract. It carries something from step to step, from which the state can be told."""

    term_structure: ClassVar = MembraneTerm
    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation
    limit: ClassVar[float] = 2.0
    """Largest product of step and rate: of an explicit scheme, at which a decay does not grow (2, for those of first
    and second order); of others, at which it is still followed."""
    tolerance: ClassVar[float] = 0.03
    """Largest local error of a step, as a share of the range that the potential covers in the run."""
    jumps: ClassVar[bool] = True
    """Whether a state may be set to another one between two steps, as a reset does."""

    def start(self, term: MembraneTerm, t: Array, dt: Array, y: PyTree) -> PyTree:
        """Make from the state what is carried: here, the state itself."""
        del term, t, dt
        return y

    @abc.abstractmethod
    def advance(self, term: MembraneTerm, t: Array, dt: Array, carry: PyTree) -> PyTree:
        """Take one step from time `t`."""

    def watched(self, term: MembraneTerm, t: Array, dt: Array, carry: PyTree) -> tuple[PyTree, Array | None]:
        """Take one step, and tell at which rate [1/ms] the first variable relaxed in it, where that costs nothing."""
        return self.advance(term, t, dt, carry), None

    def observe(self, term: MembraneTerm, t: Array, dt: Array, carry: PyTree) -> PyTree:
        """Tell the state at time `t` from what is carried."""
        del term, t, dt
        return carry

    def moved(self, carry: PyTree, y: PyTree) -> PyTree:
        """What is carried, once the state has been set to `y`; see `jumps`."""
        del carry
        return y

    def init(self, terms, t0, t1, y0, args):
        """See Diffrax."""
        del args
        term, t0, t1 = _unwrapped(terms), jnp.asarray(t0), jnp.asarray(t1)
        return self.start(term, t0, jnp.asarray(term.contr(t0, t1)), y0)

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        """See Diffrax."""
        del args, made_jump
        term, t0, t1 = _unwrapped(terms), jnp.asarray(t0), jnp.asarray(t1)
        dt = jnp.asarray(term.contr(t0, t1))
        carry = self.advance(term, t0, dt, solver_state)
        y1 = self.observe(term, t1, dt, carry)
        return y1, None, {"y0": y0, "y1": y1}, carry, diffrax.RESULTS.successful

    def func(self, terms, t0, y0, args):
        """See Diffrax."""
        return terms.vf(t0, y0, args)


class _OfDiffrax(Scheme):
    """One of Diffrax's solvers, stepped by `dt`; it carries the state, and what the solver remembers."""

    solver: Any

    def start(self, term, t, dt, y):
        """See `Scheme`."""
        return y, self.solver.init(term, t, term.end, y, None)

    def advance(self, term, t, dt, carry):
        """See `Scheme`."""
        (y, state), solver = carry, self.solver
        if isinstance(solver, diffrax.AbstractRungeKutta) and solver.scan_kind is None:
            # Diffrax's own choice for the loop over stages has no forward mode.
            solver = eqx.tree_at(lambda s: s.scan_kind, solver, "bounded", is_leaf=lambda x: x is None)
        # A first-same-as-last stage would remember the stimulus from before a jump.
        end: Any = term.end
        y, _, _, state, _ = solver.step(term, t, end, y, None, state, jnp.asarray(True))
        return y, state

    def observe(self, term, t, dt, carry):
        """See `Scheme`."""
        return carry[0]

    def moved(self, carry, y):
        """See `Scheme`."""
        return y, carry[1]


def as_scheme(solver: diffrax.AbstractSolver) -> Scheme:
    """A fixed-step solver as a scheme: itself, or one of Diffrax's wrapped.

    Args:
        solver: the solver.
    """
    return solver if isinstance(solver, Scheme) else _OfDiffrax(solver)


def _unwrapped(term: Any) -> MembraneTerm:
    """The term itself, which `diffeqsolve` wraps to be able to run backwards in time; we run forwards."""
    return term if isinstance(term, MembraneTerm) else term.term


class _Explicit(Scheme):
    """An explicit Runge–Kutta scheme given by its tableau; abstract."""

    nodes: ClassVar[tuple[float, ...]]
    coupling: ClassVar[tuple[float, ...]]
    """Each stage's weight of the stage before it, the only one that it uses."""
    weights: ClassVar[tuple[float, ...]]

    def advance(self, term, t, dt, carry):
        """One step; a barrier after each stage keeps XLA from computing a stage again for every use of it."""
        # A step of another length in every cell is taken variable by variable.
        packed = _packed if jnp.ndim(dt) == 0 else lambda y: (y, lambda z: z)
        z, unpack = packed(carry)
        stages: list[PyTree] = []
        for node, factor in zip(self.nodes, self.coupling, strict=True):
            at = z if not stages else _plus(z, stages[-1], factor * dt)
            field, _ = packed(term.vf(t + node * dt, unpack(lax.optimization_barrier(at)), None))
            stages.append(lax.optimization_barrier(field))
        for weight, stage in zip(self.weights, stages, strict=True):
            z = _plus(z, stage, weight * dt)
        return unpack(z)


def _plus(y: PyTree, f: PyTree, factor: Array) -> PyTree:
    return jax.tree.map(lambda a, b: a + factor * b, y, f)


def _packed(y: PyTree) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """Lay the variables of a population out as one array, which is one kernel a stage instead of one a variable."""
    shapes = {jnp.shape(x) for x in y}
    if shapes == {()} or len(shapes) > 1:
        return y, lambda z: z
    return jnp.stack(y), lambda z: type(y)(*z)


class Euler(_Explicit):
    """Forward Euler."""

    limit: ClassVar = 2.0
    # Of first order, as programs that use it have it.
    tolerance: ClassVar = 0.1
    nodes: ClassVar = (0.0,)
    coupling: ClassVar = (0.0,)
    weights: ClassVar = (1.0,)

    def order(self, terms):
        """Order of convergence."""
        return 1


class Heun(_Explicit):
    """Heun's second-order method, the explicit trapezoidal rule."""

    limit: ClassVar = 2.0
    nodes: ClassVar = (0.0, 1.0)
    coupling: ClassVar = (0.0, 1.0)
    weights: ClassVar = (0.5, 0.5)

    def order(self, terms):
        """Order of convergence."""
        return 2


class RK4(_Explicit):
    """The classical fourth-order Runge–Kutta method.

    References:
        Kutta W., Zeitschrift für Mathematik und Physik 46 (1901) 435.
    """

    limit: ClassVar = 2.785
    tolerance: ClassVar = 0.01
    nodes: ClassVar = (0.0, 0.5, 0.5, 1.0)
    coupling: ClassVar = (0.0, 0.5, 0.5, 1.0)
    weights: ClassVar = (1 / 6, 1 / 3, 1 / 3, 1 / 6)

    def order(self, terms):
        """Order of convergence."""
        return 4


class RushLarsen(Scheme):
    r"""Exponential Euler: every variable relaxes exactly towards the steady value that it has at the step's start.

    \[ y_k(t + \Delta t) = \bar y_k + (y_k - \bar y_k)\,e^{-r_k \Delta t} \]

    References:
        Rush S., Larsen H., IEEE Trans. Biomed. Eng. 25 (1978) 389.
    """

    # A rate that takes a deviation away within a step has itself changed by then.
    limit: ClassVar = 4.0

    def order(self, terms):
        """Order of convergence."""
        return 1

    def advance(self, term, t, dt, carry):
        """One step."""
        return self.watched(term, t, dt, carry)[0]

    def watched(self, term, t, dt, carry):
        """See `Scheme`."""
        steady, rate = lax.optimization_barrier(term.relaxation(t, carry))
        if not term.simulator.has_relaxation:
            # Where a rate is nearly zero, the steady value is far away.
            return jax.tree.map(lambda x, s, r: x - (s - x) * jnp.expm1(-dt * r), carry, steady, rate), rate[0]
        return jax.tree.map(lambda x, s, r: s + (x - s) * jnp.exp(-dt * r), carry, steady, rate), rate[0]


class StaggeredCrankNicolson(Scheme):
    r"""The trapezoidal rule for potential and gates in turn, half a step apart, each linear given the other.

    \[ y_k(t + \Delta t) = \frac{(1 - \tfrac12 r_k\Delta t)\,y_k + r_k\Delta t\,\bar y_k}{1 + \tfrac12 r_k\Delta t} \]

    The scheme carries the gates at the half step; recorded gates are moved to the full step by half a step more.

    References:
        Hines M., International Journal of Bio-Medical Computing 15 (1984) 69.
    """

    # A trapezoid's step multiplies a deviation by −1/3 here, where exp(−4) is right: it rings instead of decaying.
    limit: ClassVar = 4.0
    jumps: ClassVar = False

    def order(self, terms):
        """Order of convergence."""
        return 2

    def start(self, term, t, dt, y):
        """The state, its gates half a step earlier."""
        return _trapezoid(term, t, y, -0.5 * dt, gates=True)[0]

    def advance(self, term, t, dt, carry):
        """One step: the gates past the potential, then the potential past the gates."""
        return self.watched(term, t, dt, carry)[0]

    def watched(self, term, t, dt, carry):
        """See `Scheme`."""
        gates = lax.optimization_barrier(_trapezoid(term, t, carry, dt, gates=True)[0])
        y, rate = _trapezoid(term, t + 0.5 * dt, gates, dt, gates=False)
        return lax.optimization_barrier(y), rate.v

    def observe(self, term, t, dt, carry):
        """The gates moved by half a step."""
        return _trapezoid(term, t, carry, 0.5 * dt, gates=True)[0]


def _trapezoid(term: MembraneTerm, t: Array, y: Any, dt: Array, *, gates: bool) -> tuple[Any, Any]:
    """Move the gates, or the potential, by `dt`; the other stays. Also the rates."""
    steady, rate = term.relaxation(t, y)
    moved = [
        (x * (1 - 0.5 * dt * r) + dt * r * s) / (1 + 0.5 * dt * r) if (name != "v") == gates else x
        for name, x, s, r in zip(y._fields, y, steady, rate, strict=True)
    ]
    return type(y)(*moved), rate


class SequentialEuler(Scheme):
    """Forward Euler for the potential, in equal parts, and then for all else, which sees the new potential.

    References:
        Izhikevich E. M., IEEE Transactions on Neural Networks 14 (2003) 1569, the program of Figure 3: 1 ms in 2 parts.
    """

    # The published program, with steps of 1 ms, errs by half a spike in one: steps are judged by its rates alone.
    tolerance: ClassVar = math.inf
    substeps: int = eqx.field(static=True, default=1)
    """Parts in which the potential, the first variable, takes a step."""

    @property
    def limit(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The potential, the fastest variable, takes a step in parts."""
        return 2.0 * self.substeps

    def __check_init__(self) -> None:
        """Refuse what is no number of parts."""
        if not isinstance(self.substeps, int) or self.substeps < 1:
            raise ValueError(f"SequentialEuler: substeps = {self.substeps!r} must be a positive whole number")

    def order(self, terms):
        """Order of convergence."""
        return 1

    def advance(self, term, t, dt, carry):
        """One step."""
        y = carry
        for _ in range(self.substeps):
            y = type(y)(y[0] + (dt / self.substeps) * term.vf(t, y, None)[0], *y[1:])
        field = term.vf(t, y, None)
        return type(y)(y[0], *(x + dt * f for x, f in zip(y[1:], field[1:], strict=True)))
