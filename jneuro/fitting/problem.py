"""A fit as a function: what was recorded, and from unconstrained numbers to what the simulator shows instead."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jneuro.core.types import Array, Float, PyTree
from jneuro.fitting.parameters import Trainable, double
from jneuro.recordings.readers import clipped
from jneuro.recordings.recording import Recording
from jneuro.recordings.units import canonical
from jneuro.simulators.base import Drive, Simulator
from jneuro.simulators.integration import Stepper
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.simulation import simulate
from jneuro.simulators.solvers import RK4, MembraneTerm, Scheme, gain
from jneuro.simulators.spiking import Exact, Surrogate
from jneuro.simulators.stimuli import Sampled
from jneuro.spikes.detection import crossings, raster_times, soft_spikes

__all__ = ["CellProblem", "Problem", "Trials", "clamped", "integrate"]

_QUIETEST = 1e-3
"""Smallest noise [mV] that is believed of a recording."""
_WHITE = 0.2
"""Noise of sixth differences, in shares of that of second ones, below which the latter are no noise."""


class Trials(eqx.Module):
    """Trials of one cell, recorded or predicted: what was injected, and what the cell showed.

    Sample `i` stands for the time `(i + 1) * dt` after the start, as in a `Recording`. The current of a sample is held
    until the next one; before the first sample, the first one's current flows.

    Attributes:
        v: membrane potential, in the first of `units`.
        current: injected current, in the second of `units`.
        noise_sd: standard deviation of the recording's noise, in the unit of the potential: that of all residuals.
        start: the simulator's state at time 0, each leaf `[trial]`; None where it is not known.
        dt: time between samples [ms].
        units: of potential and current.
        threshold: that spikes cross which the potential shows, in its unit.
        fall: how far below it the potential must return before the next spike.
        own_spikes: spikes in every sample, of a cell that has spikes of its own; None: the potential shows them.
    """

    v: Float[Array, "trial time"]
    current: Float[Array, "trial time"]
    noise_sd: Float[Array, ""]
    start: PyTree
    dt: float = eqx.field(static=True)
    units: tuple[str, str] = eqx.field(static=True)
    threshold: float = eqx.field(static=True, default=0.0)
    fall: float = eqx.field(static=True, default=10.0)
    own_spikes: Float[Array, "trial time"] | None = None

    @classmethod
    def of(
        cls,
        recording: Recording,
        *,
        noise_sd: float | None = None,
        start: PyTree = None,
        allow_clipped: bool = False,
    ) -> "Trials":
        """Take a recording's potential and current.

        Args:
            recording: has `v` and `current`, each `[time]`, `[time, cell]`, `[trial, time]` or `[trial, time, cell]`.
                Cells count as trials: they are taken for equal ones. A current without trials is that of all.
            noise_sd: standard deviation of the measurement noise, in the potential's unit; by default estimated from
                second differences.
            start: the simulator's state before the first sample, where it is known; each leaf a scalar or `[trial]`.
            allow_clipped: whether potentials that stay at their extreme are taken as they are.

        Returns:
            The trials.

        Raises:
            ValueError: if it is no recording, or not `ok`, the current is missing, a value is not finite, or samples
                are clipped.
        """
        if not isinstance(recording, Recording):
            raise ValueError(
                f"a fit takes a Recording, got {type(recording).__name__}; jneuro.recordings.read(path) gives one of a "
                "file, from_arrays(v, current, dt=...) one of arrays"
            )
        if not np.all(recording.ok):
            trials = f" in trial {int(np.argmin(np.asarray(recording.ok)))}" if np.ndim(recording.ok) else ""
            raise ValueError(
                f"the recording is not ok{trials}: the simulation left the finite numbers, or its time step was too "
                "coarse; simulate it with a shorter one, or leave such trials out"
            )
        for name, remedy in {
            "v": "record the membrane potential",
            "current": "a fit needs the stimulus that was injected; record or add it",
        }.items():
            if name not in recording.values:
                raise ValueError(f"the recording has no '{name}'; {remedy}")
        v, current = (_trials(recording, name) for name in ("v", "current"))
        current = np.broadcast_to(current, v.shape).copy()
        for name, values in {"v": v, "current": current}.items():
            if (bad := np.argwhere(~np.isfinite(values))).size:
                trial, sample = bad[0]
                raise ValueError(
                    f"'{name}' of trial {trial} is not finite at {(sample + 1) * recording.dt:g} ms "
                    f"({len(bad)} samples are not); cut these trials or samples out"
                )
        if not allow_clipped:
            _require_unclipped(v, recording.dt)
        if noise_sd is not None and not noise_sd > 0:
            raise ValueError(f"noise_sd = {noise_sd} mV must be positive")
        if start is not None:
            start = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x, np.float64), len(v)), start)
        noise = np.asarray(_noise(v) if noise_sd is None else noise_sd, np.float64)
        units = recording.units["v"], recording.units["current"]
        return cls(v, current, noise, start, recording.dt, units)  # pyright: ignore

    @property
    def trials(self) -> int:
        """Number of trials."""
        return self.v.shape[0]

    @property
    def frames(self) -> int:
        """Samples in a trial."""
        return self.v.shape[1]

    @property
    def quiet(self) -> bool:
        """Whether `noise_sd` was estimated where there is no white noise: the higher the differences, the less it is.

        Of white noise, differences of every order tell the same standard deviation.
        """
        v = np.asarray(self.v)
        found = _noise(v)
        estimated = math.isclose(found, float(self.noise_sd), rel_tol=1e-6)
        return estimated and (found <= _QUIETEST or _noise(v, 6, 0.0) < _WHITE * found)

    @property
    def duration(self) -> float:
        """Length of a trial [ms]."""
        return self.frames * self.dt

    @property
    def time(self) -> np.ndarray:
        """Time of every sample [ms]."""
        return self.dt * np.arange(1, self.frames + 1)

    @property
    def spikes(self) -> Float[Array, "trial time"]:
        """Spikes in every sample; those that only the potential shows are smooth, see `soft_spikes`."""
        return soft_spikes(self.v, self.threshold) if self.own_spikes is None else self.own_spikes

    @property
    def recording(self) -> Recording:
        """What a measure sees: potential, current and whole spikes, each `[trial, time]`."""
        total = jnp.round(jnp.cumsum(self.spikes, axis=1))
        spikes = jnp.diff(total, axis=1, prepend=0.0).astype(jnp.int32)
        return Recording(
            values={"v": self.v, "current": self.current, "spikes": spikes},
            ok=np.ones(self.trials, bool),  # pyright: ignore
            first_step=np.zeros(self.trials, int),  # pyright: ignore
            final_state=None,
            step=self.dt,
            record_every=1,
            frames=self.frames,
            unit_pairs=(("v", self.units[0]), ("current", self.units[1]), ("spikes", "1")),
        )

    def spike_times(self) -> list[Float[np.ndarray, " spike"]]:
        """Times of the spikes of every trial after the first sample [ms], between samples.

        Those of a cell with a reset lie amid its steps, or where they were located.
        """
        if self.own_spikes is not None:
            return [raster_times(s, self.dt) for s in np.asarray(self.own_spikes)]
        return [crossings(x, self.dt, self.threshold, self.fall) for x in np.asarray(self.v)]

    def of_trials(self, trials: Sequence[int] | np.ndarray) -> "Trials":
        """Some of the trials."""
        index = np.asarray(trials, int)
        start = jax.tree.map(lambda x: x[index], self.start)
        return eqx.tree_at(
            lambda t: (t.v, t.current, t.start),
            self,
            (self.v[index], self.current[index], start),
            is_leaf=lambda x: x is None,
        )

    def stimulus(self, current: Float[Array, " time"]) -> Sampled:
        """The stimulus of one trial, from its current; batch it with `jax.vmap`."""
        return Sampled(jnp.concatenate([current[:1], current]), jnp.asarray(self.dt), hold=True)


def clamped(simulator: ODESimulator, target: Trials) -> Any:
    """The states at time 0: the known ones, or those in which a cell held at its first potential would be.

    Args:
        simulator: the cell.
        target: the data.

    Returns:
        The states, each leaf `[trial]`.
    """
    if target.start is not None:
        return target.start
    v, current = jnp.asarray(target.v[:, 0]), jnp.asarray(target.current[:, 0])
    state: Any = jax.tree.map(lambda x: jnp.broadcast_to(x, v.shape), simulator.init(jax.random.key(0)))
    # What follows a variable that follows another one needs a pass more.
    for _ in state:
        state = simulator.relaxation(state._replace(v=v), current)[0]
    return state._replace(v=v)


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
    """A simulator, what is trainable in it, and what it is fitted to; all as functions of one vector.

    The vector holds an unconstrained number for each trainable one. Abstract: `CellProblem` is compared with trials
    sample by sample, `network.NetworkProblem` with statistics of runs.

    Attributes:
        simulator: everything that is not trained.
        target: what is to be matched.
        trainable: what is trained.
    """

    simulator: eqx.AbstractVar[Any]
    target: eqx.AbstractVar[Any]
    trainable: eqx.AbstractVar[Trainable]

    @property
    def continuous(self) -> bool:
        """Whether the potential can be pulled towards the data: one that does not jump."""
        return False

    @property
    def smooth(self) -> bool:
        """Whether all that is observed has derivatives, which need no surrogate."""
        return False

    @property
    def names(self) -> tuple[str, ...]:
        """What each element of the vector stands for."""
        return self.trainable.names

    @property
    def first(self) -> Float[Array, " unknown"]:
        """The vector of the simulator's own values."""
        return self.pack(self.trainable.unconstrain(self.trainable.values(self.simulator)))

    def pack(self, q: Float[Array, " parameter"]) -> Float[Array, " unknown"]:
        """The vector of trainable parameters, themselves unconstrained, and of all else that is unknown by default."""
        return q

    def unpack(self, q: Float[Array, " unknown"]) -> tuple[Simulator, PyTree]:
        """The simulator for which a vector stands, and where it begins."""
        count = len(self.trainable.names)
        return self.trainable.insert(self.simulator, self.trainable.constrain(q[:count])), None

    def values(self, q: Float[Array, " unknown"]) -> Float[Array, " unknown"]:
        """The physical value of each element of the vector."""
        return self.trainable.constrain(q)


def _in_units_of(simulator: ODESimulator, target: Trials) -> Trials:
    """The trials in the units that a simulator takes."""
    name = type(simulator).__name__
    for what, found in zip(("v", "current"), target.units, strict=True):
        if (about := simulator.recordables.get(what)) is None:
            continue
        (ours, factor), (theirs, per) = canonical(what, found), canonical(what, about.unit)
        if ours != theirs or (what == "v" and factor != per):
            by_area = found == "pA" and about.unit == "µA/cm²"
            remedy = "say the membrane's area, recording: {electrode: {area_um2: …}}, or " * by_area
            raise ValueError(
                f"the recording's {what!r} is in {found}, that of {name} in {about.unit}; {remedy}convert one into "
                "the other" + ", by the membrane's area or capacitance" * (what == "current")
            )
        if factor != per:  # a current in pA, for a cell that takes nA
            target = dataclasses.replace(target, current=target.current * (factor / per))
    return target


class CellProblem(Problem):
    """A cell and its trials.

    With `free_start`, the vector also holds the state of every trial at time 0: the potential in units of 10 mV from
    the first sample, all else on a logarithmic scale.

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
    target: Trials
    trainable: Trainable
    solver: Any
    steps: int = eqx.field(static=True)
    free_start: bool = eqx.field(static=True)
    spike_gradient: Surrogate | Exact | None = None

    @classmethod
    def of(
        cls,
        simulator: ODESimulator,
        target: Trials,
        trainable: Trainable,
        *,
        dt: float | None = None,
        solver: Scheme | None = None,
        free_start: bool = False,
        spike_gradient: Surrogate | Exact | None = None,
    ) -> "CellProblem":
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
            raise ValueError(f"{name} is no single cell; fit a network by the method features")
        target = _in_units_of(simulator, target)
        state = jax.eval_shape(simulator.init, jax.random.key(0))
        if (shape := jax.eval_shape(simulator.vector_field, state, jnp.zeros(())).v.shape) != state.v.shape:
            raise ValueError(
                f"the parameters of {name} make {shape[-1]} potentials at once, as those of several cells do; a fit "
                "takes one value for all cells: fit each cell alone"
            )
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
        """What each element of the vector stands for: parameters, then start states."""
        trials = [f"[{i}]" if self.target.trials > 1 else "" for i in range(self.target.trials)]
        return self.trainable.names + tuple(f"start.{name}{trial}" for name in self.state for trial in trials)

    def pack(self, q: Float[Array, " parameter"]) -> Float[Array, " unknown"]:
        """The vector of trainable parameters, themselves unconstrained, and of the start that they have by default."""
        if not self.free_start:
            return q
        start = self._given_start(self.trainable.insert(self.simulator, self.trainable.constrain(q)))
        rest = [jnp.log(jnp.maximum(x, 1e-6)) for x in start[1:]]
        return jnp.concatenate([q, (start.v - self.target.v[:, 0]) / 10, *rest])

    def unpack(self, q: Float[Array, " unknown"]) -> tuple[ODESimulator, PyTree]:
        """The simulator and the states at time 0, each leaf `[trial]`; None for a cell with a reset."""
        simulator: Any = super().unpack(q)[0]
        if simulator.has_reset:
            return simulator, None
        start = self._given_start(simulator)
        if self.free_start:
            v, *rest = q[len(self.trainable.names) :].reshape(len(start), self.target.trials)
            start = type(start)(self.target.v[:, 0] + 10 * v, *(jnp.exp(x) for x in rest))
        return simulator, start

    def _given_start(self, simulator) -> Any:
        """The known states; or a guess from the data, where they are unknown; or the simulator's own: `[trial]`."""
        start = self.target.start
        if start is None and self.free_start:
            return clamped(simulator, self.target)
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

    def observe(self, q: Float[Array, " unknown"], nudge: Any = None) -> Trials:
        """What the simulator shows in every trial.

        Args:
            q: the vector.
            nudge: strength with which the potential is pulled to the data [1/ms]; see `integrate`. None: not at all.

        Returns:
            The trials, with its potential and spikes.
        """
        simulator, start = self.unpack(q)
        if simulator.has_reset:
            v, spikes = jax.vmap(lambda current: self._jumping(simulator, current))(self.target.current)
            return dataclasses.replace(self.target, v=v, own_spikes=spikes)

        def one(start, current, v):
            data = {} if nudge is None else {"data": v, "nudge": nudge}
            how = {"dt": self.target.dt, "steps": self.steps, "solver": self.solver}
            return integrate(simulator, start, current, **how, **data).v

        return dataclasses.replace(self.target, v=jax.vmap(one)(start, self.target.current, self.target.v))

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
        return self.observe(q, nudge).v

    def residuals(self, q: Float[Array, " unknown"], nudge: Any = None) -> Float[Array, " sample"]:
        """Predicted minus measured potential in units of the noise, one value a sample."""
        return ((self.predict(q, nudge) - self.target.v) / self.target.noise_sd).ravel()


def _trials(recording: Recording, name: str) -> np.ndarray:
    """One array as `[trial, time]`, in double precision."""
    values, frames = np.asarray(recording.values[name], np.float64), recording.frames
    if values.ndim == 1:
        values = values[None]
    elif values.ndim == 2 and values.shape[1] != frames:
        values = values.T
    elif values.ndim == 3:
        values = values.transpose(0, 2, 1).reshape(-1, values.shape[1])
    if values.ndim != 2 or values.shape[1] != frames:
        raise ValueError(f"'{name}' has the shape {values.shape}, but the recording has {frames} frames")
    return values


def _noise(v: np.ndarray, order: int = 2, least: float = _QUIETEST) -> float:
    """Standard deviation of white noise, from the median of second or higher differences, which spikes do not move."""
    if v.shape[1] <= order:
        return least
    sd = 0.6745 * math.sqrt(math.comb(2 * order, order))
    return max(float(np.median(np.abs(np.diff(v, order)))) / sd, least)


def _require_unclipped(v: np.ndarray, dt: float) -> None:
    for trial, row in enumerate(v):
        if (where := clipped(row)) is not None:
            begin, end = where
            raise ValueError(
                f"'v' of trial {trial} stays at {row[begin]:g} mV from {(begin + 1) * dt:g} to {end * dt:g} ms: "
                "it was clipped; cut the trial out, or pass allow_clipped=True"
            )
