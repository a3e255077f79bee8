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
from jneuro.simulators.base import Drive
from jneuro.simulators.integration import Stepper
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.simulation import simulate
from jneuro.simulators.solvers import RK4, MembraneTerm, Scheme, gain
from jneuro.simulators.spiking import Exact, Surrogate

__all__ = ["Problem", "integrate"]


class _Driven(MembraneTerm):
    """A simulator under a held current, pulled towards the data: within a sample, time runs from 0."""

    current: Float[Array, ""] = 0.0  # pyright: ignore
    data: tuple[Float[Array, ""], Float[Array, ""]] | None = None
    """Where the data's slope begins at time 0, and the slope [mV/ms]."""
    nudge: Float[Array, ""] | float = 0.0

    def drive(self, t, y):
        """The held current, and one that pulls: by `nudge`, whatever the membrane's capacitance."""
        if self.data is None:
            return self.current
        conductance = self.nudge / gain(self.simulator, y, self.current)
        return Drive(self.current + conductance * (self.data[0] + t * self.data[1]), conductance)


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
    # The current in the interval that ends at a sample is that of the sample before.
    held = jnp.concatenate([current[:1] if before is None else before, current[:-1]])
    last = held if data is None else jnp.concatenate([start.v[None], data[:-1]])
    slope = held if data is None else (data - last) / dt

    def stepper(sample):
        current, at, slope = sample
        data_there = None if data is None else (at, slope)
        return Stepper(solver, _Driven(simulator, None, current=current, data=data_there, nudge=nudge), dt / steps)

    def frame(carry, sample):
        now = stepper(sample)
        # A loop, however short: unrolled, it takes twice the time, to compile and to run.
        carry, _ = lax.scan(lambda c, i: (now.advance(c, i), None), carry, jnp.arange(steps))
        return carry, now.observe(carry, jnp.asarray(steps))

    samples = (held, last, slope)
    carry = stepper(jax.tree.map(lambda x: x[0], samples)).start(start, jnp.asarray(0))
    return lax.scan(frame, carry, samples)[1]


class Problem(eqx.Module):
    """A simulator, what is trainable in it, and the target; all as functions of one vector of unconstrained numbers.

    The vector holds the trainable parameters, and then, with `free_start`, the state of every trial at time 0: the
    potential in units of 10 mV from the first sample, all else on a logarithmic scale.

    Attributes:
        simulator: everything that is not trained.
        target: what is to be matched.
        trainable: what is trained.
        solver: the scheme.
        steps: steps of the scheme in a sample.
        free_start: whether the states at time 0 are trained.
        spike_gradient: how the spikes of a cell with a reset are differentiated; see `simulate`.
    """

    simulator: ODESimulator
    target: Target
    trainable: Trainable
    solver: Any
    steps: int = eqx.field(static=True)
    free_start: bool = eqx.field(static=True)
    spike_gradient: Surrogate | Exact | None = None

    @classmethod
    def of(
        cls,
        simulator: ODESimulator,
        target: Target,
        trainable: Trainable,
        *,
        dt: float | None = None,
        solver: Scheme | None = None,
        free_start: bool = False,
        spike_gradient: Surrogate | Exact | None = None,
    ) -> "Problem":
        """Put a fit together; to be called under `double_precision`, as all that is done with it.

        Args:
            simulator: what is fitted.
            target: to what.
            trainable: which parameters.
            dt: time step [ms]; the simulator's default one, or a whole part of it if samples demand.
            solver: the scheme; by default `RK4`, so that its own error does not become one of the parameters, and for a
                cell with a reset its own, unless spikes are located.
            free_start: whether the states at time 0 are unknown.
            spike_gradient: how the spikes of a cell with a reset are differentiated; those of others are smooth.

        Returns:
            The problem.

        Raises:
            ValueError: if units do not fit, for unknown states or located spikes where there can be none, or for a
                network.
        """
        name = type(simulator).__name__
        if not isinstance(simulator, ODESimulator):
            raise ValueError(f"{name} is no single cell; fit networks by jneuro.fit with network statistics")
        require_unit(simulator, target)
        if isinstance(spike_gradient, Exact) and not simulator.has_reset:
            raise ValueError(
                f"gradient = exact is for cells that are reset, such as Izhikevich's; {name} has its own derivatives"
            )
        if simulator.has_reset and free_start:
            raise ValueError(f"{name} is reset at its spikes, so its state at the start cannot be fitted")
        if solver is None:
            own = simulator.has_reset and not isinstance(spike_gradient, Exact)
            solver = simulator.default_solver if own else RK4()
        wanted = min(simulator.default_dt if dt is None else dt, target.dt)
        steps = int(np.ceil(target.dt / wanted - 1e-6))
        return cls(double(simulator), double(target), trainable, solver, steps, free_start, spike_gradient)

    @property
    def continuous(self) -> bool:
        """Whether the potential can be pulled towards the data: one that does not jump."""
        return not self.simulator.has_reset

    @property
    def smooth(self) -> bool:
        """Whether spikes have derivatives that need no surrogate."""
        return self.continuous or isinstance(self.spike_gradient, Exact)

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

    def unpack(self, q: Float[Array, " unknown"]) -> tuple[ODESimulator, PyTree]:
        """The simulator and the states at time 0, each leaf `[trial]`; None for a cell with a reset."""
        count = len(self.trainable.names)
        simulator = self.trainable.insert(self.simulator, self.trainable.constrain(q[:count]))
        if simulator.has_reset:
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
            Potential and spikes, each `[trial, time]`; None for the spikes of a cell without a reset.
        """
        simulator, start = self.unpack(q)
        if simulator.has_reset:
            return jax.vmap(lambda current: self._jumping(simulator, current))(self.target.current)

        def one(start, current, v):
            data = {} if nudge is None else {"data": v, "nudge": nudge}
            how = {"dt": self.target.dt, "steps": self.steps, "solver": self.solver}
            return integrate(simulator, start, current, **how, **data).v

        return jax.vmap(one)(start, self.target.current, self.target.v), None

    def _jumping(self, simulator, current):
        """Potential and spikes of one cell with a reset."""
        recording = simulate(
            simulator,
            self.target.stimulus(current),
            duration=self.target.duration,
            dt=self.target.dt / self.steps,
            solver=self.solver,
            record=("v", "spikes"),
            record_every=self.target.dt,
            key=jax.random.key(0),
            spike_gradient=self.spike_gradient,
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
