"""A simulator and its surrogate as functions of waveforms: what a call of each takes, and what their gradients say."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.core.devices import double_precision
from jneuro.core.types import Array, Float
from jneuro.datasets import Windows
from jneuro.datasets.windows import Batch
from jneuro.evaluation.analysis import Source
from jneuro.evaluation.comparison import Comparison, compare, holm
from jneuro.models.base import forward
from jneuro.simulators.simulation import simulate_many
from jneuro.simulators.stimuli import Sampled, Step, Stimulus
from jneuro.spikes.detection import upward

__all__ = ["gradients", "latency_weights", "respond", "surrogate", "timings", "waveform"]

Response = Callable[[Float[Array, "run frame"]], tuple[Float[Array, "run frame"], Float[Array, "run frame"]]]


def waveform(
    kind: type[Stimulus], windows: Windows, **arguments: float | np.ndarray
) -> Float[np.ndarray, "*draw frame"]:
    """Sample a stimulus at the end of every frame of a window, in double precision.

    Args:
        kind: of the stimulus, such as `Step`.
        windows: tell the frames.
        arguments: of the stimulus; arrays give one waveform for each of their values.
    """
    with double_precision():
        at = windows.dt * jnp.arange(1, windows.length + 1)
        return np.asarray(_sample(kind(**arguments), at)).T


@eqx.filter_jit
def _sample(stimulus: Stimulus, at: Float[Array, " frame"]) -> Array:
    return jax.vmap(stimulus)(at)


def respond(source: Source, dt: float) -> Response:
    """The simulator as a function of waveforms, compiled; differentiable.

    Args:
        source: the simulator.
        dt: time between the samples of a waveform, and of the answer [ms].

    Returns:
        A function from currents, held between samples, to the voltages [mV] and currents at the end of each frame.
    """

    @eqx.filter_jit
    def answer(currents):
        recording = simulate_many(
            source.simulator,
            jax.vmap(lambda current: Sampled(current, jnp.asarray(dt), hold=True))(currents),
            batched=("stimulus",),
            duration=currents.shape[1] * dt,
            key=jax.random.key(0),
            dt=source.dt,
            solver=source.solver,
            record=("v", "current"),
            record_every=source.record_every,
            throw=False,
        )
        v, current = (recording.values[name].reshape(len(currents), -1) for name in ("v", "current"))
        return v, current

    return answer


def surrogate(
    model: nnx.Module, windows: Windows
) -> Callable[[Float[Array, "run frame"]], Float[Array, "run horizon"]]:
    """A surrogate as a function from currents to voltages [mV], compiled; differentiable.

    Args:
        model: the surrogate.
        windows: its own.
    """
    graph, variables = nnx.split(model)
    scaling, unscaled = windows.scaling.of(windows.input_columns), windows.target_scaling

    def volts(variables, current):
        inputs = scaling.apply(current[..., None])
        targets = jnp.zeros((current.shape[0], len(windows.horizons), 1), current.dtype)
        prediction = forward(nnx.merge(graph, variables), Batch(inputs, targets)).mean
        return unscaled.invert(prediction)[..., 0]

    return jax.tree_util.Partial(jax.jit(volts), variables)


def timings(
    source: Source,
    model: nnx.Module,
    windows: Windows,
    batches: Sequence[int],
    *,
    onset: float,
    repeats: int,
    longest: float,
) -> tuple[list[dict[str, float | None]], dict[str, Comparison]]:
    """Time the simulator and the surrogate on the same job: voltages of a window for each of a batch of steps.

    Args:
        source: the simulator.
        model: the surrogate.
        windows: its own.
        batches: sizes, ascending.

    Other Args:
        onset: of the steps [ms].
        repeats: timed calls of each, after the one that compiles.
        longest: the first batch that takes longer is the last [s].

    Returns:
        For each batch, medians `simulator_s` and `surrogate_s`, and what the first call of each took beyond that,
        `simulator_compile_s` and `surrogate_compile_s`, None for what was left out; and by batch, the surrogate's
        times against the simulator's.
    """
    functions = {"simulator": respond(source, windows.dt), "surrogate": surrogate(model, windows)}
    shape = np.float32(waveform(Step, windows, amplitude=1.0, onset=onset))
    found: list[dict[str, Any]] = [{"batch": size} for size in sorted(set(batches))]
    took: dict[int, list[list[float]]] = {}
    for name, function in functions.items():
        slow = False
        for entry in found:
            entry[f"{name}_s"] = entry[f"{name}_compile_s"] = None
            if slow:
                continue
            amplitudes = np.linspace(1, 60, entry["batch"]).astype(np.float32)
            currents = jnp.asarray(amplitudes[:, None] * shape)
            first = _seconds(function, currents)
            # A call too slow to repeat counts once.
            calls = [_seconds(function, currents) for _ in range(1 if first > 4 * longest else repeats)]
            median = float(np.median(calls))
            took.setdefault(entry["batch"], []).append(calls)
            entry |= {f"{name}_s": median, f"{name}_compile_s": max(first - median, 0.0)}
            slow = median > longest
    both = {batch: pair for batch, pair in took.items() if len(pair) == 2}
    apart = {
        str(batch): compare(b[: len(a)], a[: len(b)], paired_by="repeat", unit="s", higher_is_better=False)
        for batch, (a, b) in both.items()
    }
    return found, holm(apart)


def _seconds(function: Callable, argument: Array) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(function(argument))
    return time.perf_counter() - begin


def gradients(
    source: Source, model: nnx.Module, windows: Windows, amplitudes: Sequence[float], *, onset: float, threshold: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Derivatives with respect to the amplitude of a step, through the simulator and through the surrogate.

    Of two quantities: the mean voltage, and the time of the first spike, which follows from the derivative of the
    voltage where it crosses the threshold.

    Args:
        source: the simulator.
        model: the surrogate.
        windows: its own.
        amplitudes: of the steps, in the simulator's unit.

    Other Args:
        onset: of the step [ms].
        threshold: of spikes [mV].

    Returns:
        For each quantity, the correlation of both derivatives over amplitudes, the share whose sign agrees and the
        median relative error; and the derivatives, for a figure.
    """
    kept = np.asarray(windows.horizons) + windows.length - 1
    simulator = respond(source, windows.dt)
    ways = {"simulator": lambda i: simulator(i)[0][:, kept], "surrogate": surrogate(model, windows)}
    shape = jnp.asarray(np.float32(waveform(Step, windows, amplitude=1.0, onset=onset)))[None]
    drawn: dict[str, Any] = {"amplitude": (("amplitude",), np.asarray(amplitudes, np.float64))}
    values: dict[str, dict[str, np.ndarray]] = {"mean_v": {}, "latency": {}}
    for name, volts in ways.items():

        def of(each, volts=volts):
            return volts(each[:, None] * shape)

        # Reverse mode is what every solver offers; runs do not mix, so one pull gives every run its own derivative.
        v, pull = jax.vjp(of, jnp.asarray(amplitudes, jnp.float32))
        values["mean_v"][name] = np.asarray(pull(jnp.full_like(v, 1 / v.shape[1]))[0])
        weights = np.stack([latency_weights(row, windows.dt, threshold) for row in np.asarray(v, np.float64)])
        slope = np.asarray(pull(jnp.asarray(weights, v.dtype))[0])
        values["latency"][name] = np.where(weights.any(1), slope, np.nan)
    for quantity, both in values.items():
        drawn |= {f"{quantity}_{name}": (("amplitude",), value) for name, value in both.items()}
    return {quantity: _agreement(*both.values()) for quantity, both in values.items()}, drawn


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
