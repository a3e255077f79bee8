r"""Conductances from one linear regression, without a start: the weak form of the membrane's equation.

Given the potential, gates are stable filters of it (`driven`): their course follows from the data, whatever the
conductances, while a free run may lose the data at its first wrong spike. Conductances then enter \(\dot v\)
linearly. Against test functions \(\varphi\) that vanish at both ends, the potential need not be differentiated:

\[ -\int \dot\varphi\, v\, dt = \int \varphi\, \Big( f_0 + \sum_k g_k \frac{\partial \dot v}{\partial g_k} \Big) dt \]

The noise of the potential enters the regressors, most of all at spikes, whence the robust reweighting.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from scipy.interpolate import CubicSpline
from scipy.optimize import nnls

from jneuro.core.types import Array, Float, PyTree
from jneuro.fitting.parameters import Trainable, double
from jneuro.fitting.problem import Trials, clamped
from jneuro.simulators.ode import ODESimulator

__all__ = ["Roles", "driven", "held_current", "linear_stage", "roles", "suits", "upsampled"]

_FINE = 4
"""Points of the interpolated potential in a sample."""
_WIDTH, _STRIDE = 6.0, 1.0
"""Length and distance of the test functions [ms]."""
_PRIOR = 0.5
"""Standard deviation of a value around the simulator's own, in shares of it; decides only what the data do not."""
_ROUNDS = 25
_STATES = 6
_TUNING = 1.0
"""Residuals beyond so many scales lose weight; small, as many tests touch a spike."""
_SCAN = (np.linspace(-1.2, 1.2, 9), np.linspace(-0.3, 0.3, 7), np.linspace(-0.1, 0.1, 5))
r"""Where parameters that enter in other ways are tried, in unconstrained numbers around the best so far."""


def upsampled(target: Trials) -> Float[Array, "trial fine"]:
    """Interpolate the measured potential by a cubic spline, four points a sample, from time 0 on.

    Args:
        target: the data.

    Returns:
        The potential [mV]. At time 0 it is that of the known start, or else that of the first sample.
    """
    v = np.asarray(target.v)
    first = v[:, 0] if target.start is None else np.asarray(target.start.v)
    spline = CubicSpline(np.arange(target.frames + 1), np.concatenate([first[:, None], v], 1), axis=1)
    return jnp.asarray(spline(np.arange(_FINE * target.frames + 1) / _FINE))


def held_current(target: Trials) -> Float[Array, "trial half"]:
    """The current in each half sample.

    Args:
        target: the data.

    Returns:
        The current, in the target's unit; two values a sample.
    """
    current = jnp.asarray(target.current)
    return jnp.repeat(jnp.concatenate([current[:, :1], current[:, :-1]], 1), 2, axis=1)


def driven(
    simulator: ODESimulator,
    start: PyTree,
    v: Float[Array, "trial fine"],
    current: Float[Array, "trial half"],
    dt: float,
) -> Any:
    r"""Integrate all variables but the potential, which is given, by the exponential midpoint rule.

    \[ y_k(t + h) = \bar y_k + (y_k(t) - \bar y_k)\,e^{-r_k h}, \quad \bar y_k, r_k \text{ at } t + \tfrac12 h \]

    Args:
        simulator: the cell.
        start: the states at time 0, each leaf `[trial]`.
        v: the potential [mV], from `upsampled`.
        current: the current, from `held_current`.
        dt: time between samples [ms].

    Returns:
        The states at every half sample, time 0 among them: each leaf `[trial, half + 1]`.
    """
    h = 2 * dt / _FINE

    def relaxed(y, state, current, h):
        steady, rate = simulator.relaxation(state, current)
        return jax.tree.map(lambda x, s, r: s + (x - s) * jnp.exp(-r * h), y, steady, rate)

    def step(y, inputs):
        middle, after, current = inputs
        half = relaxed(y, y, current, h / 2)._replace(v=middle)
        y = relaxed(y, half, current, h)._replace(v=after)
        return y, y

    v, current = v.T, current.T
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, v.shape[1:]).astype(v.dtype), start)
    first = start._replace(v=v[0])
    _, states = lax.scan(step, first, (v[1::2], v[2::2], current))
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]).T, first, states)


class Roles(NamedTuple):
    r"""How each trainable parameter enters \(\dot v\), given the state.

    Attributes:
        linear: linearly, as conductances do.
        inverse: as a factor of everything, inverted, as the capacitance does.
        scanned: in other ways, such as through calcium; these are scanned.
    """

    linear: tuple[int, ...]
    inverse: tuple[int, ...]
    scanned: tuple[int, ...]


def roles(simulator: ODESimulator, trainable: Trainable) -> Roles:
    """Tell by trial how each parameter enters.

    Args:
        simulator: the cell.
        trainable: the parameters.

    Returns:
        Their indices by role.
    """
    base = np.asarray(trainable.values(simulator))
    rest = simulator.init(jax.random.key(0))
    # Any states will do, if they are unlike each other; gates and concentrations are positive.
    fill = [0.1 + 0.13 * ((k + 2 * np.arange(_STATES)) % 6) for k in range(len(rest) - 1)]
    state = type(rest)(float(rest.v) + 12.0 * np.arange(_STATES), *fill)

    def field(*moved, factor=1.5):
        values = base.copy()
        for i in moved:
            values[i] = factor * base[i] if base[i] != 0 else factor - 1
        found = _field(trainable.insert(simulator, jnp.asarray(values)), state, jnp.linspace(0.0, 2.0, _STATES))
        return [np.asarray(x) for x in found]

    here = field()
    linear, inverse, scanned = [], [], []
    for i in range(len(base)):
        there = field(i)
        change = there[0] - here[0]
        together = field(*linear, i)[0] - field(*linear)[0]
        if not all(map(_same, here[1:], there[1:])):
            scanned.append(i)
        elif base[i] != 0 and not inverse and _same(there[0] * 1.5, here[0]):
            inverse.append(i)
        elif _same(together, change) and _same(field(i, factor=2.0)[0] - here[0], 2 * change):
            linear.append(i)
        else:
            scanned.append(i)
    return Roles(tuple(linear), tuple(inverse), tuple(scanned))


@eqx.filter_jit
def _field(simulator: ODESimulator, state: Any, drive: Array) -> Any:
    """The vector field at given states."""
    return simulator.vector_field(state, drive)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.allclose(a, b, rtol=1e-6, atol=1e-9))


def suits(simulator: Any, trainable: Trainable) -> bool:
    """Whether the linear stage can say anything.

    Args:
        simulator: what is fitted.
        trainable: which of its parameters.

    Returns:
        True for a cell without a reset of which at least one trainable parameter is a conductance.
    """
    if not isinstance(simulator, ODESimulator) or simulator.has_reset:
        return False
    return bool(roles(double(simulator), trainable).linear)


def linear_stage(simulator: ODESimulator, trainable: Trainable, target: Trials) -> Float[Array, " parameter"]:
    r"""Regress conductances, and the capacitance, on the data.

    Parameters that enter in other ways are scanned outside of the regression, one after the other. To be called under
    `double_precision`.

    Args:
        simulator: the cell; its own values are a weak prior, and where the scans begin.
        trainable: the parameters.
        target: the data.

    Returns:
        The values, inside of their bounds.

    Raises:
        ValueError: if no trainable parameter enters linearly.
    """
    simulator, target = double(simulator), double(target)
    role = roles(simulator, trainable)
    if not role.linear:
        raise ValueError(
            f"the linear stage needs a conductance among the trainable parameters; {', '.join(trainable.names)} enter "
            f"the potential of {type(simulator).__name__} in other ways"
        )
    regression = _Regression(simulator, trainable, role, target)
    q = own = np.asarray(trainable.unconstrain(trainable.values(simulator)))
    best = regression.solve(q[None])[0]
    for offsets in _SCAN if role.scanned else ():
        for i in role.scanned:
            tried = np.tile(q, (len(offsets), 1))
            tried[:, i] += offsets
            found = regression.solve(tried, best.scale)
            least = int(
                np.argmin([s.cost + ((x[i] - own[i]) / _PRIOR) ** 2 for s, x in zip(found, tried, strict=True)])
            )
            q, best = tried[least], found[least]
    return trainable.inside(jnp.asarray(best.values))


class _Solution(NamedTuple):
    values: np.ndarray
    cost: float
    scale: float


class _Regression:
    """The data, interpolated once, and what has to be known of the parameters."""

    def __init__(self, simulator, trainable, role, target):
        self.trainable, self.role = trainable, role
        self.own = np.asarray(trainable.values(simulator))
        self.data = (upsampled(target), held_current(target), clamped(simulator, target))
        self.simulator, self.dt = simulator, target.dt

    def solve(self, q: np.ndarray, scale: float | None = None) -> list[_Solution]:
        """Regress once for every row of `q`, of which the scanned parameters count."""
        values, linear = self.trainable.constrain(jnp.asarray(q)), jnp.asarray(self.role.linear)
        cells = jax.vmap(lambda v: self.trainable.insert(self.simulator, v))(values)
        nothing = jax.tree.map(jnp.zeros_like, self.simulator)
        directions = jax.vmap(lambda e: self.trainable.insert(nothing, e))(jnp.eye(q.shape[1])[linear])
        capacitance = values[:, self.role.inverse[0]] if self.role.inverse else None
        parts = _weak(cells, directions, values[:, linear], capacitance, *self.data, self.dt)
        return [self._robust(np.asarray(v), *p, scale) for v, *p in zip(values, *map(np.asarray, parts), strict=True)]  # pyright: ignore

    def _robust(self, values, columns, right, scale) -> _Solution:
        """Non-negative least squares, reweighted by the residuals."""
        regressed = [*self.role.linear, *self.role.inverse]
        own = self.own[regressed]
        unit = np.where(own == 0, 1.0, np.abs(own))
        lower = self.trainable.lower[regressed]
        a, b = columns * unit, right - columns @ lower
        centre = (own - lower) / unit
        x, sigma, weight = centre, scale, np.ones(len(b))
        for _ in range(_ROUNDS):
            # Before the first fit, the right side itself is the residual's scale.
            spread = sigma or _scale(b - a @ x)
            rows = np.concatenate([a * weight[:, None] / spread, np.eye(len(own)) / _PRIOR])
            x, _ = nnls(*_square(rows, np.concatenate([b * weight / spread, centre / _PRIOR])))
            residual = b - a @ x
            # Tukey's biweight would drop spikes altogether; Cauchy's keeps what they say about sodium.
            weight = 1 / np.sqrt(1 + np.square(residual / (_TUNING * _scale(residual))))
        spread = scale or _scale(residual)
        cost = float(np.sum(np.log1p(np.square(residual / (_TUNING * spread)))))
        values = values.copy()
        values[regressed] = lower + unit * x
        return _Solution(values, cost, spread)


def _scale(residual: np.ndarray) -> float:
    return float(np.median(np.abs(residual))) / 0.6745 + 1e-12


def _square(rows: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same least-squares problem with as many rows as unknowns."""
    q, r = np.linalg.qr(rows)
    return r, q.T @ right


@eqx.filter_jit
def _weak(cells, directions, conductances, capacitance, v, current, start, dt):
    """Columns of the regression and its right side, `[scanned, test, regressed]` and `[scanned, test]`."""
    half = round(_WIDTH / dt)
    kernel = (1 - np.square(np.linspace(-1, 1, 2 * half + 1))) ** 3
    slope = np.gradient(kernel, 0.5 * dt)
    ends = 0.5 * (current + jnp.concatenate([current[:, :1], current[:, :-1]], 1))
    at_nodes = jnp.concatenate([ends, current[:, -1:]], 1)
    windows = np.arange(0, at_nodes.shape[1] + 1 - len(kernel), round(2 * _STRIDE / dt))[:, None]
    windows = windows + np.arange(len(kernel))

    def against(test, x):
        """Integrals against all test functions, `[..., trial * test]`."""
        found = 0.5 * dt * jnp.einsum("...rtw,w->...rt", x.reshape(*x.shape[:-1], *at_nodes.shape)[..., windows], test)
        return found.reshape(*found.shape[:-2], -1)

    def one(cell, conductances, capacitance):
        states = jax.tree.map(jnp.ravel, driven(cell, start, v, current, dt))

        def field(cell):
            return cell.vector_field(states, at_nodes.ravel()).v

        here = field(cell)
        columns = jax.vmap(lambda direction: jax.jvp(field, (cell,), (direction,))[1])(directions)
        tested, known = against(kernel, columns), against(kernel, here - conductances @ columns)
        left = -against(slope, v[:, ::2].ravel())
        if capacitance is None:
            return tested.T, left - known
        # Times the capacitance, which then multiplies the left side: an unknown like the others.
        return jnp.concatenate([capacitance * tested, -left[None]]).T, -capacitance * known

    return jax.vmap(one)(cells, conductances, capacitance)
