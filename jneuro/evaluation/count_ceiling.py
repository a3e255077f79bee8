r"""How well counts could be predicted: the ceiling of squared error and of bits per spike, from simulated futures.

The best prediction of a count is its mean \(\lambda\) given the simulator's full state, for the squared error and for
the Poisson likelihood alike. Of \(2M\) futures from a state, the halves have the means \(a\) and \(b\) and the
variances \(s_a^2\) and \(s_b^2\).

- Squared error: the best is \(\langle s^2 \rangle\), without bias.
- Likelihood: over the training mean \(m\), the best gains \(\langle \varphi(\lambda) \rangle\) a bin, with
  \(\varphi(x) = x \log(x/m) - x + m\), and \(\lambda\) has to be estimated. \(\varphi\) is convex, so
  \(\varphi\) of the mean of all futures gains too much on average: an **upper bound**. A prediction
  \(\tilde a = (M a + m)/(M + 1)\) from one half, scored on the other, \(b \log(\tilde a/m) - \tilde a + m\), gains what
  a real predictor does: a **lower bound**. The bias of the upper bound falls as \(1/M\), and
  \(2 \varphi((a + b)/2) - (\varphi(a) + \varphi(b))/2\) takes that term away: the **estimate**.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Bool, Float, Int, PyTree
from jneuro.datasets.windows import Windows
from jneuro.evaluation.analysis import Study
from jneuro.evaluation.ceiling import simulate_futures
from jneuro.evaluation.metrics import ratio_error
from jneuro.recordings import open_recording, provenance_of, read_state
from jneuro.simulators.simulation import first_state, simulate_many
from jneuro.simulators.stepped import SteppedSimulator

__all__ = ["Futures", "count_ceiling", "futures_of_counts", "rate_futures"]

Half = tuple[Float[np.ndarray, "run state neuron"], Float[np.ndarray, "run state neuron"]]
"""Mean and variance of half of the futures."""


def futures_of_counts(study: Study, futures: int, max_states: int) -> tuple[Half, Half] | None:
    """Simulate the next bin from stored states of the test runs.

    Args:
        study: the experiment.
        futures: how many of each state, in two halves.
        max_states: at most so many states of a run.

    Returns:
        Both halves; None where futures cannot be drawn: no simulator that steps, a network or a stimulus of each run's
        own, or no states.
    """
    found = _stored_states(study, study.windows, max_states)
    if found is None:
        return None
    simulator, states, _ = found

    def half(name: str) -> Half:
        mean, variance = simulate_futures(
            simulator,
            states,
            per_trial=False,
            variable="spikes",
            horizons=study.windows.horizons[:1],
            record_every=study.source.record_every,  # type: ignore[union-attr]
            futures=futures // 2,
            key=stream(study.key, name),
        )
        return np.asarray(mean, np.float64)[:, :, 0], np.asarray(variance, np.float64)[:, :, 0]

    return half("first"), half("second")


def _stored_states(
    study: Study, windows: Windows, max_states: int
) -> tuple[SteppedSimulator, PyTree, Int[np.ndarray, " state"]] | None:
    """Read the states of the test runs in which windows end.

    Args:
        study: the experiment.
        windows: its own, or a model's.
        max_states: at most so many states of a run.

    Returns:
        The simulator, the states, each leaf `[run, state, ...]`, and the last frame of each state's window within its
        run; None where futures cannot be drawn: no simulator that steps, a network or a stimulus of each run's own, or
        no states.
    """
    simulation = provenance_of(open_recording(study.recording)).get("simulation")
    if study.source is None or simulation is None or simulation["connectivity"] != "fixed" or simulation["stimulus"]:
        return None
    simulator = study.source.simulator
    if not isinstance(simulator, SteppedSimulator):
        return None
    last = _ends(windows, simulation, study.config.discard_ms)
    usable = np.flatnonzero((last >= windows.length - 1) & (last + windows.horizons[0] < windows.frames_per_trial))
    if not len(usable):
        return None
    usable = usable[np.unique(np.linspace(0, len(usable) - 1, max_states).round().astype(int))]
    stored = read_state(
        study.recording, jax.eval_shape(lambda key: first_state(simulator, key), study.key), slice(None)
    )
    states = jax.tree.map(lambda s: jnp.asarray(s[windows.trials("test")][:, usable]), stored)
    return simulator, states, last[usable]


def _ends(windows: Windows, simulation: dict[str, Any], discard_ms: float) -> np.ndarray:
    """The last frame before each snapshot, counted without what is discarded."""
    every = simulation["snapshot_every_ms"]
    last = np.arange(1, round(simulation["duration_ms"] / every) + 1) * round(every / windows.dt) - 1
    return last - round(discard_ms / windows.dt)


def count_ceiling(
    halves: tuple[Half, Half], rate: Float[np.ndarray, " neuron"], futures: int, kept: Bool[np.ndarray, " neuron"]
) -> dict[str, float]:
    """The best scores of any predictor, over some neurons.

    Args:
        halves: of the futures.
        rate: each neuron's mean count in training runs.
        futures: in both halves.
        kept: the neurons.

    Returns:
        `mse` and `bits` (per spike, over the mean rate), `bits_low` and `bits_high`, each with its standard error
        (`_se`, clustered by run), and `r2`, the share of the mean rate's squared error that can be explained.
    """
    (a, var_a), (b, var_b) = (tuple(x[..., kept] for x in half) for half in halves)
    m = rate[kept]
    both, size = (a + b) / 2, futures // 2

    def crossed(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        guess = (size * own + m) / (size + 1)
        return other * np.log(guess / m) - guess + m

    high = _information(both, m)
    gains = {
        "bits": 2 * high - (_information(a, m) + _information(b, m)) / 2,
        "bits_low": (crossed(a, b) + crossed(b, a)) / 2,
        "bits_high": high,
    }
    spikes = both.sum((1, 2)) * np.log(2)
    found = {}
    for name, gain in gains.items():
        total = gain.sum((1, 2))
        found |= {name: float(total.sum() / spikes.sum()), f"{name}_se": ratio_error(total, spikes)}
    variance = ((var_a + var_b) / 2).sum((1, 2))
    number = np.full(len(variance), float(np.prod(both.shape[1:])))
    # The product of two independent halves has no bias, unlike the square of their mean.
    explained = ((a - m) * (b - m)).sum((1, 2))
    return found | {
        "mse": float(variance.sum() / number.sum()),
        "mse_se": ratio_error(variance, number),
        "r2": float(explained.sum() / (explained + variance).sum()),
    }


def _information(x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """What knowing the mean `x` gains over `m`, in nats a bin."""
    return x * np.log(np.where(x > 0, x, 1) / m) * (x > 0) - x + m


class Futures(NamedTuple):
    """Futures of test states.

    Attributes:
        starts: first frame of the window that ends in each state.
        rates: of each neuron over the time to the horizon [Hz].
    """

    starts: Int[np.ndarray, " state"]
    rates: Float[np.ndarray, "future state neuron"]


def rate_futures(study: Study, windows: Windows, futures: int, max_states: int) -> Futures | None:
    """Simulate the rates between the end of a window and its nearest horizon.

    Args:
        study: the experiment.
        windows: a model's, whose nearest horizon is the time over which rates count spikes.
        futures: how many of each state.
        max_states: at most so many states of a test run.

    Returns:
        The futures; None where `futures_of_counts` has none either.
    """
    found = _stored_states(study, windows, max_states)
    if found is None:
        return None
    simulator, states, last = found
    duration = windows.horizons[0] * windows.dt
    flat = jax.tree.map(lambda s: s.reshape(-1, *s.shape[2:]), states)
    count = int(flat.step.shape[0])
    key = stream(study.key, "rates")

    @jax.jit
    def draw(index):
        seen = simulate_many(
            simulator,
            key=trial_keys(jax.random.fold_in(key, index), count),
            batched=("initial_state",),
            initial_state=flat,
            duration=duration,
            record=("spikes",),
            record_every=duration,
            throw=False,
        )
        return seen.values["spikes"][:, 0].astype(jnp.float32)

    counts = np.stack([np.asarray(draw(index)) for index in range(futures)])
    trials = windows.trials("test")
    starts = (trials[:, None] * windows.frames_per_trial + last - windows.length + 1).reshape(-1)
    return Futures(starts, counts / (duration * 1e-3))
