"""A fit as a function: from unconstrained numbers to predicted potentials and their residuals."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jneuro.core.types import Array, Float, PyTree
from jneuro.fitting.data import Target, require_unit
from jneuro.fitting.driven import where_it_begins
from jneuro.fitting.parameters import Trainable, double
from jneuro.simulators.base import step_count
from jneuro.simulators.izhikevich import Izhikevich
from jneuro.simulators.located import located_spikes
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.simulation import simulate
from jneuro.simulators.solvers import RK4, MembraneTerm, Scheme
from jneuro.simulators.stepped import SteppedSimulator

__all__ = ["Problem", "integrate"]


class _Driven(MembraneTerm):
    """A simulator under a held current, pulled towards the data: within a sample, time runs from 0."""

    current: Float[Array, ""] = 0.0  # pyright: ignore
    data: tuple[Float[Array, ""], Float[Array, ""]] | None = None
    """Where the data's slope begins at time 0, and the slope [mV/ms]."""
    nudge: Float[Array, ""] | float = 0.0

    def relaxation(self, t, y):
        """The membrane relaxes faster, and towards the data."""
        steady, rate = self.simulator.relaxation(y, self.current)
        if self.data is None:
            return steady, rate
        measured = self.data[0] + t * self.data[1]
        total = rate.v + self.nudge
        return steady._replace(v=(rate.v * steady.v + self.nudge * measured) / total), rate._replace(v=total)

    def vf(self, t, y, args):
        """The vector field."""
        del args
        steady, rate = self.relaxation(t, y)
        return type(y)(*(r * (s - x) for x, s, r in zip(y, steady, rate, strict=True)))


def integrate(
    simulator: ODESimulator,
    start: PyTree,
    current: Float[Array, " time"],
    *,
    dt: float,
    steps: int,
    solver: Scheme,
    data: Float[Array, " time"] | None = None,
    nudge: Float[Array, ""] | float = 0.0,
    before: Float[Array, "1"] | None = None,
) -> PyTree:
    r"""Integrate one trial under a current that is held from sample to sample.

    Where there are data, \(k\,(V_{data}(t) - v)\) is added to \(\dot v\). It keeps the model's spikes at the data's, so
    that the error stays smooth in the parameters.

    Args:
        simulator: what to integrate.
        start: its state one sample before the first.
        current: the current at each sample.
        dt: time between samples [ms].
        steps: steps of the solver in a sample.
        solver: the scheme.
        data: the measured potential [mV], interpolated linearly.
        nudge: the strength \(k\) [1/ms].
        before: the current until the first sample; by default that of the first sample.

    Returns:
        The state at each sample, each leaf `[time]`.
    """
    h = jnp.asarray(dt / steps, current.dtype)
    # The current in the interval that ends at a sample is that of the sample before.
    held = jnp.concatenate([current[:1] if before is None else before, current[:-1]])
    last = held if data is None else jnp.concatenate([start.v[None], data[:-1]])
    slope = held if data is None else (data - last) / dt

    def term(sample):
        current, at, slope = sample
        return _Driven(simulator, None, current=current, data=None if data is None else (at, slope), nudge=nudge)

    def frame(carry, sample):
        now = term(sample)
        # A loop, however short: unrolled, it takes twice the time, to compile and to run.
        carry, _ = lax.scan(lambda c, i: (solver.advance(now, i * h, h, c), None), carry, jnp.arange(steps) * 1.0)
        return carry, solver.observe(now, steps * h, h, carry)

    samples = (held, last, slope)
    carry = solver.start(term(jax.tree.map(lambda x: x[0], samples)), jnp.zeros_like(h), h, start)
    return lax.scan(frame, carry, samples)[1]


class Problem(eqx.Module):
    """A simulator, what is trainable in it, and the target; all as functions of one vector of unconstrained numbers.

    The vector holds the trainable parameters, and then, with `free_start`, the state of every trial at time 0: the
    potential in units of 10 mV from the first sample, all else on a logarithmic scale.

    Attributes:
        simulator: everything that is not trained.
        target: what is to be matched.
        trainable: what is trained.
        solver: the scheme of an ODE simulator.
        steps: steps of the scheme, or of a stepped simulator, in a sample.
        free_start: whether the states at time 0 are trained.
        located: whether the spikes of Izhikevich's cell are located within steps, which gives them derivatives.
    """

    simulator: ODESimulator | SteppedSimulator
    target: Target
    trainable: Trainable
    solver: Any
    steps: int = eqx.field(static=True)
    free_start: bool = eqx.field(static=True)
    located: bool = eqx.field(static=True, default=False)

    @classmethod
    def of(
        cls,
        simulator: ODESimulator | SteppedSimulator,
        target: Target,
        trainable: Trainable,
        *,
        dt: float | None = None,
        solver: Scheme | None = None,
        free_start: bool = False,
        located: bool = False,
    ) -> "Problem":
        """Put a fit together; to be called under `double_precision`, as all that is done with it.

        Args:
            simulator: what is fitted.
            target: to what.
            trainable: which parameters.
            dt: time step [ms]; an ODE simulator's default one, or a whole part of it if samples demand.
            solver: the scheme; `RK4` for an ODE, so that its own error does not become one of the parameters.
            free_start: whether the states at time 0 are unknown.
            located: whether the spikes of Izhikevich's cell are located within steps; see `located_spikes`.

        Returns:
            The problem.

        Raises:
            ValueError: if units or time steps do not fit, or for states of a stepped simulator.
        """
        require_unit(simulator, target)
        if located and not isinstance(simulator, Izhikevich):
            raise ValueError(
                f"gradient = exact is for Izhikevich's cell; {type(simulator).__name__} has its own derivatives, or a "
                "surrogate"
            )
        if isinstance(simulator, SteppedSimulator):
            if free_start or solver is not None:
                raise ValueError(f"{type(simulator).__name__} brings its own scheme and start")
            steps = step_count(target.dt, simulator.dt, "the time between samples")
        else:
            wanted = min(simulator.default_dt if dt is None else dt, target.dt)
            steps = int(np.ceil(target.dt / wanted - 1e-6))
        return cls(double(simulator), double(target), trainable, solver or RK4(), steps, free_start, located)

    @property
    def continuous(self) -> bool:
        """Whether the potential can be pulled towards the data: that of a differential equation."""
        return isinstance(self.simulator, ODESimulator)

    @property
    def smooth(self) -> bool:
        """Whether spikes have derivatives that need no surrogate."""
        return self.continuous or self.located

    @property
    def state(self) -> tuple[str, ...]:
        """The names of the simulator's state variables, if they are trained."""
        return type(self._given_start(self.simulator))._fields if self.free_start else ()

    @property
    def names(self) -> tuple[str, ...]:
        """What each element of the vector stands for."""
        trials = [f"[{i}]" if self.target.trials > 1 else "" for i in range(self.target.trials)]
        return self.trainable.names + tuple(f"start.{name}{trial}" for name in self.state for trial in trials)

    @property
    def first(self) -> Float[Array, " unknown"]:
        """The vector of the simulator's own values."""
        return self.pack(self.trainable.unconstrain(self.trainable.values(self.simulator)))

    def pack(self, q: Float[Array, " parameter"]) -> Float[Array, " unknown"]:
        """The vector of trainable parameters, themselves unconstrained, and of the start that they have by default."""
        if not self.free_start:
            return q
        start = self._given_start(self.trainable.insert(self.simulator, self.trainable.constrain(q)))
        rest = [jnp.log(jnp.maximum(x, 1e-6)) for x in start[1:]]
        return jnp.concatenate([q, (start.v - self.target.v[:, 0]) / 10, *rest])

    def unpack(self, q: Float[Array, " unknown"]) -> tuple[ODESimulator | SteppedSimulator, PyTree]:
        """The simulator and the states at time 0, each leaf `[trial]`; None for a stepped simulator."""
        count = len(self.trainable.names)
        simulator = self.trainable.insert(self.simulator, self.trainable.constrain(q[:count]))
        if isinstance(simulator, SteppedSimulator):
            return simulator, None
        start = self._given_start(simulator)
        if self.free_start:
            v, *rest = q[count:].reshape(len(start), self.target.trials)
            start = type(start)(self.target.v[:, 0] + 10 * v, *(jnp.exp(x) for x in rest))
        return simulator, start

    def _given_start(self, simulator) -> Any:
        """The known states; or a guess from the data, where they are unknown; or the simulator's own: `[trial]`."""
        start = self.target.start
        if start is None and self.free_start:
            return where_it_begins(simulator, self.target)
        if start is None:
            start = simulator.init(jax.random.key(0))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, self.target.trials), start)

    def values(self, q: Float[Array, " unknown"]) -> Float[Array, " unknown"]:
        """The physical value of each element of the vector."""
        count = len(self.trainable.names)
        found = [self.trainable.constrain(q[:count])]
        if self.free_start:
            found += list(self.unpack(q)[1])
        return jnp.concatenate(found)

    def observe(self, q: Float[Array, " unknown"], nudge: Any = None) -> tuple[Array, Array | None]:
        """The potential of every trial [mV], and its spikes where the simulator has spikes of its own.

        Args:
            q: the vector.
            nudge: strength with which the potential is pulled to the data [1/ms]; see `integrate`. None: not at all.

        Returns:
            Potential and spikes, each `[trial, time]`; None for the spikes of an ODE simulator.
        """
        simulator, start = self.unpack(q)
        if isinstance(simulator, SteppedSimulator):
            return jax.vmap(lambda current: self._stepped(simulator, current))(self.target.current)

        def one(start, current, v):
            data = {} if nudge is None else {"data": v, "nudge": nudge}
            how = {"dt": self.target.dt, "steps": self.steps, "solver": self.solver}
            return integrate(simulator, start, current, **how, **data).v

        return jax.vmap(one)(start, self.target.current, self.target.v), None

    def _stepped(self, simulator, current):
        """Potential and spikes of a stepped simulator of one neuron."""
        if self.located:
            return located_spikes(simulator, current, dt=self.target.dt, steps=self.steps)
        recording = simulate(
            simulator,
            self.target.stimulus(current),
            duration=self.target.duration,
            record=("v", "spikes"),
            record_every=self.steps,
            key=jax.random.key(0),
            throw=False,
        )
        v, spikes = (recording.values[n].reshape(self.target.frames) for n in ("v", "spikes"))
        return v, spikes.astype(v.dtype)

    def predict(self, q: Float[Array, " unknown"], nudge: Any = None) -> Float[Array, "trial time"]:
        """The potential of every trial [mV]; arguments as for `observe`."""
        return self.observe(q, nudge)[0]

    def residuals(self, q: Float[Array, " unknown"], nudge: Any = None) -> Float[Array, " sample"]:
        """Predicted minus measured potential in units of the noise, one value a sample."""
        return ((self.predict(q, nudge) - self.target.v) / self.target.noise_sd).ravel()
