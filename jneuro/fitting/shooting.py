r"""Multiple shooting: the trace in short segments, whose first states are free and must join.

A spiking cell's potential is a wild function of its parameters over 100 ms, and a tame one over 1 ms. The sum

\[ \sum \Big(\frac{v - v_{data}}{\sigma}\Big)^2 + \sum_b \Big| W \frac{y_b(\text{end}) - s_{b+1}}{\varsigma} \Big|^2
   + \Big|\frac{q - q_0}{\pi}\Big|^2 \]

over data, gaps between the end of a segment and the state \(s_{b+1}\) in which the next one begins, and a weak prior,
is minimised by Gauss–Newton steps in all states and parameters at once. The gaps are closed little by little.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.progress import SILENT, Task
from jneuro.core.types import Array, Float
from jneuro.fitting.arrow import Arrow, Eliminated, eliminate, substitute
from jneuro.fitting.driven import driven, held_current, upsampled
from jneuro.fitting.problem import Problem, integrate

__all__ = ["Segments", "Shots", "first_states", "shoot"]

_GAP = 1e-2
"""Gap, in shares of a variable's range, that weighs as much as a residual of one standard deviation at a width of 1."""
_LONGEST_STEP = 0.25
"""Of a parameter, in unconstrained numbers."""
_CHI2, _LITTLE = 0.02, 1.0
"""A stage ends where the equations promise to lower the sum by less: the last one, and the others, which also end with
a step that lowers it by less."""
_FREE, _STUCK = 1e-3, 1e8
"""Damping that is no more than none, so that nothing creeps along a ridge; and damping at which a stage is given up."""
_UPHILL = 3
"""Steps in a row that may lead up while there is no damping."""
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


def first_states(problem: Problem, q: Float[Array, " parameter"], samples: int, follow: tuple[int, ...], prior: tuple):
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
    problem: Problem,
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
        progress.update(share, text=text, cost=float(loop.best.cost) / samples if loop.total else float("nan"))
        loop = _go_on(shooting, loop, steps)
    spread = jnp.linalg.inv(loop.best.equations.corner)
    return Shots(*loop.best[:3], *loop.best.seen, spread, loop.history, loop.total, loop.done)


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

    here: _Point
    best: _Point
    uphill: Array
    damping: Array
    stage: Array
    fresh: Array
    step: Array
    total: Array
    history: Array
    done: Array


class _Shooting(eqx.Module):
    """The sum of squares, its Gauss–Newton equations, and a step."""

    problem: Problem
    segments: Segments
    widths: Array

    @eqx.filter_jit
    def begin(self, q, states) -> _Loop:
        """Before anything is evaluated."""
        (trials, count, size), zero, none, no = states.shape, jnp.zeros(()), jnp.zeros((), int), jnp.asarray(False)
        back = jnp.zeros((count, trials, size, size)), jnp.zeros((count, trials, size, len(q) + 1))
        equations = Eliminated(jnp.eye(len(q)), jnp.zeros(len(q)), zero, back)
        point = _Point(q, states, zero, (zero, zero, jnp.zeros_like(self.segments.v)), equations)
        damping, history = jnp.asarray(_FREE), jnp.zeros(len(self.widths))
        return _Loop(point, point, none, damping, none, ~no, none, none, history, no)

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
        width, last = self.widths[loop.stage], loop.stage + 1 == len(self.widths)
        moved_q, moved_states = self._moved(loop)
        q, states = jnp.where(loop.fresh, loop.here.q, moved_q), jnp.where(loop.fresh, loop.here.states, moved_states)
        cost, seen = self.cost(q, states, width)
        down = loop.fresh | (cost < loop.best.cost)
        # Joints are stiff, and a long step bends them; the next one straightens them again.
        daring = ~down & jnp.isfinite(cost) & (loop.uphill < _UPHILL) & (loop.damping <= _FREE)

        def point():
            return _Point(q, states, cost, seen, eliminate(self.equations(q, states, width)))

        here = lax.cond(down | daring, point, lambda: loop.best)
        best = jax.tree.map(lambda new, old: jnp.where(down, new, old), here, loop.best)
        little = down & ~loop.fresh & ~last & (loop.best.cost - cost < _LITTLE)
        done = little | (best.equations.decrement < jnp.where(last, _CHI2, _LITTLE))
        damping = jnp.where(down, jnp.maximum(loop.damping / 8, _FREE), loop.damping * 8)
        damping = jnp.where(loop.fresh | daring, _FREE, damping)
        ends = done | (loop.step >= steps) | (damping > _STUCK)
        return _Loop(
            jax.tree.map(lambda new, old: jnp.where(ends, new, old), best, here),
            best,
            jnp.where(daring & ~ends, loop.uphill + 1, 0),
            damping,
            loop.stage + ends,
            ends,
            jnp.where(ends, 0, loop.step + 1),
            loop.total + 1,
            loop.history.at[loop.stage].set(best.cost),
            done,
        )

    def _moved(self, loop: _Loop) -> tuple[Array, Array]:
        """The place to which a damped step leads."""
        (q, states, _, _, equations), damping = loop.here, jnp.where(loop.damping > _FREE, loop.damping, 0.0)
        share = jnp.sqrt(jnp.minimum(1.0, 1e-2 / jnp.maximum(damping, 1e-2)))
        corner = equations.corner + damping * jnp.diag(jnp.diag(equations.corner))
        step = jnp.clip(-jnp.linalg.solve(corner, equations.gradient), -_LONGEST_STEP, _LONGEST_STEP)
        # States are not damped, or they would pay for the parameters; a refused step is shortened as a whole.
        moved, step = share * substitute(equations, step), share * step
        # Calcium grows with its conductance, far beyond what is linear; such growth is taken along its own law.
        grown = self.segments.growth @ step
        return q + step, (states + moved - states * grown) * jnp.exp(grown)
