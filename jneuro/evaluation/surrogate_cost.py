"""What a surrogate saves, and what its gradients are worth."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.core.types import Array, Float
from jneuro.datasets import Windows
from jneuro.datasets.windows import Batch
from jneuro.evaluation.analysis import Source
from jneuro.evaluation.surrogate_probe import simulator_response
from jneuro.models.base import forward
from jneuro.spikes.detection import upward

__all__ = ["gradients", "latency_weights", "timings"]

AMPLITUDES = tuple(float(a) for a in range(8, 60, 4))
"""Amplitudes of the steps whose gradients are compared [µA/cm²]."""

ONSET_MS = 17.8


def _predict(model: nnx.Module, windows: Windows) -> Callable[[Float[Array, "run frame"]], Float[Array, "run horizon"]]:
    """The surrogate as a function from currents [µA/cm²] to voltages [mV]."""
    graph, variables = nnx.split(model)
    scaling, unscaled = windows.scaling.of(windows.input_columns), windows.target_scaling

    def volts(variables, current):
        inputs = scaling.apply(current[..., None])
        targets = jnp.zeros((current.shape[0], len(windows.horizons), 1), current.dtype)
        prediction = forward(nnx.merge(graph, variables), Batch(inputs, targets)).mean
        return unscaled.invert(prediction)[..., 0]

    return jax.tree_util.Partial(jax.jit(volts), variables)


def timings(
    source: Source, model: nnx.Module, windows: Windows, batches: Sequence[int], *, repeats: int, longest: float
) -> list[dict[str, float | None]]:
    """Time the simulator and the surrogate on the same job: voltages of a window for each of a batch of currents.

    Args:
        source: the simulator.
        model: the surrogate.
        windows: its own.
        batches: sizes, ascending.

    Other Args:
        repeats: timed calls of each, after the one that compiles.
        longest: the first batch that takes longer is the last [s].

    Returns:
        For each batch, medians `simulator_s` and `surrogate_s`, and what the first call of each took beyond that,
        `simulator_compile_s` and `surrogate_compile_s`; None for what was left out.
    """
    functions = {"simulator": simulator_response(source, windows.dt), "surrogate": _predict(model, windows)}
    found: list[dict[str, float | None]] = [{"batch": size} for size in sorted(batches)]
    for name, function in functions.items():
        slow = False
        for entry in found:
            entry[f"{name}_s"] = entry[f"{name}_compile_s"] = None
            if slow:
                continue
            amplitudes = np.linspace(1, 60, int(entry["batch"] or 0)).astype(np.float32)
            currents = jnp.asarray(amplitudes[:, None] * _shape(windows))
            first = _seconds(function, currents)
            # A call too slow to repeat counts once.
            often = 1 if first > 4 * longest else repeats
            median = float(np.median([_seconds(function, currents) for _ in range(often)]))
            entry |= {f"{name}_s": median, f"{name}_compile_s": max(first - median, 0.0)}
            slow = median > longest
    return found


def _seconds(function: Callable, argument: Array) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(function(argument))
    return time.perf_counter() - begin


def _shape(windows: Windows) -> Float[np.ndarray, " frame"]:
    """A step of amplitude one."""
    return (windows.dt * np.arange(1, windows.length + 1) >= ONSET_MS).astype(np.float32)


def gradients(
    source: Source, model: nnx.Module, windows: Windows, threshold: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Derivatives with respect to the amplitude of a step, through the simulator and through the surrogate.

    Of two quantities: the mean voltage, and the time of the first spike, which follows from the derivative of the
    voltage where it crosses the threshold.

    Args:
        source: the simulator.
        model: the surrogate.
        windows: its own.
        threshold: of spikes [mV].

    Returns:
        For each quantity, the correlation of both derivatives over amplitudes, the share whose sign agrees and the
        median relative error; and the derivatives, for a figure.
    """
    kept = np.asarray(windows.horizons) + windows.length - 1
    simulator, surrogate = simulator_response(source, windows.dt), _predict(model, windows)
    ways = {"simulator": lambda i: simulator(i)[0][:, kept], "surrogate": surrogate}
    shape = jnp.asarray(_shape(windows))[None]
    drawn: dict[str, Any] = {"amplitude": (("amplitude",), np.asarray(AMPLITUDES))}
    values: dict[str, dict[str, np.ndarray]] = {"mean_v": {}, "latency": {}}
    for name, volts in ways.items():

        def of(amplitudes, volts=volts):
            return volts(amplitudes[:, None] * shape)

        # Reverse mode is what every solver offers; runs do not mix, so one pull gives every run its own derivative.
        v, pull = jax.vjp(of, jnp.asarray(AMPLITUDES, jnp.float32))
        values["mean_v"][name] = np.asarray(pull(jnp.full_like(v, 1 / v.shape[1]))[0])
        weights = np.stack([latency_weights(row, windows.dt, threshold) for row in np.asarray(v, np.float64)])
        slope = np.asarray(pull(jnp.asarray(weights, v.dtype))[0])
        values["latency"][name] = np.where(weights.any(1), slope, np.nan)
    numbers = {quantity: _agreement(both["simulator"], both["surrogate"]) for quantity, both in values.items()}
    for quantity, both in values.items():
        drawn |= {f"{quantity}_{name}": (("amplitude",), value) for name, value in both.items()}
    return numbers, drawn


def latency_weights(v: Float[np.ndarray, " frame"], dt: float, threshold: float) -> Float[np.ndarray, " frame"]:
    """What the derivative of each voltage adds to that of the time of the first upward crossing, −∂v / (∂v/∂t) there.

    Args:
        v: voltage [mV].
        dt: time between samples [ms].
        threshold: what is crossed [mV].

    Returns:
        The weights [ms/mV]; zero where nothing crosses.
    """
    weights = np.zeros_like(v)
    at = np.flatnonzero(upward(v, threshold))
    if len(at):
        k, rise = at[0], v[at[0] + 1] - v[at[0]]
        share = (threshold - v[k]) / rise
        weights[k : k + 2] = -dt / rise * np.array([1 - share, share])
    return weights


def _agreement(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    both = np.isfinite(true) & np.isfinite(predicted)
    true, predicted = true[both], predicted[both]
    if len(true) < 3:
        return {"amplitudes": len(true), "correlation": np.nan, "same_sign": np.nan, "relative_error": np.nan}
    return {
        "amplitudes": len(true),
        "correlation": float(np.corrcoef(true, predicted)[0, 1]),
        "same_sign": float(np.mean(np.sign(true) == np.sign(predicted))),
        "relative_error": float(np.median(np.abs(predicted - true) / np.abs(true))),
    }
