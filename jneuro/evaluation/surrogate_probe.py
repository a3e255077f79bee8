"""The simulator and windows of its answers, for waveforms of one's own."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.types import Array, Float, Int
from jneuro.datasets import Windows
from jneuro.evaluation.analysis import Source
from jneuro.simulators import simulate
from jneuro.simulators.stimuli import Sampled

__all__ = ["probe", "simulator_response"]

Response = Callable[[Float[Array, "run frame"]], tuple[Float[Array, "run frame"], Float[Array, "run frame"]]]


def simulator_response(source: Source, dt: float) -> Response:
    """The simulator as a function of waveforms, compiled; differentiable.

    Args:
        source: the simulator.
        dt: time between the samples of a waveform, and of the answer [ms].

    Returns:
        A function from currents, held between samples, to the voltages [mV] and currents at the end of each frame.
    """

    def one(current):
        recording = simulate(
            source.simulator,
            Sampled(current, jnp.asarray(dt), hold=True),
            duration=current.shape[0] * dt,
            key=jax.random.key(0),
            dt=source.dt,
            solver=source.solver,
            record=("v", "current"),
            record_every=source.record_every,
            throw=False,
        )
        return recording.values["v"].reshape(-1), recording.values["current"].reshape(-1)

    return eqx.filter_jit(jax.vmap(one))


def probe(
    windows: Windows, current: Float[np.ndarray, "run frame"], volts: Float[np.ndarray, "run frame"]
) -> tuple[Windows, Int[np.ndarray, " run"]]:
    """Windows over answers of the simulator, one a run, scaled as those that a model was trained on.

    Args:
        windows: the model's, with the columns current and voltage.
        current: that was given [µA/cm²].
        volts: the answer [mV].

    Returns:
        The windows, and where each begins.
    """
    scaled = windows.scaling.apply(jnp.asarray(np.stack([current, volts], -1).reshape(-1, 2), jnp.float32))
    starts = np.arange(len(current), dtype=np.int32) * current.shape[1]
    return eqx.tree_at(lambda w: w.values, windows, scaled), starts
