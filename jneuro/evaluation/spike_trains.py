"""Statistics of spike trains given as event lists."""

import numpy as np

from jneuro.core.types import Float, Int

__all__ = ["isi_cv"]


def isi_cv(
    time: Float[np.ndarray, " event"],
    trial: Int[np.ndarray, " event"],
    neuron: Int[np.ndarray, " event"],
    least: int = 10,
) -> float:
    """Mean coefficient of variation of the interspike intervals, over neurons and trials.

    Args:
        time: time of each spike [ms].
        trial: its trial.
        neuron: its neuron.
        least: trains with fewer intervals are left out.

    Returns:
        The mean CV; NaN if no train is long enough.
    """
    order = np.lexsort((time, neuron, trial))
    time = time[order]
    train = trial[order].astype(np.int64) * (int(neuron.max(initial=0)) + 1) + neuron[order]
    same = train[1:] == train[:-1]
    interval, train = np.diff(time)[same], train[1:][same]
    _, train = np.unique(train, return_inverse=True)
    count = np.bincount(train)
    mean = np.bincount(train, interval) / count
    variance = np.bincount(train, np.square(interval - mean[train])) / np.maximum(count - 1, 1)
    kept = count >= least
    return float(np.mean(np.sqrt(variance[kept]) / mean[kept])) if kept.any() else float("nan")
