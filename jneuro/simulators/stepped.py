"""The contract of simulators that have a time step of their own."""

import abc

import equinox as eqx

from jneuro.core.types import Array, Float, Int, Key, PyTree
from jneuro.simulators.base import Simulator, step_count

__all__ = ["SteppedSimulator"]


class SteppedSimulator(Simulator):
    """A simulator with a time step of its own, advanced in blocks of steps.

    Neurons that talk with a delay cannot hear each other within that delay. A block is such a stretch: all its steps
    are known from the state alone, so its recurrent input, random numbers and records are each one array operation.
    Results do not depend on how a run is cut into blocks.
    """

    dt: eqx.AbstractVar[float]
    """Time step [ms]."""

    @property
    @abc.abstractmethod
    def populations(self) -> dict[str, int]:
        """Name and size of each population of neurons, in their order."""

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return sum(self.populations.values())

    @property
    @abc.abstractmethod
    def longest_block(self) -> int:
        """The most steps that `advance` takes at once, at least 1."""

    @abc.abstractmethod
    def init(self, key: Key[Array, ""]) -> PyTree:
        """Draw an initial state: a NamedTuple that has a field `step`, the number of steps taken so far."""

    @abc.abstractmethod
    def draw(self, key: Key[Array, ""], first_step: Int[Array, ""], steps: int) -> PyTree:
        """Draw the noise of `steps` steps, by absolute step, so that a run may be cut anywhere.

        Args:
            key: the run's key.
            first_step: the number of the first.
            steps: how many; not limited by `longest_block`.

        Returns:
            Arrays `[step, ...]`, or None where nothing is random.
        """

    @abc.abstractmethod
    def take(
        self, state: PyTree, drive: Float[Array, "step #neuron"] | None, noise: PyTree, steps: int
    ) -> tuple[PyTree, dict[str, Array]]:
        """Take `steps` steps, at most `longest_block`, under noise that was drawn for them.

        Args:
            state: where to start.
            drive: the stimulus at each step, in the simulator's unit; None where there is none.
            noise: what `draw` gave for these steps.
            steps: how many.

        Returns:
            The new state, and every recordable at every step, `[step, ...]`.
        """

    def advance(
        self, state: PyTree, drive: Float[Array, "step #neuron"] | None, key: Key[Array, ""], steps: int
    ) -> tuple[PyTree, dict[str, Array]]:
        """Draw the noise of `steps` steps and take them; see `take`, which this is where the noise is not at hand."""
        return self.take(state, drive, self.draw(key, state.step, steps), steps)

    def step_count(self, duration: float, name: str = "duration") -> int:
        """Convert a time [ms] to a whole number of this simulator's steps; see `step_count`."""
        return step_count(duration, self.dt, name)
