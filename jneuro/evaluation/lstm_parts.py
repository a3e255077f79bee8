"""What the parts of an LSTM forecaster do: its gates, and the convolutions before it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.core.types import Float, Int
from jneuro.datasets.windows import Windows
from jneuro.evaluation.forecasts import forecast, targets
from jneuro.evaluation.protocols import SupportsConvolutions, SupportsGates

__all__ = ["convolution_share", "gate_statistics"]

_SATURATED = 0.1
"""A gate is saturated nearer than this to closed or to open, as in Karpathy, Johnson & Fei-Fei (2015)."""


def gate_statistics(
    model: SupportsGates, windows: Windows, starts: Int[np.ndarray, " window"]
) -> tuple[list[dict[str, Any]], list[Float[np.ndarray, " unit"]]]:
    r"""How open the gates are, and how long a unit remembers, \(-\Delta t / \ln \bar f\) with its mean forget gate.

    Args:
        model: the forecaster, which shows its gates.
        windows: the data.
        starts: first frame of each window.

    Returns:
        For each layer: `mean`, `closed` and `open` (shares of saturated values) by gate, and `memory_ms`, the quartiles
        over units; and each layer's memory unit by unit, ascending [ms].
    """
    graph, variables = nnx.split(model)

    @jax.jit
    def watch(variables, data, start):
        model, inputs = nnx.merge(graph, variables), data.gather(start).inputs

        def told(gate):
            return gate.mean((0, 1)), (gate < _SATURATED).mean((0, 1)), (gate > 1 - _SATURATED).mean((0, 1))

        return [{name: told(gate) for name, gate in layer._asdict().items()} for layer in model.gates(inputs)]

    layers, memories = [], []
    for layer in watch(variables, windows, jnp.asarray(starts)):
        entry: dict[str, Any] = {key: {} for key in ("mean", "closed", "open")}
        for name, values in layer.items():
            for key, value in zip(entry, values, strict=True):
                entry[key][name] = float(value.mean())
        memory = np.sort(-windows.dt / np.log(np.asarray(layer["forget"][0], np.float64)))
        layers.append(entry | {"memory_ms": np.quantile(memory, [0.25, 0.5, 0.75]).tolist()})
        memories.append(memory)
    return layers, memories


def convolution_share(
    model: SupportsConvolutions, windows: Windows, starts: Int[np.ndarray, " window"]
) -> dict[str, Any]:
    """What the convolutions add: to what the LSTM reads, and to the forecast at the nearest horizon.

    Args:
        model: the forecaster, which can do without its convolutions, of which it has one at least.
        windows: the data.
        starts: first frame of each window.

    Returns:
        `input_share`, the variance of the convolved features over that of what the LSTM reads; `output_share`, the
        variance of the change in the forecast when they are zero over that of the forecast; `r2` and `r2_without`, on
        these windows; and `taps`, the share of each convolution's squared weights by the offset of the neuron's index.
    """
    graph, variables = nnx.split(model)

    @jax.jit
    def spread(variables, data, start):
        inputs = data.gather(start).inputs
        whole = nnx.merge(graph, variables).augment(inputs, train=False)
        return (whole - inputs).var(0).sum() / whole.var(0).sum()

    pair: Any = (model, model.without_convolutions())
    said, silent = (forecast(m, windows, starts, batch_size=64)[:, 0].astype(np.float64) for m in pair)
    truth = targets(windows, starts)[:, 0]
    r2 = [float(1 - np.square(x - truth).sum() / np.square(truth - truth.mean(0)).sum()) for x in (said, silent)]
    return {
        "input_share": float(spread(variables, windows, jnp.asarray(starts))),
        "output_share": float((said - silent).var(0).sum() / said.var(0).sum()),
        "r2": r2[0],
        "r2_without": r2[1],
        "taps": [(np.asarray(w) / np.sum(w)).tolist() for w in model.taps()],
    }
