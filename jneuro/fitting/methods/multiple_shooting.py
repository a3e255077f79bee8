r"""Multiple shooting: the trace in short segments, whose first states are free and must join.

A spiking cell's potential is a wild function of its parameters over 100 ms, and a tame one over 1 ms. The sum

\[ \sum \Big(\frac{v - v_{data}}{\sigma}\Big)^2 + \sum_b \Big| W \frac{y_b(\text{end}) - s_{b+1}}{\varsigma} \Big|^2
   + \Big|\frac{q - q_0}{\pi}\Big|^2 \]

over data, gaps between the end of a segment and the state \(s_{b+1}\) in which the next one begins, and a weak prior,
is minimised by Gauss–Newton steps in all states and parameters at once. The gaps are closed little by little.
"""

from typing import Annotated, Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import Field

from jneuro.core.progress import SILENT, Task
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Key
from jneuro.fitting.methods.block_arrow import Arrow, Eliminated, eliminate, substitute
from jneuro.fitting.methods.least_squares import Method
from jneuro.fitting.methods.levenberg_marquardt import Rule, Stand
from jneuro.fitting.methods.weak_form import driven, held_current, linear_stage, roles, suits, upsampled
from jneuro.fitting.objectives import Residuals
from jneuro.fitting.parameters import random_starts
from jneuro.fitting.problem import CellProblem, integrate
from jneuro.fitting.solution import Keep, Solution, faults, named

__all__ = ["Segments", "Shooting", "Shots", "first_states", "shoot"]

_GAP = 1e-2
"""Gap, in shares of a variable's range, that weighs as much as a residual of one standard deviation at a width of 1."""
_LONGEST_STEP = 0.25
"""Of a parameter, in unconstrained numbers."""
_CHI2, _LITTLE = 0.02, 1.0
"""A stage ends where the equations promise to lower the sum by less: the last one, and the others, which also end with
a step that lowers it by less."""
_RULE = Rule(factor=8.0, low=None, high=None, floor=1e-3, uphill=3)
"""Damping at its floor counts as none, so that nothing creeps along a ridge."""
_STUCK = 1e8
"""Damping at which a stage is given up."""
_FARTHEST = 1.0
"""How far from the simulator's own values the linear stage is believed, in unconstrained numbers."""
_DEVIATIONS = 10
"""A data cost that lies so many of its standard deviations above 1 is not the noise alone."""
_TOGETHER = 5
"""Steps in one call of the program, about a second."""


class Segments(NamedTuple):
    """The data, cut.

    Attributes:
        v: measured potential [mV], with zeros after the end.
        seen: 1 where there is a sample.
        current: the current at each sample.
        before: the current until the first sample.
        weight: of a gap in each variable.
        growth: by how much the logarithm of each state grows with each parameter when the potential is given.
        prior: centre and standard deviation of the parameters.
    """

    v: Float[Array, "trial segment time"]
    seen: Float[Array, "1 segment time"]
    current: Float[Array, "trial segment time"]
    before: Float[Array, "trial segment"]
    weight: Float[Array, " state"]
    growth: Float[Array, "trial segment state parameter"]
    prior: tuple[Float[Array, " parameter"], float]


class Shots(NamedTuple):
    """Where a fit stands.

    Attributes:
        q: parameters, in unconstrained numbers.
        states: the state in which each segment begins.
        cost: the sum that is minimised.
        data_cost: mean squared residual of the potential.
        gap_cost: mean square of the weighted gaps.
        prediction: the potential [mV].
        covariance: of the parameters in unconstrained numbers, all states being free.
        history: the sum at the end of each stage.
        iterations: Gauss–Newton steps taken or refused.
        converged: whether the equations of the last stage promise almost nothing more.
    """

    q: Float[Array, " parameter"]
    states: Float[Array, "trial segment state"]
    cost: Float[Array, ""]
    data_cost: Float[Array, ""]
    gap_cost: Float[Array, ""]
    prediction: Float[Array, "trial segment time"]
    covariance: Float[Array, "parameter parameter"]
    history: Float[Array, " stage"]
    iterations: Array
    converged: Array


def first_states(
    problem: CellProblem, q: Float[Array, " parameter"], samples: int, follow: tuple[int, ...], prior: tuple
):
    """Cut the data, and drive the states by them.

    Args:
        problem: the fit.
        q: the parameters with which to drive.
        samples: samples in a segment.
        follow: parameters on which driven states depend.
        prior: centre and standard deviation of the parameters.

    Returns:
        The segments, and the states in which they begin, `[trial, segment, state]`.
    """
    target = problem.target
    count = -(-target.frames // samples)
    spare = count * samples - target.frames

    def cut(x):
        return jnp.pad(x, ((0, 0), (0, spare))).reshape(len(x), count, samples)

    current = jnp.asarray(target.current)
    before = jnp.concatenate([current[:, :1], current[:, samples - 1 : -1 : samples]], 1)[:, :count]
    states, ranges, time, growth = _driven(problem, q, upsampled(target), held_current(target), samples, count, follow)
    # A gap in a slow variable lasts; it must be as much smaller, or it pays for a wrong conductance.
    weight = jnp.maximum(1.0, time / (samples * target.dt)) / (_GAP * ranges)
    seen = cut(jnp.ones_like(current[:1]))
    return Segments(cut(jnp.asarray(target.v)), seen, cut(current), before, weight, growth, prior), states


@eqx.filter_jit
def _driven(problem, q, v, current, samples, count, follow):
    """States at the beginning of segments, their ranges, time constants, and growth with the parameters."""
    stride = 2 * samples

    def states(q):
        cell, start = problem.unpack(problem.pack(q))
        return driven(cell, start, v, current, problem.target.dt)

    def beginnings(q):
        return jnp.stack([x[:, ::stride][:, :count] for x in states(q)], -1)

    cell = problem.trainable.insert(problem.simulator, problem.trainable.constrain(q))
    course = states(q)
    flat = jax.tree.map(lambda x: x[:, :-1].ravel(), course)
    rate = cell.relaxation(flat, current.ravel())[1]
    time = jnp.stack([1 / jnp.mean(r * jnp.ones_like(flat.v)) for r in rate]).at[0].set(0.0)
    ranges = jnp.stack([jnp.maximum(jnp.ptp(x), 1e-9) for x in course])
    here, growth = beginnings(q), jnp.zeros((problem.target.trials, count, len(course), len(q)))
    for i in follow:
        slope = jax.jvp(beginnings, (q,), (jnp.zeros_like(q).at[i].set(1.0),))[1]
        growth = growth.at[..., i].set(jnp.where(jnp.abs(here) > 1e-12, slope / here, 0.0))
    # The measured potential is no better where the true one is known.
    here = here.at[:, 0].set(jnp.stack(problem.unpack(problem.pack(q))[1], -1))
    return here, ranges, time, growth.at[:, :, 0].set(0.0)


def shoot(
    problem: CellProblem,
    segments: Segments,
    q: Float[Array, " parameter"],
    states: Float[Array, "trial segment state"],
    widths: Float[Array, " stage"],
    steps: int,
    progress: Task = SILENT,
) -> Shots:
    r"""Gauss–Newton steps with ever narrower gaps, some in each call of one compiled program.

    Args:
        problem: the fit.
        segments: the data.
        q: first parameters.
        states: first states.
        widths: \(\varsigma\) of each stage.
        steps: most steps of a stage.
        progress: told how it goes on, from 0 to 1.

    Returns:
        The end of the last stage.
    """
    shooting, stages, samples = _Shooting(problem, segments, widths), len(widths), problem.target.v.size
    loop = shooting.begin(q, states)
    while (stage := int(loop.stage)) < stages:
        text = f"stage {stage + 1} of {stages}, step {int(loop.step)}"
        share = (stage + int(loop.step) / steps) / stages
        lowest = float(loop.stand.best.cost) / samples if loop.total else float("nan")
        progress.update(share, text=text, cost=lowest)
        loop = _go_on(shooting, loop, steps)
    best: _Point = loop.stand.best
    spread = jnp.linalg.inv(best.equations.corner)
    return Shots(*best[:3], *best.seen, spread, loop.history, loop.total, loop.done)


@eqx.filter_jit
def _go_on(shooting: "_Shooting", loop: "_Loop", steps: int) -> "_Loop":
    """A few steps more."""
    end = loop.total + _TOGETHER

    def unfinished(loop):
        return (loop.stage < len(shooting.widths)) & (loop.total < end)

    return lax.while_loop(unfinished, lambda loop: shooting.step(loop, steps), loop)


class _Point(NamedTuple):
    """A place, its sum of squares, and the equations there."""

    q: Array
    states: Array
    cost: Array
    seen: tuple[Array, Array, Array]
    equations: Eliminated


class _Loop(NamedTuple):
    """Where the loop stands; a stage is fresh before its first evaluation, which is no step."""

    stand: Stand
    stage: Array
    step: Array
    total: Array
    history: Array
    done: Array


class _Shooting(eqx.Module):
    """The sum of squares, its Gauss–Newton equations, and a step."""

    problem: CellProblem
    segments: Segments
    widths: Array

    @eqx.filter_jit
    def begin(self, q, states) -> _Loop:
        """Before anything is evaluated."""
        (trials, count, size), zero, none = states.shape, jnp.zeros(()), jnp.zeros((), int)
        back = jnp.zeros((count, trials, size, size)), jnp.zeros((count, trials, size, len(q) + 1))
        equations = Eliminated(jnp.eye(len(q)), jnp.zeros(len(q)), zero, back)
        point = _Point(q, states, zero, (zero, zero, jnp.zeros_like(self.segments.v)), equations)
        return _Loop(Stand.at(point, _RULE.floor), none, none, none, jnp.zeros(len(self.widths)), jnp.asarray(False))

    def run(self, q, states):
        """Potential `[trial, segment, time]` and last state `[trial, segment, state]`."""
        problem, s = self.problem, self.segments
        cell = problem.trainable.insert(problem.simulator, problem.trainable.constrain(q))
        trials, count, samples = s.v.shape
        kind = type(jax.eval_shape(cell.init, jax.random.key(0)))
        start = kind(*jnp.moveaxis(states.reshape(trials * count, -1), 1, 0))
        course = integrate(
            cell,  # pyright: ignore
            start,
            s.current.reshape(-1, samples).T,
            before=s.before.reshape(1, -1),
            dt=problem.target.dt,
            steps=problem.steps,
            solver=problem.solver,
        )
        last = jnp.stack([x[-1] for x in course], -1)
        return course.v.T.reshape(s.v.shape), last.reshape(states.shape)

    def cost(self, q, states, width):
        """The sum of squares; and mean squares of data and gaps, and the potential."""
        s = self.segments
        v, last = self.run(q, states)
        data = (v - s.v) * s.seen / self.problem.target.noise_sd
        gaps, prior = (last[:, :-1] - states[:, 1:]) * (s.weight[None, None] / width), (q - s.prior[0]) / s.prior[1]
        squares = jnp.sum(data * data), jnp.sum(gaps * gaps)
        means = squares[0] / (jnp.sum(self.segments.seen) * len(data)), squares[1] / max(gaps.size, 1)
        return squares[0] + squares[1] + jnp.sum(prior * prior), (*means, v)

    def equations(self, q, states, width) -> Arrow:
        """The normal equations of a Gauss–Newton step."""
        size, shared = states.shape[-1], len(q)
        s, noise = self.segments, self.problem.target.noise_sd

        def along(direction):
            step = jnp.broadcast_to(direction[shared:], states.shape)
            return jax.jvp(self.run, (q, states), (direction[:shared], step))

        (v, last), (slopes, ends) = jax.vmap(along, out_axes=(None, 0))(jnp.eye(shared + size))
        slopes, residual = slopes * (s.seen[None] / noise), (v - s.v) * (s.seen / noise)
        hessian = jnp.einsum("ircn,jrcn->rcij", slopes, slopes)
        gradient = jnp.einsum("ircn,rcn->rci", slopes, residual)
        # The last segment joins nothing.
        ends = jnp.moveaxis(ends, 0, -1).at[:, -1].set(0.0)
        gap = jnp.zeros_like(states).at[:, :-1].set(last[:, :-1] - states[:, 1:])
        centre, spread = s.prior
        arrow = Arrow(
            diagonal=hessian[..., shared:, shared:],
            border=hessian[..., shared:, :shared],
            gradient=gradient[..., shared:],
            onward=ends[..., shared:],
            drift=ends[..., :shared],
            gap=gap,
            variance=jnp.square(width / s.weight),
            corner=jnp.sum(hessian[..., :shared, :shared], (0, 1)) + jnp.eye(shared) / spread**2,
            corner_gradient=jnp.sum(gradient[..., :shared], (0, 1)) + (q - centre) / spread**2,
        )
        return self._anchored(arrow)

    def _anchored(self, arrow: Arrow) -> Arrow:
        """Hold the first states, if they are known; else tie them weakly, as the data may say nothing of some."""
        if self.problem.free_start:
            tie = jnp.square(self.segments.weight * _GAP)
            return arrow._replace(diagonal=arrow.diagonal.at[:, 0].add(jnp.diag(tie)))
        return arrow._replace(
            diagonal=arrow.diagonal.at[:, 0].set(jnp.eye(arrow.diagonal.shape[-1])),
            border=arrow.border.at[:, 0].set(0.0),
            gradient=arrow.gradient.at[:, 0].set(0.0),
            onward=arrow.onward.at[:, 0].set(0.0),
        )

    def step(self, loop: _Loop, steps: int) -> _Loop:
        """Try one step; take it if it leads down, or may yet; and go on to the next stage at the end of one."""
        width, last, stand = self.widths[loop.stage], loop.stage + 1 == len(self.widths), loop.stand
        moved = self._moved(stand)
        q, states = (jnp.where(stand.fresh, *pair) for pair in zip(stand.here[:2], moved, strict=True))
        cost, seen = self.cost(q, states, width)
        verdict = _RULE.judge(stand, cost)

        def point():
            return _Point(q, states, cost, seen, eliminate(self.equations(q, states, width)))

        visited = lax.cond(verdict.accepted | verdict.daring, point, lambda: stand.best)
        after = _RULE.advance(stand, visited, verdict)
        little = verdict.accepted & ~stand.fresh & ~last & (stand.best.cost - cost < _LITTLE)
        done = little | (after.best.equations.decrement < jnp.where(last, _CHI2, _LITTLE))
        ends = done | (loop.step >= steps) | (after.damping > _STUCK)
        here = jax.tree.map(lambda new, old: jnp.where(ends, new, old), after.best, after.here)
        damping, uphill = jnp.where(ends, _RULE.floor, after.damping), jnp.where(ends, 0, after.uphill)
        return _Loop(
            Stand(here, after.best, damping, uphill, ends),
            loop.stage + ends,
            jnp.where(ends, 0, loop.step + 1),
            loop.total + 1,
            loop.history.at[loop.stage].set(after.best.cost),
            done,
        )

    def _moved(self, stand: Stand) -> tuple[Array, Array]:
        """The place to which a damped step leads."""
        q, states, _, _, equations = stand.here
        damping = jnp.where(stand.damping > _RULE.floor, stand.damping, 0.0)
        share = jnp.sqrt(jnp.minimum(1.0, 1e-2 / jnp.maximum(damping, 1e-2)))
        corner = equations.corner + damping * jnp.diag(jnp.diag(equations.corner))
        step = jnp.clip(-jnp.linalg.solve(corner, equations.gradient), -_LONGEST_STEP, _LONGEST_STEP)
        # States are not damped, or they would pay for the parameters; a refused step is shortened as a whole.
        moved, step = share * substitute(equations, step), share * step
        # Calcium grows with its conductance, far beyond what is linear; such growth is taken along its own law.
        grown = self.segments.growth @ step
        return q + step, (states + moved - states * grown) * jnp.exp(grown)


class Shooting(Method):
    """Multiple shooting, from the linear stage, and from other starts as long as the data are not explained.

    A weak prior around the simulator's own values decides what the data do not.

    Attributes:
        segment_ms: length of a segment [ms]; 1 or 2.
        widths: widths of the gaps between segments, stage by stage; see `shoot`.
        steps: most Gauss–Newton steps of a stage.
        starts: most starts: the linear stage, the simulator's own values, then random ones.
        prior: standard deviation of the parameters, in unconstrained numbers.
    """

    name: Literal["shooting"] = "shooting"
    segment_ms: float = Field(default=1.0, gt=0)
    widths: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.0, 0.1, 0.03, 0.01, 0.003, 0.001), min_length=1
    )
    steps: int = Field(default=50, ge=1)
    starts: int = Field(default=3, ge=1)
    prior: float = Field(default=0.4, gt=0)

    def search(self, residuals: Residuals, key: Key[Array, ""], progress: Task, keep: Keep) -> Solution:
        """Shoot from one start after the other.

        Raises:
            ValueError: if something else than the potential is to be matched, or by a simulator that is not an ODE.
        """
        problem: Any = residuals.problem
        if not (problem.continuous and residuals.of_potential_alone):
            raise ValueError("shooting matches the potential of an ODE simulator; take another method or objective")
        found: list[tuple[Shots, str]] = []
        for i, q in enumerate(self._starts(problem, key)):
            part = progress.part(name := f"start {i + 1} of {self.starts}", i / self.starts, (i + 1) / self.starts)
            shots = named(keep, name)("end", Shots, lambda q=q, part=part: self._shoot(problem, q, part))
            found.append((shots, _fault(problem, shots)))
            if not found[-1][1]:
                break
        cost = jnp.stack([s.cost / problem.target.v.size for s, _ in found])
        shots, fault = found[int(jnp.argmin(jnp.where(jnp.isfinite(cost), cost, jnp.inf)))]
        # A step is a run, and a column of the Jacobian for each parameter and state.
        columns = shots.states.shape[-1] + len(shots.q)
        return Solution(
            jnp.stack([_packed(problem, s) for s, _ in found]),
            jnp.where(jnp.isfinite(cost), cost, jnp.inf),
            jnp.stack([s.history for s, _ in found]) / problem.target.v.size,
            jnp.stack([s.converged for s, _ in found]),
            sum(int(s.iterations) for s, _ in found) * (2 + columns),
            prediction=shots.prediction.reshape(problem.target.trials, -1)[:, : problem.target.frames],
            covariance=None if problem.free_start else shots.covariance,
            fault=fault,
        )

    def _starts(self, problem: CellProblem, key: Key[Array, ""]):
        """The starts, one after the other."""
        trainable, simulator = problem.trainable, problem.simulator
        own = trainable.values(simulator)
        middle = trainable.unconstrain(own)
        starts = [middle, *random_starts(trainable, own, self.starts, spread=self.spread, key=stream(key, "starts"))]
        if suits(simulator, trainable):
            linear = trainable.unconstrain(linear_stage(simulator, trainable, problem.target))  # pyright: ignore
            starts.insert(0, jnp.clip(linear, middle - _FARTHEST, middle + _FARTHEST))
        return starts[: self.starts]

    def _shoot(self, problem: CellProblem, q: Float[Array, " parameter"], progress: Task) -> Shots:
        """From one start."""
        trainable, samples = problem.trainable, max(1, round(self.segment_ms / problem.target.dt))
        middle = trainable.unconstrain(trainable.values(problem.simulator))
        follow = roles(problem.simulator, trainable).scanned  # pyright: ignore
        segments, states = first_states(problem, q, samples, follow, (middle, self.prior))
        return shoot(problem, segments, q, states, jnp.asarray(self.widths), self.steps, progress)


def _fault(problem: CellProblem, shots: Shots) -> str:
    """Why the end of a start should not be believed; empty if it can be."""
    limit = 1 + _DEVIATIONS * np.sqrt(2 / problem.target.v.size)
    data, gap = float(shots.data_cost), float(shots.gap_cost)
    return "; ".join(faults(data_cost=data, accept=limit, of=" of the segments", gap=gap))


def _packed(problem: CellProblem, shots: Shots) -> Float[Array, " unknown"]:
    """The problem's vector."""
    if not problem.free_start:
        return shots.q
    v, *rest = jnp.moveaxis(shots.states[:, 0], 1, 0)
    rest = [jnp.log(jnp.maximum(x, 1e-6)) for x in rest]
    return jnp.concatenate([shots.q, (v - problem.target.v[:, 0]) / 10, *rest])
