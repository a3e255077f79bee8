"""Encoder–decoders from Keras 2 and back: architecture in JSON, weights in HDF5, bit by bit.

The graph is read from the JSON: which tensor every layer makes from which others. Nested models are opened, so that
only plain layers are left. Every option that changes what a layer computes is either understood or refused; those of
training (initialisers, regularisers, constraints) are not read.

Kernels lie in both as `[kernel, in, out]`, transposed ones as `[kernel, out, in]`; where Keras computes in two
dimensions, with kernels over time only, its arrays have further axes of size one. Keras finds weights by position: in
the order of the attributes `layer_names` and `weight_names`, which is not HDF5's own, alphabetical one.

A network that treats every one of several channels alike (an axis "width" that no kernel spans) becomes a model of one
channel: put the channels on the batch axis.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.core.guard import Unreadable, parse_json, rehearse
from jneuro.core.names import one_line
from jneuro.interop.tensors import WeightsError, check_sizes, check_tensors, reading
from jneuro.interop.weights_folder import model_config, new_model, written_whole
from jneuro.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

__all__ = ["load_keras", "save_keras"]

_VERSION = "2.4.0"
"""Of Keras, named in our files: the first that knows Conv1DTranspose."""


_LAYERS_AT_MOST = 2000

_MODEL_CLASSES = ("Functional", "Model")
"""Classes of functional models, the newer name first."""

_ACTIVATIONS = {"linear": "none", "tanh": "tanh", "sigmoid": "sigmoid", "relu": "relu", "swish": "silu", "silu": "silu"}
"""Our name of each of Keras' activations; of two that are the same, the one that older versions know comes first."""


class _Layer(NamedTuple):
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


class _Tensor(NamedTuple):
    """A tensor, by what made it.

    Attributes:
        operation: "input", "convolution", "transposed", "activation", "concatenate", "crop"; "reshape" where an axis of
            size one comes or goes, and "fold" where channels become, or were, an axis of their own.
        layer: the layer that made it; a convolution with an activation makes two.
        inputs: what it was made from.
        shape: (time, channels) or (time, width, channels); a time that the file leaves open is None.
    """

    operation: str
    layer: _Layer
    inputs: tuple["_Tensor", ...]
    shape: tuple[Any, ...]


def _trace(model: Mapping[str, Any], inputs: Sequence[_Tensor] | None = None, prefix: str = "") -> tuple[_Tensor, ...]:
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
    made: dict[str, tuple[_Tensor, ...]] = {}
    if inputs is not None:
        made |= {name: (x,) for name, x in zip(entries, inputs, strict=True)}
    if len(model["layers"]) > _LAYERS_AT_MOST:
        raise WeightsError(f"has {len(model['layers'])} layers; supported are {_LAYERS_AT_MOST}")
    pending = [spec for spec in model["layers"] if spec["name"] not in made]
    while pending:
        waiting = []
        for spec in pending:
            layer = _Layer(prefix + spec["name"], spec["class_name"], spec["config"])
            sources = [] if layer.kind == "InputLayer" else _sources(layer, spec["inbound_nodes"])
            if all(name in made for name, _ in sources):
                made[spec["name"]] = _call(layer, [made[name][index] for name, index in sources])
            else:
                waiting.append(spec)
        if len(waiting) == len(pending):
            raise WeightsError(f"nothing leads to the layers {[prefix + spec['name'] for spec in waiting]}")
        pending = waiting
    return tuple(made[name][index] for name, _, index in model["output_layers"])


def _sources(layer: _Layer, nodes: Sequence[Any]) -> list[tuple[str, int]]:
    """Which layers, and which of their outputs, a layer is given."""
    if len(nodes) != 1:
        raise layer.error(f"is used {len(nodes)} times; supported is once")
    return [(name, index) for name, _, index, *_ in nodes[0]]


def _call(layer: _Layer, inputs: list[_Tensor]) -> tuple[_Tensor, ...]:
    """Give its inputs to one layer or nested model."""
    if layer.kind in _MODEL_CLASSES:
        return _trace(layer.options, inputs, f"{layer.path}/")
    if layer.kind not in _LAYERS:
        raise layer.error(f"is of a class that is not supported; supported are {', '.join(sorted(_LAYERS))}")
    count = {"InputLayer": 0, "Concatenate": 2}.get(layer.kind, 1)
    if len(inputs) != count:
        raise layer.error(f"has {len(inputs)} inputs; supported are {count}")
    return (_LAYERS[layer.kind](layer, *inputs),)


def _input(layer: _Layer) -> _Tensor:
    _, *shape = layer.options["batch_input_shape"]
    if len(shape) not in (2, 3) or None in shape[1:]:
        raise layer.error(f"has shape {shape}; supported are [time, channels] and [time, width, channels]")
    return _Tensor("input", layer, (), tuple(shape))


def _convolution(layer: _Layer, x: _Tensor) -> _Tensor:
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
    return _activation(layer, _Tensor("transposed" if transposed else "convolution", layer, (x,), shape))


def _activation(layer: _Layer, x: _Tensor) -> _Tensor:
    name = layer.options["activation"]
    if name not in _ACTIVATIONS:
        raise layer.error(f"has activation {name!r}; supported are {', '.join(_ACTIVATIONS)}, and the layer PReLU")
    return x if name == "linear" else _Tensor("activation", layer, (x,), x.shape)


def _prelu(layer: _Layer, x: _Tensor) -> _Tensor:
    axes = layer.options["shared_axes"] or []
    own = [axis for axis in range(1, len(x.shape)) if axis not in axes and x.shape[axis - 1] != 1]
    if own or len(x.shape) in axes:
        raise layer.error(
            f"has shared_axes = {axes}; supported is {list(range(1, len(x.shape)))}: one slope for each channel"
        )
    return _Tensor("activation", layer, (x,), x.shape)


def _concatenate(layer: _Layer, x: _Tensor, y: _Tensor) -> _Tensor:
    axis = layer.options["axis"]
    if axis not in (-1, len(x.shape)) or x.shape[1:-1] != y.shape[1:-1]:
        raise layer.error(f"joins {list(x.shape)} and {list(y.shape)} along axis {axis}; supported are the channels")
    return _Tensor("concatenate", layer, (x, y), (*x.shape[:-1], x.shape[-1] + y.shape[-1]))


def _cropping(layer: _Layer, x: _Tensor) -> _Tensor:
    crops = layer.options["cropping"]
    left, right = crops if layer.kind == "Cropping1D" else crops[0]
    if len(x.shape) != (2 if layer.kind == "Cropping1D" else 3) or crops[1:] not in ([right], [[0, 0]]):
        raise layer.error(f"cuts {crops} of the shape {list(x.shape)}; supported are samples of time")
    time = None if x.shape[0] is None else x.shape[0] - left - right
    return _Tensor("crop", layer, (x,), (time, *x.shape[1:]))


def _reshape(layer: _Layer, x: _Tensor) -> _Tensor:
    time, *rest = x.shape
    target, *shape = layer.options["target_shape"]
    if target in (-1, time):
        if (len(shape) == 2 and shape == [1, *rest]) or (len(rest) == 2 and rest == [1, *shape]):
            return _Tensor("reshape", layer, (x,), (time, *shape))
        if (len(shape) == 2 and shape == [*rest, 1]) or (len(rest) == 2 and rest == [*shape, 1]):
            return _Tensor("fold", layer, (x,), (time, *shape))
    raise layer.error(
        f"turns {list(x.shape)} into {[target, *shape]}; supported is an axis of size 1 after time or after the"
        " channels, added or removed"
    )


_LAYERS: dict[str, Callable[..., _Tensor]] = {
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


class _Weight(NamedTuple):
    """One array of the file.

    Attributes:
        group: the outermost layer, under which the file holds it.
        name: path of its layer below that, and the variable: "kernel:0", "bias:0" or "alpha:0".
        path: of our parameter.
        axes: positions in Keras' shape of axes of size one that ours lacks.
    """

    group: str
    name: str
    path: tuple[str | int, ...]
    axes: tuple[int, ...]

    @property
    def key(self) -> str:
        """Its whole path in the file."""
        return f"{self.group}/{self.name}"

    def shape(self, variable: nnx.Variable) -> tuple[int, ...]:
        """The shape that a parameter of ours has in the file."""
        shape = list(variable.shape)
        for axis in self.axes:
            shape.insert(axis, 1)
        return tuple(shape)


class _Network(NamedTuple):
    """What the JSON says.

    Attributes:
        config: of our model.
        groups: names of the outermost layers.
        weights: all arrays, in the order of the file.
    """

    config: EncoderDecoderConfig
    groups: list[str]
    weights: list[_Weight]

    def variables(self, model: nnx.Module) -> list[tuple[_Weight, nnx.Variable]]:
        """Our parameter for each of the file's arrays."""
        nodes = dict(nnx.iter_graph(model))
        return [(weight, nodes[weight.path]) for weight in self.weights]


class _Stage(NamedTuple):
    """A convolution, its activation, and what is joined to its input."""

    convolution: _Tensor
    activation: _Tensor | None
    skip: _Tensor | None

    def error(self, problem: str) -> WeightsError:
        """The error that says what is wrong with the convolution."""
        return self.convolution.layer.error(problem)

    @property
    def function(self) -> str:
        """Our name of the activation."""
        if self.activation is None:
            return "none"
        layer = self.activation.layer
        return "prelu" if layer.kind == "PReLU" else _ACTIVATIONS[layer.options["activation"]]

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels out, kernel, stride."""
        options = self.convolution.layer.options
        return options["filters"], options["kernel_size"][0], options["strides"][0]


def _read_network(text: str, source: str, length: int | None, scales: Mapping[str, float]) -> _Network:
    """Understand a model, or say which layer is not understood.

    Args:
        text: the JSON.
        source: where it comes from, in messages.
        length: samples of the input window, where the file leaves it open.
        scales: `input_scale` and `output_scale`.

    Returns:
        Our configuration, and the arrays that its weights lie in.

    Raises:
        WeightsError: if it is not the JSON of such a model.
    """
    try:
        model = parse_json(text)
        version = model.get("keras_version", "2")
        if not version.startswith("2"):
            raise WeightsError(f"was written by Keras {version}; supported is Keras 2, which lives on as tf_keras")
        if model["class_name"] not in _MODEL_CLASSES:
            raise WeightsError(f"is of class {model['class_name']!r}; supported are functional models")
        outputs = _trace(model["config"])
        if len(outputs) != 1 or len(model["config"]["input_layers"]) != 1:
            raise WeightsError("has several inputs or outputs; supported is one of each")
        encoder, decoder, crop = _stages(outputs[0])
        sizes = _config(encoder, decoder, crop, length)
        names = _parameters(encoder, decoder)
        groups, weights = [spec["name"] for spec in model["config"]["layers"]], []
        for spec in model["config"]["layers"]:
            # Keras lists the frozen variables of a nested model after the others.
            layers = sorted(_weighted(spec, ""), key=lambda layer: not layer.options.get("trainable", True))
            weights += [w for layer in layers for w in _weights(spec["name"], layer, names)]
    except (WeightsError, Unreadable) as error:
        raise WeightsError(one_line(f"{source}: {error}", name=source)) from error
    except Exception as error:  # of whatever stands where a layer's option should
        said = one_line(repr(error), most=100)
        raise WeightsError(f"{source}: is not the JSON of a functional Keras 2 model ({said})") from error
    config = model_config({"name": "encoder_decoder", **sizes, **scales}, source)
    return _Network(config, groups, weights)  # pyright: ignore


def _stages(x: _Tensor) -> tuple[list[_Stage], list[_Stage], tuple[int, int]]:
    """Walk from the output back to the input: encoder, decoder, and what is cropped at the end."""
    left = right = 0
    while x.operation in ("crop", "reshape", "fold"):
        if x.operation == "crop":
            crops = x.layer.options["cropping"]
            left, right = (n + c for n, c in zip((left, right), crops if len(x.shape) == 2 else crops[0], strict=True))
        (x,) = x.inputs
    stages = []
    while x.operation not in ("input", "fold"):
        activation, convolution = (x, _bare(x.inputs[0])) if x.operation == "activation" else (None, x)
        if convolution.operation not in ("convolution", "transposed"):
            raise convolution.layer.error("stands where a convolution was expected")
        x, skip = _bare(convolution.inputs[0]), None
        if x.operation == "concatenate":
            x, skip = map(_bare, x.inputs)
        stages.insert(0, _Stage(convolution, activation, skip))
    while x.operation in ("reshape", "fold"):
        (x,) = x.inputs
    if x.operation != "input":
        raise x.layer.error("stands before the first convolution")
    depth = len(stages) // 2
    if [s.convolution.operation for s in stages] != ["convolution"] * depth + ["transposed"] * depth:
        found = ", ".join(f"{s.convolution.layer.path!r} ({s.convolution.layer.kind})" for s in stages)
        raise WeightsError(f"leads through {found}; supported are convolutions, then as many transposed ones")
    return stages[:depth], stages[depth:], (left, right)


def _bare(x: _Tensor) -> _Tensor:
    """The tensor before axes of size one came and went."""
    while x.operation == "reshape":
        (x,) = x.inputs
    return x


def _config(encoder: list[_Stage], decoder: list[_Stage], crop: tuple[int, int], length: int | None) -> dict[str, Any]:
    """Our configuration, but for the scales, once all layers are as regular as it can say."""
    first = encoder[0].convolution.inputs[0]
    given = first.shape[0]
    if given is None and length is None:
        raise WeightsError("the input is of any length; give `length` (--length), the samples of a window")
    if length is not None and given not in (None, length):
        raise WeightsError(f"the input has {given} samples, but `length` is {length}")
    samples = given if length is None else length
    filters, kernels, strides = zip(*(stage.size for stage in encoder), strict=True)
    targets = decoder[-1].size[0]
    mirrored = list(zip((*filters[-2::-1], targets), kernels[::-1], strides[::-1], strict=True))
    for stage, size in zip(decoder, mirrored, strict=True):
        if stage.size != size:
            raise stage.error(
                f"has filters, kernel, stride {stage.size}; supported is the mirror image of the encoder, {size}"
            )
    stages = [*encoder, *decoder]
    return {
        "features": first.shape[-1],
        "outputs": targets,
        "length": samples,
        "horizons": samples - sum(crop),  # pyright: ignore
        "layers": len(encoder),
        "filters": _one_or_all(filters),
        "kernel": _one_or_all(kernels),
        "stride": _one_or_all(strides),
        "encoder_activation": _common(encoder, [s.function for s in encoder], "activation"),
        "decoder_activation": _common(decoder[:-1], [s.function for s in decoder[:-1]], "activation") or "none",
        "output_activation": decoder[-1].function,
        "skip": _skip(encoder, decoder),
        "bias": _common(stages, [s.convolution.layer.options["use_bias"] for s in stages], "bias"),
        "crop": crop,
    }


def _one_or_all(values: tuple[int, ...]) -> int | tuple[int, ...]:
    return values[0] if len(set(values)) == 1 else values


def _common(stages: list[_Stage], values: list[Any], what: str) -> Any:
    """The value that all stages have; None without stages."""
    for stage, value in zip(stages, values, strict=True):
        if value != values[0]:
            raise stage.error(f"has the {what} {value!r}, others {values[0]!r}; supported is one")
    return values[0] if values else None


def _skip(encoder: list[_Stage], decoder: list[_Stage]) -> Any:
    """Which of the encoder's tensors join the decoder."""
    for k, stage in enumerate([*encoder, *decoder]):
        if (stage.skip is None) != (k <= len(encoder)):
            raise stage.error(
                "has a skip connection, or none; supported is one into every transposed convolution but the first"
            )
    found = []
    for k, stage in enumerate(decoder[1:], 1):
        mate = encoder[-1 - k]
        # Without an activation the two are the same.
        if stage.skip is mate.convolution:
            found.append("before_activation")
        elif stage.skip is mate.activation:
            found.append("after_activation")
        else:
            raise stage.error(
                "has a skip connection from another layer, or in front of the decoder's channels; supported is one from"
                f" {mate.convolution.layer.path!r}, before or after its activation"
            )
    return _common(decoder[1:], found, "skip") or "before_activation"


def _parameters(encoder: list[_Stage], decoder: list[_Stage]) -> dict[str, tuple[tuple[str | int, ...], int]]:
    """Of each layer with weights, by path: our module, and how many axes its tensors have."""
    names = {}
    for part, stages in (("encoder", encoder), ("decoder", decoder)):
        for k, stage in enumerate(stages):
            slopes = ("output_prelu",) if stage is decoder[-1] else (f"{part}_prelu", k)
            for owner, tensor in (((part, k), stage.convolution), (slopes, stage.activation)):
                if tensor is not None and (tensor is stage.convolution or tensor.layer.kind == "PReLU"):
                    names[tensor.layer.path] = owner, len(tensor.shape)
    return names


def _weighted(spec: Mapping[str, Any], prefix: str) -> Iterator[_Layer]:
    """The layers with weights, of a layer or nested model."""
    path = prefix + spec["name"]
    if spec["class_name"] in _MODEL_CLASSES:
        for inner in spec["config"]["layers"]:
            yield from _weighted(inner, f"{path}/")
    elif spec["class_name"] == "PReLU" or spec["class_name"].startswith("Conv"):
        yield _Layer(path, spec["class_name"], spec["config"])


def _weights(group: str, layer: _Layer, names: dict[str, tuple[tuple[str | int, ...], int]]) -> Iterator[_Weight]:
    """The arrays of a layer."""
    if layer.path not in names:
        raise layer.error("does not lead to the output")
    owner, axes = names[layer.path]
    below = layer.path.removeprefix(f"{group}/")
    if layer.kind == "PReLU":
        yield _Weight(group, f"{below}/alpha:0", (*owner, "weight"), tuple(range(axes - 1)))
        return
    yield _Weight(group, f"{below}/kernel:0", (*owner, "kernel"), (1,) if axes == 3 else ())
    if layer.options["use_bias"]:
        yield _Weight(group, f"{below}/bias:0", (*owner, "bias"), ())


def _network_json(config: EncoderDecoderConfig, version: str) -> str:
    """Write the architecture as Keras does: a nested model of 1-d layers.

    Args:
        config: of our model; its scales are not part of the network.
        version: of Keras, to be named in the file.

    Returns:
        The JSON.
    """
    layers: list[dict[str, Any]] = []

    def add(kind: str, name: str, *inputs: str, **options: Any) -> str:
        nodes = [[[source, 0, 0, {}] for source in inputs]] if inputs else []
        layers.append({"class_name": kind, "config": {"name": name} | options, "name": name, "inbound_nodes": nodes})
        return name

    def convolve(kind: str, name: str, x: str, function: str, sizes: tuple[int, int, int]) -> tuple[str, str]:
        filters, kernel, stride = sizes
        options = {"padding": "same", "use_bias": config.bias, "activation": "linear"}
        x = add(kind, name, x, filters=filters, kernel_size=[kernel], strides=[stride], **options)
        if function == "none":
            return x, x
        if function == "prelu":
            return x, add("PReLU", f"{name}_prelu", x, shared_axes=[1])
        keras = next(theirs for theirs, ours in _ACTIVATIONS.items() if ours == function)
        return x, add("Activation", f"{name}_{function}", x, activation=keras)

    shape = {"batch_input_shape": [None, config.length, config.features], "dtype": "float32"}
    x = start = add("InputLayer", "window", **shape)
    skips = []
    for k, size in enumerate(config.sizes):
        convolved, x = convolve("Conv1D", f"encoder_{k}", x, config.encoder_activation, size)
        skips.append(convolved if config.skip == "before_activation" else x)
    for k, size in enumerate(reversed(config.sizes)):
        if k:
            x = add("Concatenate", f"join_{k}", x, skips[-1 - k], axis=-1)
        last = k == config.layers - 1
        function = config.output_activation if last else config.decoder_activation
        filters = config.targets if last else config.sizes[-2 - k].filters
        _, x = convolve("Conv1DTranspose", f"decoder_{k}", x, function, (filters, size.kernel, size.stride))
    x = add("Cropping1D", "crop", x, cropping=list(config.crop))
    inner = {"name": "encoder_decoder", "layers": list(layers)}
    inner |= {"input_layers": [[start, 0, 0]], "output_layers": [[x, 0, 0]]}
    layers.clear()
    start = add("InputLayer", "inputs", **shape)
    x = add("Functional", "encoder_decoder", start)
    layers[-1]["config"] = inner
    # A model's first node is its own making, its second this use.
    outer = {"name": "surrogate", "layers": layers, "input_layers": [[start, 0, 0]], "output_layers": [[x, 1, 0]]}
    model = {"class_name": "Functional", "config": outer, "keras_version": version, "backend": "tensorflow"}
    return json.dumps(model)


def load_keras(
    json_path: str | Path,
    weights_path: str | Path | None = None,
    *,
    input_scale: float = 1.0,
    output_scale: float = 1.0,
    length: int | None = None,
) -> EncoderDecoder:
    """Build an encoder–decoder from a Keras 2 model of the CoNNear family.

    Args:
        json_path: the architecture; or, without `weights_path`, the HDF5 file of a whole model.
        weights_path: the HDF5 file with the weights, or with the whole model.
        input_scale: factor on the inputs; not part of the file.
        output_scale: the network's output is this many times the prediction; not part of the file.
        length: samples of the input window, where the file leaves it open.

    Returns:
        The model.

    Raises:
        WeightsError: naming the layer that cannot be represented, or listing all arrays that are missing, unknown or of
            another shape.
    """
    path, h5py = Path(weights_path or json_path), _h5py()
    with reading(path, "an HDF5 file"):
        rehearse("jneuro.core.hdf5:walk", path)
        with h5py.File(path, "r") as file:
            text = _read_text(json_path) if weights_path else _text(file.attrs.get("model_config"))
            if text is None:
                raise WeightsError(f"{path}: holds weights alone; name the JSON file of the architecture too")
            scales = {"input_scale": input_scale, "output_scale": output_scale}
            network = _read_network(text, str(json_path), length, scales)
            found = _arrays(file, path, network)
    check_sizes(network.config.model_dump(), found, str(json_path))
    # Shapes alone: every parameter comes from the file.
    model: Any = nnx.eval_shape(lambda: new_model(network.config))
    variables = network.variables(model)
    shapes = {weight.key: weight.shape(variable) for weight, variable in variables}
    check_tensors(shapes, found, f"the layers of {json_path}")
    for weight, variable in variables:
        variable.set_value(jnp.array(found[weight.key].reshape(variable.shape)))
    return model


def save_keras(
    model: EncoderDecoder,
    json_path: str | Path,
    weights_path: str | Path,
    *,
    like: str | Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write a model as Keras 2 does; its scales are not part of the files.

    Args:
        model: the model.
        json_path: where the architecture goes.
        weights_path: where the weights go.
        like: the JSON file of an architecture to keep, such as one of 2-d layers; 1-d layers without.
        overwrite: replace files that are there.

    Raises:
        WeightsError: if a file is there already, or the architecture to keep is another than the model's.
    """
    config = model.config
    text = _read_text(like) if like else _network_json(config, _VERSION)
    network = _read_network(text, str(like or json_path), config.length, {})
    theirs, ours = _architecture(network.config), _architecture(config)
    if theirs != ours:
        said = [f"{name} is {theirs[name]}, the model's {ours[name]}" for name in ours if theirs[name] != ours[name]]
        raise WeightsError(f"{like}: is another architecture: {'; '.join(said)}")
    arrays = {weight: np.reshape(v[...], weight.shape(v)) for weight, v in network.variables(model)}
    new_json = written_whole(Path(json_path), overwrite=overwrite)
    new_weights = written_whole(Path(weights_path), overwrite=overwrite)
    with new_json as to_json, new_weights as to_weights, _h5py().File(to_weights, "w") as file:
        to_json.write_text(text, encoding="utf-8")
        file.attrs["layer_names"] = _bytes(network.groups)
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = _VERSION.encode()
        for name in network.groups:
            group = file.create_group(name)
            own = [weight for weight in arrays if weight.group == name]
            group.attrs["weight_names"] = _bytes([weight.name for weight in own])
            for weight in own:
                group.create_dataset(weight.name, data=arrays[weight])


def _architecture(config: EncoderDecoderConfig) -> dict[str, Any]:
    """What the JSON says of a configuration."""
    names = ("features", "targets", "encoder_activation", "output_activation", "bias", "crop", "sizes")
    if config.layers > 1:
        names += ("decoder_activation",)
    if config.layers > 1 and config.encoder_activation != "none":  # else before and after are the same
        names += ("skip",)
    return {name: getattr(config, name) for name in names}


def _arrays(file: Any, path: Path, network: _Network) -> dict[str, np.ndarray]:
    """The file's arrays, in its order, under the names that the architecture gives them."""
    if "model_weights" in file and "layer_names" not in file.attrs:
        file = file["model_weights"]
    backend = _text(file.attrs.get("backend", "tensorflow"))
    if backend != "tensorflow":
        raise WeightsError(f"{path}: was written with the backend {backend!r}; supported is 'tensorflow'")
    groups = [name for name in _names(file, "layer_names", path) if name in file]
    named = [[f"{name}/{weight}" for weight in _names(file[name], "weight_names", path)] for name in groups]
    named = [names for names in named if names]
    expected = [
        [weight.key for weight in weights] for _, weights in groupby(network.weights, lambda weight: weight.group)
    ]
    names = {name: name for group in named for name in group}
    if [*map(len, named)] == [*map(len, expected)]:
        # By position, as Keras does it: the file's names may be those of another session.
        pairs = zip(chain(*named), chain(*expected), strict=True)
        names |= {name: key for name, key in pairs if name.rpartition("/")[2] == key.rpartition("/")[2]}
    return {key: np.asarray(file[name]) for name, key in names.items() if name in file}


def _names(group: Any, attribute: str, path: Path) -> list[str]:
    if attribute not in group.attrs:
        raise WeightsError(f"{path}: {group.name} has no attribute {attribute!r}, by which Keras 2 orders weights")
    return [_text(name) for name in group.attrs[attribute]]


def _text(value: Any) -> Any:
    """Text that older versions of Keras and h5py wrote as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _bytes(names: Any) -> np.ndarray:
    return np.array([name.encode() for name in names], dtype=None if names else "S1")


def _read_text(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: cannot be read as the JSON of an architecture ({error})") from error


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise WeightsError("reading and writing Keras files needs h5py: pip install 'jneuro[keras]'") from error
    return h5py
