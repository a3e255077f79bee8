"""The graph of a Keras 2 model, read from its JSON: which tensor every layer makes from which others.

Nested models are opened, so that only plain layers are left. Every option that changes what a layer computes is
either understood or refused; those of training (initialisers, regularisers, constraints) are not read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jneuro.interop.tensors import WeightsError

__all__ = ["ACTIVATIONS", "MODEL_CLASSES", "Layer", "Tensor", "trace"]

MODEL_CLASSES = ("Functional", "Model")
"""Classes of functional models, the newer name first."""

ACTIVATIONS = {
    "linear": "none",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "swish": "silu",
    "silu": "silu",
}
"""Our name of each of Keras' activations; of two that are the same, the one that older versions know comes first."""


class Layer(NamedTuple):
    """A layer as the file describes it.

    Attributes:
        path: the models that it is nested in and its own name, joined by slashes.
        kind: its class in Keras.
        options: its configuration.
    """

    path: str
    kind: str
    options: Mapping[str, Any]

    def error(self, problem: str) -> WeightsError:
        """The error that says what is wrong with this layer."""
        return WeightsError(f"layer {self.path!r} ({self.kind}) {problem}")

    def require(self, **options: Any) -> None:
        """Refuse any other value of these options; one that is absent has it."""
        for name, value in options.items():
            if self.options.get(name, value) != value:
                raise self.error(f"has {name} = {self.options[name]!r}; supported is {value!r}")


class Tensor(NamedTuple):
    """A tensor, by what made it.

    Attributes:
        operation: "input", "convolution", "transposed", "activation", "concatenate", "crop"; "reshape" where an axis of
            size one comes or goes, and "fold" where channels become, or were, an axis of their own.
        layer: the layer that made it; a convolution with an activation makes two.
        inputs: what it was made from.
        shape: (time, channels) or (time, width, channels); a time that the file leaves open is None.
    """

    operation: str
    layer: Layer
    inputs: tuple["Tensor", ...]
    shape: tuple[Any, ...]


def trace(model: Mapping[str, Any], inputs: Sequence[Tensor] | None = None, prefix: str = "") -> tuple[Tensor, ...]:
    """Follow a model from its inputs to its outputs.

    Args:
        model: the `config` of a functional model.
        inputs: what a nested model is given; the outermost one has inputs of its own.
        prefix: path of the model that it is nested in.

    Returns:
        The outputs.

    Raises:
        WeightsError: naming the layer that is not supported.
    """
    entries = [reference[0] for reference in model["input_layers"]]
    made: dict[str, tuple[Tensor, ...]] = {}
    if inputs is not None:
        made |= {name: (x,) for name, x in zip(entries, inputs, strict=True)}
    pending = [spec for spec in model["layers"] if spec["name"] not in made]
    while pending:
        waiting = []
        for spec in pending:
            sources = [] if spec["class_name"] == "InputLayer" else _sources(spec, prefix)
            if all(name in made for name, _ in sources):
                made[spec["name"]] = _call(spec, [made[name][index] for name, index in sources], prefix)
            else:
                waiting.append(spec)
        if len(waiting) == len(pending):
            raise WeightsError(f"nothing leads to the layers {[prefix + spec['name'] for spec in waiting]}")
        pending = waiting
    return tuple(made[name][index] for name, _, index in model["output_layers"])


def _sources(spec: Mapping[str, Any], prefix: str) -> list[tuple[str, int]]:
    """Which layers, and which of their outputs, a layer is given."""
    nodes = spec["inbound_nodes"]
    if len(nodes) != 1:
        layer = Layer(prefix + spec["name"], spec["class_name"], spec["config"])
        raise layer.error(f"is used {len(nodes)} times; supported is once")
    return [(name, index) for name, _, index, *_ in nodes[0]]


def _call(spec: Mapping[str, Any], inputs: list[Tensor], prefix: str) -> tuple[Tensor, ...]:
    """Give its inputs to one layer or nested model."""
    layer = Layer(prefix + spec["name"], spec["class_name"], spec["config"])
    if layer.kind in MODEL_CLASSES:
        return trace(layer.options, inputs, f"{layer.path}/")
    if layer.kind not in _LAYERS:
        raise layer.error(f"is of a class that is not supported; supported are {', '.join(sorted(_LAYERS))}")
    count = {"InputLayer": 0, "Concatenate": 2}.get(layer.kind, 1)
    if len(inputs) != count:
        raise layer.error(f"has {len(inputs)} inputs; supported are {count}")
    return (_LAYERS[layer.kind](layer, *inputs),)


def _input(layer: Layer) -> Tensor:
    _, *shape = layer.options["batch_input_shape"]
    if len(shape) not in (2, 3) or None in shape[1:]:
        raise layer.error(f"has shape {shape}; supported are [time, channels] and [time, width, channels]")
    return Tensor("input", layer, (), tuple(shape))


def _convolution(layer: Layer, x: Tensor) -> Tensor:
    dimensions = 2 if "2D" in layer.kind else 1
    layer.require(padding="same", data_format="channels_last", groups=1, output_padding=None)
    layer.require(dilation_rate=[1] * dimensions)
    if len(x.shape) != dimensions + 1:
        raise layer.error(f"is given the shape {list(x.shape)}; supported are {dimensions + 1} axes")
    for name in ("kernel_size", "strides"):
        if layer.options[name][1:] != [1] * (dimensions - 1):
            raise layer.error(f"has {name} = {layer.options[name]}; supported is [n, 1]: over time only")
    time, stride = x.shape[0], layer.options["strides"][0]
    transposed = layer.kind.endswith("Transpose")
    if time is not None:
        time = time * stride if transposed else -(-time // stride)
    shape = (time, *x.shape[1:-1], layer.options["filters"])
    return _activation(layer, Tensor("transposed" if transposed else "convolution", layer, (x,), shape))


def _activation(layer: Layer, x: Tensor) -> Tensor:
    name = layer.options["activation"]
    if name not in ACTIVATIONS:
        raise layer.error(f"has activation {name!r}; supported are {', '.join(ACTIVATIONS)}, and the layer PReLU")
    return x if name == "linear" else Tensor("activation", layer, (x,), x.shape)


def _prelu(layer: Layer, x: Tensor) -> Tensor:
    axes = layer.options["shared_axes"] or []
    own = [axis for axis in range(1, len(x.shape)) if axis not in axes and x.shape[axis - 1] != 1]
    if own or len(x.shape) in axes:
        raise layer.error(
            f"has shared_axes = {axes}; supported is {list(range(1, len(x.shape)))}: one slope for each channel"
        )
    return Tensor("activation", layer, (x,), x.shape)


def _concatenate(layer: Layer, x: Tensor, y: Tensor) -> Tensor:
    axis = layer.options["axis"]
    if axis not in (-1, len(x.shape)) or x.shape[1:-1] != y.shape[1:-1]:
        raise layer.error(f"joins {list(x.shape)} and {list(y.shape)} along axis {axis}; supported are the channels")
    return Tensor("concatenate", layer, (x, y), (*x.shape[:-1], x.shape[-1] + y.shape[-1]))


def _cropping(layer: Layer, x: Tensor) -> Tensor:
    crops = layer.options["cropping"]
    left, right = crops if layer.kind == "Cropping1D" else crops[0]
    if len(x.shape) != (2 if layer.kind == "Cropping1D" else 3) or crops[1:] not in ([right], [[0, 0]]):
        raise layer.error(f"cuts {crops} of the shape {list(x.shape)}; supported are samples of time")
    time = None if x.shape[0] is None else x.shape[0] - left - right
    return Tensor("crop", layer, (x,), (time, *x.shape[1:]))


def _reshape(layer: Layer, x: Tensor) -> Tensor:
    time, *rest = x.shape
    target, *shape = layer.options["target_shape"]
    if target in (-1, time):
        if (len(shape) == 2 and shape == [1, *rest]) or (len(rest) == 2 and rest == [1, *shape]):
            return Tensor("reshape", layer, (x,), (time, *shape))
        if (len(shape) == 2 and shape == [*rest, 1]) or (len(rest) == 2 and rest == [*shape, 1]):
            return Tensor("fold", layer, (x,), (time, *shape))
    raise layer.error(
        f"turns {list(x.shape)} into {[target, *shape]}; supported is an axis of size 1 after time or after the"
        " channels, added or removed"
    )


_LAYERS: dict[str, Callable[..., Tensor]] = {
    "InputLayer": _input,
    "Conv1D": _convolution,
    "Conv2D": _convolution,
    "Conv1DTranspose": _convolution,
    "Conv2DTranspose": _convolution,
    "Activation": _activation,
    "PReLU": _prelu,
    "Concatenate": _concatenate,
    "Cropping1D": _cropping,
    "Cropping2D": _cropping,
    "Reshape": _reshape,
}
