r"""The noise ceiling: the best score that any predictor could reach, computed from the simulator itself.

The best forecast of a random future is its mean given all that can be known, the simulator's full state. From a stored
state at the end of a window, \(M\) futures are simulated with fresh noise. The mean \(\bar y_M\) of \(M\) futures with
variance \(s^2\) misses the true mean by \(s^2/M\), so the expected squared error of the best predictor is

\[ \mathrm{MSE}_\infty = \langle (y - \bar y_M)^2 \rangle - \langle s^2 \rangle / M, \qquad R^2 = 1 -
\mathrm{MSE}_\infty / \mathrm{Var}(y), \]

where \(y\) is what was recorded, with its measurement noise.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Array, Float, Key, PyTree
from jneuro.evaluation.metrics import ratio_error
from jneuro.simulators.simulation import simulate_many
from jneuro.simulators.stepped import SteppedSimulator
from jneuro.simulators.stimuli import Stimulus

__all__ = ["CeilingConfig", "ceiling_scores", "simulate_futures"]


class CeilingConfig(Config):
    """How the noise ceiling is computed.

    Attributes:
        futures: fresh futures of each state.
        max_states: at most so many states of each test run.
    """

    futures: int = Field(default=32, ge=2)
    max_states: int = Field(default=100, ge=2)


def simulate_futures(
    simulators: SteppedSimulator,
    states: PyTree,
    stimulus: Stimulus | None = None,
    *,
    per_trial: bool,
    stimuli: bool = False,
    variable: str,
    horizons: tuple[int, ...],
    record_every: float,
    futures: int,
    key: Key[Array, ""],
) -> tuple[Float[Array, "trial state horizon neuron"], Float[Array, "trial state horizon neuron"]]:
    """Simulate several futures of many states.

    Args:
        simulators: one for all trials, or a batch.
        states: where the futures begin, each leaf `[trial, state, ...]`.
        stimulus: what drives the simulator.
        per_trial: whether `simulators` is a batch, every array with the leading axis trial.
        stimuli: whether `stimulus` is one.
        variable: the recorded array.
        horizons: frames ahead, ascending.
        record_every: time between frames [ms].
        futures: how many.
        key: random key, which must not be that of the recording.

    Returns:
        Mean over the futures, and their variance (divided by `futures - 1`).
    """
    duration = horizons[-1] * record_every
    trials, count = (int(n) for n in states.step.shape)
    at = jnp.asarray(horizons) - 1

    def one(simulator, stimulus, states, keys):
        recordings = simulate_many(
            simulator,
            stimulus,
            key=keys,
            batched=("initial_state",),
            initial_state=states,
            duration=duration,
            record=(variable,),
            record_every=record_every,
            throw=False,
        )
        return recordings.values[variable][:, at].astype(jnp.float32)

    axes = (eqx.if_array(0) if batch else None for batch in (per_trial, stimuli))
    batched = eqx.filter_vmap(one, in_axes=(*axes, 0, 0))

    @eqx.filter_jit
    def moments(simulators, stimulus, states, key):
        def draw(future):
            keys = trial_keys(jax.random.fold_in(key, future), trials * count)
            return batched(simulators, stimulus, states, keys.reshape(trials, count))

        return _moments(draw, futures)

    return moments(simulators, stimulus, states, stream(key, "futures"))


def _moments(draw: Callable[[Any], Array], count: int) -> tuple[Array, Array]:
    """Mean and variance of several draws, by Welford's update: one pass, and no cancellation."""

    def body(carry, index):
        mean, squares = carry
        delta = draw(index) - mean
        mean = mean + delta / (index + 1)
        return (mean, squares + delta * delta * (index / (index + 1))), None

    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(draw, 0))
    mean, squares = lax.scan(body, (zero, zero), jnp.arange(count))[0]
    return mean, squares / (count - 1)


def ceiling_scores(
    target: Float[np.ndarray, "sample horizon neuron"],
    mean: Float[np.ndarray, "sample horizon neuron"],
    variance: Float[np.ndarray, "sample horizon neuron"],
    futures: int,
) -> dict[str, Any]:
    """The ceiling's score, with the correction for a finite number of futures.

    Args:
        target: what was recorded, in any unit.
        mean: mean of the futures, in the same unit.
        variance: variance of the futures, in its square.
        futures: how many.

    Returns:
        `r2`, `se` (clustered by state), `samples`, `per_horizon` and, for the nearest horizon, `per_neuron`.
    """
    squared = np.square(target.astype(np.float64) - mean) - variance.astype(np.float64) / futures
    spread = np.square(target - target.mean(0, dtype=np.float64))
    a, b = squared.sum(2), spread.sum(2)
    r2 = (1 - a.sum(0) / b.sum(0)).tolist()
    se = [ratio_error(a[:, h], b[:, h]) for h in range(a.shape[1])]
    with np.errstate(divide="ignore", invalid="ignore"):  # a neuron that never changes has no R²: NaN
        neurons = 1 - squared[:, 0].sum(0) / spread[:, 0].sum(0)
    return {
        "r2": r2[0],
        "se": se[0],
        "futures": futures,
        "samples": int(target.shape[0] * target.shape[2]),
        "per_horizon": {"r2": r2, "se": se},
        "per_neuron": {
            "r2": neurons.tolist(),
            "se": [ratio_error(*pair) for pair in zip(squared[:, 0].T, spread[:, 0].T, strict=True)],
        },
    }
