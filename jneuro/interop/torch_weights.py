"""Weights to PyTorch and back, bit by bit.

The names are those of a PyTorch module whose attributes are called as ours: our path, joined by dots, with the leaf of
the PyTorch layer. `LSTMForecaster` and `CNNLSTM` have the names of the public reference code instead.

    ours                 PyTorch               leaves
    nnx.Linear           nn.Linear             kernel [in, out] → weight [out, in], bias
    nnx.Conv             nn.Conv1d             kernel [kernel, in, out] → weight [out, in, kernel], bias
    Convolution          nn.Conv1d             the same
    …, transposed        nn.ConvTranspose1d    kernel [kernel, out, in] → weight [in, out, kernel], bias
    nnx.LayerNorm        nn.LayerNorm          scale → weight, bias
    nnx.Embed            nn.Embedding          embedding → weight
    BatchNorm            nn.BatchNorm1d        scale → weight, bias, mean → running_mean, var → running_var
    LSTM, LSTMLayer      nn.LSTM               weight_ih → weight_ih_l{k}, transposed; …
    nnx.List             nn.ModuleList         indices
    a variable           nn.Parameter          same name and shape
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.core.guard import Unreadable, found_in
from jneuro.core.names import one_line
from jneuro.interop.pickles import check_torch_file
from jneuro.interop.tensors import WeightsError, check_tensors, reading, without_prefix
from jneuro.models.forecasters import CNNLSTM, LSTMForecaster
from jneuro.models.layers import LSTM, BatchNorm, Convolution, LSTMLayer

__all__ = ["from_torch", "load_state_dict", "save_state_dict", "to_torch"]

M = TypeVar("M", bound=nnx.Module)
Names = tuple[Any, ...]


class _Leaf(NamedTuple):
    """PyTorch's name of a variable, and where PyTorch's axes are among ours."""

    name: str
    axes: tuple[int, ...] | None = None


_BIAS = {"bias": _Leaf("bias")}
_LEAVES: dict[type, dict[str, _Leaf]] = {
    nnx.Linear: {"kernel": _Leaf("weight", (1, 0))} | _BIAS,
    nnx.Conv: {"kernel": _Leaf("weight", (2, 1, 0))} | _BIAS,
    Convolution: {"kernel": _Leaf("weight", (2, 1, 0))} | _BIAS,
    nnx.LayerNorm: {"scale": _Leaf("weight")} | _BIAS,
    nnx.Embed: {"embedding": _Leaf("weight")},
    BatchNorm: {"scale": _Leaf("weight"), "mean": _Leaf("running_mean"), "var": _Leaf("running_var")} | _BIAS,
    LSTMLayer: {
        "weight_ih": _Leaf("weight_ih", (1, 0)),
        "weight_hh": _Leaf("weight_hh", (1, 0)),
        "bias_ih": _Leaf("bias_ih"),
        "bias_hh": _Leaf("bias_hh"),
    },
}


def _reference_names(path: Names) -> Names:
    """The path in the public reference code of the forecasters."""
    match path:
        case ("head", *rest):
            return tuple(rest)
        case ("convolutions", k, *rest):
            return "cnn_features", 4 * k, *rest
        case ("norms", k, *rest):
            return "cnn_features", 4 * k + 2, *rest
    return path


_RENAMED: dict[type, Callable[[Names], Names]] = {LSTMForecaster: _reference_names, CNNLSTM: _reference_names}
# PyTorch counts the batches that its running statistics saw, and reads the count only without a momentum.
_COUNT = "num_batches_tracked"


def _entries(model: nnx.Module) -> Iterator[tuple[str, nnx.Variable, tuple[int, ...] | None]]:
    """Every variable but random streams: its name in PyTorch, itself, and PyTorch's axes."""
    nodes = dict(nnx.iter_graph(model))
    rename = _RENAMED.get(type(model), lambda path: path)
    for path, variable in nodes.items():
        if not isinstance(variable, nnx.Variable) or isinstance(variable, nnx.RngState):
            continue
        parent, ours = path[:-1], str(path[-1])
        owner = nodes[parent]
        leaf = _LEAVES.get(type(owner), {}).get(ours)
        if leaf is None and type(owner).__module__.startswith("flax.") and not isinstance(owner, nnx.List):
            raise WeightsError(f"no PyTorch layer is known for {type(owner).__name__}, of {'.'.join(map(str, parent))}")
        name, axes = leaf or _Leaf(ours)
        if isinstance(owner, LSTMLayer):
            stacked = len(parent) > 1 and isinstance(nodes[parent[:-2]], LSTM)
            name = f"{name}_l{path[-2] if stacked else 0}"
            parent = parent[:-2] if stacked else parent
        yield ".".join(map(str, rename((*parent, name)))), variable, axes


def _counts(model: nnx.Module) -> set[str]:
    """Names of PyTorch's batch counts, one beside every running mean."""
    means = (name.rpartition("running_mean") for name, *_ in _entries(model))
    return {f"{before}{_COUNT}" for before, found, _ in means if found}


def to_torch(model: nnx.Module) -> dict[str, np.ndarray]:
    """A model's weights under PyTorch's names and in its layouts.

    Args:
        model: any model of `jneuro.models`, or a module made of the layers above.

    Returns:
        What the PyTorch twin's `state_dict()` holds, as arrays of the model's own precision; batch counts are 0.

    Raises:
        WeightsError: if the model has a layer for which none of PyTorch's is known.
    """
    weights = {
        name: np.array(np.asarray(variable[...]).transpose(axes or tuple(range(variable.ndim))), order="C")
        for name, variable, axes in _entries(model)
    }
    return weights | {name: np.array(0, np.int64) for name in sorted(_counts(model))}


def from_torch(model: M, state_dict: Mapping[str, Any]) -> M:
    """Give a model the weights of a PyTorch module.

    Args:
        model: of the configuration that the weights belong to; it is not changed.
        state_dict: NumPy arrays or PyTorch tensors by name, which may all begin alike, such as with `module.`; batch
            counts may be there, and are not read.

    Returns:
        A new model, its parameters in the precision of the tensors.

    Raises:
        WeightsError: if a tensor is missing, unknown, of another shape, or would lose precision; it lists them all.
    """
    model = nnx.clone(model)
    counts = _counts(model)
    entries = {name: (variable, axes) for name, variable, axes in _entries(model)}
    named = without_prefix(state_dict, entries)
    found = {name: _as_array(value) for name, value in named.items() if name not in counts}
    shapes = {n: tuple(v.shape[a] for a in axes) if axes else v.shape for n, (v, axes) in entries.items()}
    absent = {name.partition(".")[0] for name in shapes if name not in found}
    hint = "; the reference has no projection where features = hidden: set residual = identity"
    hint = hint if absent == {"residual_projection"} else ""
    check_tensors(shapes, found, f"the PyTorch names of {type(model).__name__}", hint=hint)
    for name, (variable, axes) in entries.items():
        value = np.transpose(found[name], np.argsort(axes)) if axes else found[name]
        variable.set_value(jnp.array(value))  # a copy: the tensor's memory may be trained on
    return model


def _as_array(value: Any) -> np.ndarray:
    """An array with the bits of a PyTorch tensor, or of anything that NumPy understands."""
    if type(value).__module__.partition(".")[0] != "torch":
        return np.asarray(value)
    torch = _torch()
    try:
        value = value.detach().cpu()
        if value.dtype == torch.bfloat16:
            return value.view(torch.int16).numpy().view(jnp.bfloat16)
        return value.numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        kind = f"{value.dtype}, {value.layout}".replace("torch.", "")
        raise WeightsError(
            f"a tensor is {kind}; convert it to a dense one of float32: tensor.to_dense().float()"
        ) from error


def _as_tensor(value: np.ndarray) -> Any:
    """The reverse of `_as_array`."""
    torch = _torch()
    if value.dtype == jnp.bfloat16:
        return torch.tensor(value.view(np.int16)).view(torch.bfloat16)
    return torch.tensor(value)


def load_state_dict(path: str | Path) -> dict[str, Any]:
    """Read the tensors of a PyTorch file; nothing else in it is executed.

    Args:
        path: a `.pt` file with a state_dict, alone or as `state_dict` or `model_state_dict` of a checkpoint.

    Returns:
        The tensors by name.

    Raises:
        WeightsError: if the file cannot be read, or holds something else.
    """
    torch = _torch()
    # Numbers that NumPy averaged may stand beside the weights; they execute nothing.
    number = np.float64(0).__reduce__()[0]
    allowed = [number, (number, "numpy.core.multiarray.scalar"), np.dtype, *{type(np.dtype(c)) for c in "?bhilBHILefd"}]
    remedy = "save the module's state_dict: torch.save(module.state_dict(), path)"
    with reading(Path(path), "a PyTorch file"):
        try:
            check_torch_file(Path(path))
        except Unreadable as error:
            said = f"{error}; it is {found_in(Path(path))}"
            raise WeightsError(f"{path}: is not a PyTorch file of plain tensors ({said}); {remedy}") from error
        try:
            with torch.serialization.safe_globals(allowed):
                content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of the pickle, of the archive, or of what the tensors are made of
            # PyTorch's own remedies would execute what the file says.
            reason = str(error).strip().rpartition("WeightsUnpickler error: ")[2].partition("\n")[0]
            _, other, name = reason.partition("GLOBAL ")
            reason = f"it holds {name.split()[0]}" if other and name.split() else one_line(reason, most=80)
            raise WeightsError(f"{path}: is not a PyTorch file of plain tensors ({reason}); {remedy}") from error
        for key in ("state_dict", "model_state_dict"):
            if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
                content = content[key]
        if not isinstance(content, Mapping) or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
        ):
            raise WeightsError(f"{path}: holds no state_dict; save one with `torch.save(module.state_dict(), path)`")
        return dict(content)


def save_state_dict(weights: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Write a state_dict that `torch.load` reads.

    Args:
        weights: what `to_torch` made.
        path: the file.

    Raises:
        WeightsError: if PyTorch is not installed.
    """
    _torch().save({name: _as_tensor(value) for name, value in weights.items()}, path)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise WeightsError("reading and writing .pt files needs PyTorch: pip install 'jneuro[torch]'") from error
    return torch
