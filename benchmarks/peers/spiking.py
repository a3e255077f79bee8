"""Statistics of spike trains, the same for every peer."""

import numpy as np

__all__ = ["compare", "crossings", "statistics"]


def irregularity(times, ids, neurons):
    """Mean CV of the intervals, over neurons with five spikes or more."""
    order = np.lexsort((times, ids))
    trains = np.split(times[order], np.searchsorted(ids[order], np.arange(1, neurons)))
    intervals = [np.diff(train) for train in trains if len(train) >= 5]
    return float(np.mean([i.std() / i.mean() for i in intervals])) if intervals else float("nan")


def statistics(times, ids, excitatory, neurons, begin, end):
    """Rates [Hz], CV of the intervals, synchrony and counts of the spikes from `begin` to `end` [ms].

    Synchrony is the variance of the population's count in bins of 5 ms, over its mean: 1 for independent Poisson
    trains. The peak is the frequency [Hz] above 20 Hz at which the spectrum of the count in bins of 1 ms is largest.
    """
    times, ids = np.asarray(times, float), np.asarray(ids)
    kept = (times >= begin) & (times < end)
    times, ids = times[kept], ids[kept]
    seconds = (end - begin) * 1e-3
    count = np.bincount(ids, minlength=neurons)
    population = np.histogram(times, np.arange(begin, end + 2.5, 5.0))[0]
    fine = np.histogram(times, np.arange(begin, end + 0.5, 1.0))[0]
    # Averaging over segments of 256 ms steadies the spectrum; 4 Hz is its resolution.
    segments = fine[: len(fine) // 256 * 256].reshape(-1, 256)
    spectrum = (np.abs(np.fft.rfft(segments - segments.mean(1, keepdims=True), axis=1)) ** 2).mean(0)
    frequency = np.fft.rfftfreq(256, 1e-3)
    return {
        "rate": count.mean() / seconds,
        "rate_e": count[:excitatory].mean() / seconds,
        "rate_i": count[excitatory:].mean() / seconds,
        "cv": irregularity(times, ids, neurons),
        "synchrony": population.var() / population.mean(),
        "count_10_ms": count.mean() / seconds * 0.01,
        "peak": frequency[frequency > 20][spectrum[frequency > 20].argmax()],
    }


def crossings(t, v):
    """Upward crossings of 0 mV, by linear interpolation [ms]."""
    k = np.flatnonzero((v[:-1] < 0) & (v[1:] >= 0))
    return t[k] - v[k] * (t[k + 1] - t[k]) / (v[k + 1] - v[k])


def compare(found, exact, until):
    """Errors of spike times before `until` [ms], over runs; runs with another number of spikes are counted apart."""
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in zip(found, exact, strict=True)]
    pairs = [(a[a < until], b[b < until]) for a, b in pairs]
    errors = np.concatenate([np.abs(a - b) for a, b in pairs if len(a) == len(b)])
    return {
        "until_ms": until,
        "runs": len(pairs),
        "runs_with_another_count": sum(len(a) != len(b) for a, b in pairs),
        "spike_time_error_ms": {"median": float(np.median(errors)), "max": float(errors.max())},
    }
