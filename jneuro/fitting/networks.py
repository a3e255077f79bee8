"""What describes a spiking network: statistics of its population, of rates and interspike intervals."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Int, Key
from jneuro.fitting.parameters import Trainable
from jneuro.simulators.simulation import simulate
from jneuro.simulators.stepped import SteppedSimulator
from jneuro.spikes.intervals import isi_cvs

__all__ = ["FEATURE_NAMES", "FeatureTarget", "population_features", "simulate_features"]

FEATURE_NAMES = ("log_rate", "isi_cv", "rate_cv", "isi_cv_sd")
"""Logarithm of the mean rate [Hz]; mean CV of the interspike intervals; CV of the neurons' rates; SD of their CVs."""

_SILENT = 0.1
"""Rate [Hz] that is added, so that a silent network has a logarithm."""


def population_features(spikes: Int[Array, "time neuron"], dt: float) -> Float[Array, " feature"]:
    """Describe one run by `FEATURE_NAMES`.

    Args:
        spikes: of each frame.
        dt: length of a frame [ms].

    Returns:
        The features. Where no neuron has two intervals, the CV is 1, that of rare and independent spikes.
    """
    rates = spikes.sum(0, dtype=jnp.int32) / (1e-3 * dt * spikes.shape[0])
    mean = rates.mean()
    cv, known = isi_cvs(spikes)
    count = jnp.maximum(known.sum(), 1)
    isi_cv = jnp.where(known.any(), cv.sum() / count, 1.0)
    spread = jnp.sqrt(jnp.sum(jnp.where(known, jnp.square(cv - isi_cv), 0)) / count + 1e-6)
    return jnp.stack([jnp.log(mean + _SILENT), isi_cv, rates.std() / (mean + _SILENT), spread])


class FeatureTarget(NamedTuple):
    """What was observed of a network.

    Attributes:
        features: of each run; see `FEATURE_NAMES`.
        duration: of each run [ms]; simulations are as long, because the features depend on it.
        dt: time between frames [ms].
    """

    features: Float[Array, "run feature"]
    duration: float
    dt: float

    @classmethod
    def of(cls, spikes: Int[Array, "run time neuron"], dt: float) -> "FeatureTarget":
        """Describe recorded runs.

        Args:
            spikes: of every run, frame and neuron.
            dt: length of a frame [ms].

        Returns:
            The target.

        Raises:
            ValueError: if there are too few runs for a covariance.
        """
        if len(spikes) < 2 * len(FEATURE_NAMES):
            raise ValueError(
                f"the recording has {len(spikes)} runs; the covariance of {len(FEATURE_NAMES)} features takes "
                f"{2 * len(FEATURE_NAMES)} or more: cut a long run into pieces, or record more"
            )
        describe = jax.jit(partial(population_features, dt=dt))
        features = jnp.stack([describe(jnp.asarray(run)) for run in spikes])
        return cls(features, dt * spikes.shape[1], dt)


def simulate_features(
    simulator: SteppedSimulator,
    keys: Key[Array, " run"],
    *,
    duration: float,
    warmup: float,
    dt: float,
    trainable: Trainable | None = None,
    q: Float[np.ndarray, "run parameter"] | None = None,
    batch: int = 64,
) -> Float[np.ndarray, "run feature"]:
    """Draw, connect and run a network for each key, and describe it.

    Args:
        simulator: the network, not connected.
        keys: of the runs.
        duration: of a run [ms].
        warmup: before it [ms].
        dt: length of a frame [ms].

    Other Args:
        trainable: which parameters differ between the runs.
        q: their unconstrained numbers.
        batch: runs that are computed side by side. There is one program, whatever the number of runs and parameters.

    Returns:
        The features.
    """
    each = partial(_describe, trainable=trainable, how=(duration, warmup, dt))
    q = np.zeros((len(keys), 0)) if q is None else q
    found = []
    for first in range(0, len(keys), batch):
        some = np.minimum(np.arange(first, first + batch), len(keys) - 1)
        features = each(simulator, keys[some], jnp.asarray(q[some], float))
        found.append(np.asarray(features, np.float64)[: len(keys) - first])
    return np.concatenate(found)


@partial(jax.jit, static_argnames=("trainable", "how"))
def _describe(simulator, keys, q, *, trainable: Trainable | None, how: tuple[float, float, float]):
    """The features of some runs, side by side."""
    duration, warmup, dt = how

    def one(key, q):
        network = simulator if trainable is None else trainable.insert(simulator, trainable.constrain(q))
        recording = simulate(
            network.connect(stream(key, "connectivity")),
            duration=duration,
            key=stream(key, "run"),
            record=("spikes",),
            record_every=dt,
            warmup=warmup,
            throw=False,
        )
        return population_features(recording.values["spikes"], dt)

    return jax.vmap(one)(keys, q)
