"""The contract of simulators that have a time step of their own."""

import abc
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jneuro.core.devices import route, scan
from jneuro.core.types import Array, Float, Int, Key, PyTree
from jneuro.simulators.base import Recordable, Simulator, initial_state, state_variables
from jneuro.simulators.paths import Distribution, draw_parameters, parameters
from jneuro.simulators.spiking import spike_gradient
from jneuro.simulators.stepping import Frames, in_blocks
from jneuro.simulators.stimuli import Stimulus

__all__ = ["SteppedSimulator", "SteppedState", "advance_blocks", "begin_stepped"]


class SteppedState(NamedTuple):
    """Where a run of a stepped simulator can be continued.

    Attributes:
        y: the simulator's state.
        step: steps taken.
    """

    y: PyTree
    step: Int[Array, ""]


class _Recordables:
    """What can be recorded, of a class or of an instance: the variables of the state, and what `step` returns."""

    def __get__(self, instance: Any, owner: type["SteppedSimulator"]) -> Mapping[str, Recordable]:
        kind = getattr(owner, "State", None)
        declared = {} if kind is None else state_variables(kind)
        found = {n: Recordable(s.unit, "last", s.doc or n) for n, s in declared.items()}
        if instance is None:
            try:
                instance = owner()  # pyright: ignore[reportCallIssue]
            except TypeError:  # an argument without a default: what `step` returns is known of an instance
                return found
        with spike_gradient(None):
            y, _, seen = _probed(instance, jax.random.key(0), jnp.int32(0))
        found = found or {name: Recordable("1", "last", name) for name in y._fields}
        for name, x in seen.items():
            about = found.get(name, Recordable("1", "last", name))
            found[name] = about._replace(reduce="sum" if x.dtype == jnp.bool_ else "last")
        return found


class SteppedSimulator(Simulator):
    r"""A simulator with a time step of its own: a network, a map, a neuron in discrete time; abstract.

    It needs `dt`, a `State` and `step`; everything else has a default. The state is a NamedTuple of arrays, whose last
    axis is that of the neurons. What it holds can be recorded, and so can what `step` returns besides: booleans, which
    are events, are summed over the steps of a frame; everything else is sampled at its end.

    **Order within a step.** Neurons hear what was sent in earlier steps, so a network chooses between two orders.
    Integrate, test the threshold, deliver, reset (`Brunel`): what arrives in a step is tested in the next one, and lost
    if the neuron is reset. Integrate, deliver, test the threshold, reset (`RingNetwork`): what arrives can make the
    neuron spike in the same step. Both leave in the state what is under way.

    **Speed.** Neurons that talk with a delay cannot hear each other within that delay. A `block` is such a stretch: all
    its steps are known from the state alone, so its recurrent input, random numbers and records can be one array
    operation each. Who wants that overrides `advance`, and tests that it equals a scan of `step`. Results do not depend
    on how a run is cut into blocks.

    Example:
        ```python
        class Leaky(jn.SteppedSimulator):
            decay: jn.Param = jn.param(0.9)
            n: int = jn.param(10, static=True)
            dt: float = jn.param(1.0, unit="ms", static=True)

            class State(NamedTuple):
                x: jn.Array = jn.state(unit="mV", doc="potential")

            def init(self, key):
                return self.State(jax.random.uniform(key, (self.n,)))

            def draw(self, key, step):
                return 0.1 * jax.random.normal(jax.random.fold_in(key, step), (self.n,))

            def step(self, y, drive, noise):
                x = self.decay * y.x + drive + noise
                spikes = spike(x - 1.0)
                return self.State(reset(spikes, x, to=0.0)), {"spikes": spikes}
        ```
    """

    State: ClassVar[Any]
    """A NamedTuple of the variables, each with a `state` as its default."""

    dt: eqx.AbstractVar[float]
    """Time step [ms]."""

    recordables: ClassVar[Mapping[str, Recordable]] = _Recordables()  # pyright: ignore[reportAssignmentType]
    """What can be recorded."""

    shared: ClassVar[tuple[str, ...]] = ()
    """Parameters that are one number for the whole network; of others, each neuron may have its own."""

    def __check_init__(self) -> None:
        """Refuse what would be drawn for every neuron, and is one number for all."""
        for name in self.shared:
            if isinstance(getattr(self, name), Distribution):
                said = f"{type(self).__name__}: {name} is one number for the whole network"
                raise ValueError(f"{said}; it cannot be drawn for each neuron")

    @property
    def populations(self) -> dict[str, int]:
        """Name and size of each population of neurons, in their order; by default one, `cells`, as the state has it."""
        shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0)))]
        return {"cells": max((s[-1] for s in shapes if s), default=1)}

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return sum(self.populations.values())

    @property
    def block(self) -> int:
        """The most steps that `advance` takes at once, at least 1: at most the least delay."""
        return 1

    def connect(self, key: Key[Array, ""]) -> Self:
        """Draw what is random in the network itself: here, parameters that are distributions, one value a neuron.

        Args:
            key: random key.

        Returns:
            The simulator, which keeps the standard deviates; numbers stay differentiable in mean and deviation.
        """
        return draw_parameters(self, key, lambda simulator: (simulator.neurons,))

    def init(self, key: Key[Array, ""]) -> Any:
        """Make, or draw, the initial state: here, the values that `State` declares.

        Args:
            key: for what is drawn.
        """
        del key
        return initial_state(self)

    def draw(self, key: Key[Array, ""], step: Int[Array, ""]) -> PyTree:
        """Draw the noise of one step, by its absolute number, so that a run may be cut anywhere.

        The draws of a block are one array operation. With a `block` of 1, runs that are cut elsewhere are equal to the
        last bit; in blocks of several steps, compilers may round sums and logarithms otherwise in another length.

        Args:
            key: the run's key.
            step: the number of the step, from the beginning of the run.

        Returns:
            What `step` gets as `noise`; by default None, because nothing is random.
        """
        del key, step

    @abc.abstractmethod
    def step(self, y: PyTree, drive: Float[Array, "#neuron"], noise: PyTree) -> tuple[PyTree, dict[str, Array]]:
        """Take one step.

        Args:
            y: the state.
            drive: the stimulus of the step, in the simulator's unit; zero where there is none.
            noise: what `draw` gave for this step.

        Returns:
            The state after it; and what can be recorded besides the state, by name, such as `spikes`.
        """

    def advance(
        self, y: PyTree, drive: Float[Array, "step #neuron"] | None, noise: PyTree, steps: int
    ) -> tuple[PyTree, dict[str, Array]]:
        """Take some steps, at most `block`; by default one after the other. Overridden for speed.

        Args:
            y: the state.
            drive: the stimulus of each step; None where there is none.
            noise: what `draw` gave for these steps, `[step, ...]`.
            steps: how many.

        Returns:
            The state after them, and every recordable at every step, `[step, ...]`.
        """

        def one(y, inputs):
            drive, noise = inputs
            y, seen = self.step(y, jnp.asarray(0.0) if drive is None else drive, noise)
            return y, y._asdict() | seen

        if drive is not None and drive.shape[1] == 1:
            drive = drive[:, 0]
        return scan(one, y, (drive, noise), steps)


def begin_stepped(simulator: SteppedSimulator, key: Key[Array, ""], start: PyTree) -> SteppedState:
    """Make the state from which to run.

    Args:
        simulator: what is simulated.
        key: key of the initial state.
        start: a `SteppedState`, the bare state of the simulator, or None.

    Returns:
        The state, of the types that `step` returns.

    Raises:
        ValueError: if `start` is not a state of this simulator, a parameter has another number of neurons, or `step`
            does not return a state like the one that it got.
    """
    name = type(simulator).__name__
    step, y = (start.step, start.y) if isinstance(start, SteppedState) else (jnp.int32(0), start)
    expected, after, _ = _probed(simulator, key, step, y)
    y = simulator.init(key) if start is None else y
    if said := _difference(after, expected):
        raise ValueError(f"{name}.step must return a state like the one that it gets: {said}")
    # Spikes in a state are booleans, or floats where their gradient is asked for; and Python's numbers get a type.
    return SteppedState(jax.tree.map(lambda x, like: lax.convert_element_type(x, like.dtype), y, after), step)


def advance_blocks(
    simulator: SteppedSimulator, stimulus: Stimulus | None, key: Key[Array, ""], state: SteppedState, frames: Frames
) -> tuple[SteppedState, dict[str, Array]]:
    """Run a stepped simulator, block by block.

    Args:
        simulator: what to simulate.
        stimulus: what drives it, evaluated at the beginning of every step; what jumps within one counts by its share.
        key: key of the run's noise.
        state: where to start.
        frames: what to record.

    Returns:
        The last state, and the recorded values.

    Raises:
        ValueError: if the stimulus has another number of neurons, or a block is no number of steps.
    """
    name, longest, first = type(simulator).__name__, simulator.block, state.step
    if not isinstance(longest, int) or longest < 1:
        raise ValueError(f"{name}: block = {longest!r} must be a positive whole number of steps")
    if stimulus is not None:
        shape, neurons = jax.eval_shape(stimulus, jnp.zeros(())).shape, simulator.neurons
        if shape not in ((), (1,), (neurons,)):
            has = f"{shape[0]} values" if len(shape) == 1 else f"values of the shape {shape}"
            raise ValueError(
                f"the stimulus has {has}; {name} takes one for all, or one for each of its {neurons} neurons"
            )

    def drawn(first, steps):
        return jax.vmap(lambda step: simulator.draw(key, step))(first + jnp.arange(steps, dtype=jnp.int32))

    every = None
    if route() == "metal":
        # A device that cannot draw within loops; at least a block, because a loop is traced even if it makes no turn.
        every = drawn(first, max(frames.warmup + frames.count * frames.every, longest))

    def advance(state, steps):
        drive = None
        if stimulus is not None:
            starts = (state.step + jnp.arange(steps)) * simulator.dt
            drive = jax.vmap(partial(stimulus.over, dt=simulator.dt))(starts, starts).reshape(steps, -1)
        if every is None:
            noise = drawn(state.step, steps)
        else:
            noise = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, state.step - first, steps), every)
        y, seen = simulator.advance(state.y, drive, noise, steps)
        return SteppedState(y, state.step + steps), seen

    return in_blocks(advance, state, longest, frames)


def _probed(simulator: SteppedSimulator, key, step, y: PyTree = None) -> tuple[Any, Any, dict[str, Any]]:
    """Shapes and types of the initial state, of that after a step from `y` or from there, and of what a step shows.

    Raises:
        ValueError: if `y` is no state, for a parameter of another number of neurons, or a `step` that returns no pair.
    """
    kind, neurons = type(simulator).__name__, simulator.neurons
    for name, p in parameters(type(simulator)).items():
        shape = np.shape(getattr(simulator, name))
        if name in simulator.shared and shape:
            raise ValueError(f"{kind}: {name} has the shape {shape}; it must be one number for the whole network")
        if not p.static and shape not in ((), (1,), (neurons,)):
            raise ValueError(
                f"{kind}: {name} has the shape {shape}; give one value, or one for each of the {neurons} neurons"
            )

    def one(key):
        start = simulator.init(key)
        if y is not None and (said := _difference(y, start)):
            raise ValueError(f"{kind} starts from a recording's final_state, or a {type(start).__qualname__}: {said}")
        return start, simulator.step(start if y is None else y, jnp.asarray(0.0), simulator.draw(key, step))

    start, found = jax.eval_shape(one, key)
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        raise ValueError(f"{kind}.step must return the state and a dict of what can be recorded, got {found!r}")
    return start, *found


def _difference(found: Any, expected: Any) -> str:
    """How two states differ in structure or shape, in words."""
    if jax.tree.structure(found) != jax.tree.structure(expected):
        return f"got {found!r}" if not isinstance(found, tuple) else f"got a {type(found).__qualname__}"
    for (path, x), like in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True):
        if np.shape(x) != np.shape(like):
            return f"{jax.tree_util.keystr(path, simple=True)} has the shape {np.shape(x)}, not {np.shape(like)}"
    return ""
