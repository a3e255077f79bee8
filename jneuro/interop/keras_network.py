"""A Keras 2 model of the CoNNear family as an `EncoderDecoderConfig`, and back to Keras' JSON."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jneuro.interop.keras_graph import ACTIVATIONS, MODEL_CLASSES, Layer, Tensor, trace
from jneuro.interop.tensors import WeightsError
from jneuro.interop.weights_folder import model_config
from jneuro.models.encoder_decoder import EncoderDecoderConfig

__all__ = ["Network", "Weight", "network_json", "read_network"]


class Weight(NamedTuple):
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


class Network(NamedTuple):
    """What the JSON says.

    Attributes:
        config: of our model.
        groups: names of the outermost layers.
        weights: all arrays, in the order of the file.
    """

    config: EncoderDecoderConfig
    groups: tuple[str, ...]
    weights: tuple[Weight, ...]


class _Stage(NamedTuple):
    """A convolution, its activation, and what is joined to its input."""

    convolution: Tensor
    activation: Tensor | None
    skip: Tensor | None

    @property
    def function(self) -> str:
        """Our name of the activation."""
        if self.activation is None:
            return "none"
        layer = self.activation.layer
        return "prelu" if layer.kind == "PReLU" else ACTIVATIONS[layer.options["activation"]]

    @property
    def size(self) -> tuple[int, int, int]:
        """Channels out, kernel, stride."""
        options = self.convolution.layer.options
        return options["filters"], options["kernel_size"][0], options["strides"][0]


def read_network(
    text: str, source: str, *, length: int | None = None, input_scale: float = 1.0, output_scale: float = 1.0
) -> Network:
    """Understand a model, or say which layer is not understood.

    Args:
        text: the JSON.
        source: where it comes from, in messages.
        length: samples of the input window, where the file leaves it open.
        input_scale: factor on the inputs.
        output_scale: the network's output is this many times the prediction.

    Returns:
        Our configuration, and the arrays that its weights lie in.

    Raises:
        WeightsError: if it is not the JSON of such a model.
    """
    try:
        model = json.loads(text)
        version = model.get("keras_version", "2")
        if not version.startswith("2"):
            raise WeightsError(f"was written by Keras {version}; supported is Keras 2, which lives on as tf_keras")
        if model["class_name"] not in MODEL_CLASSES:
            raise WeightsError(f"is of class {model['class_name']!r}; supported are functional models")
        outputs = trace(model["config"])
        if len(outputs) != 1 or len(model["config"]["input_layers"]) != 1:
            raise WeightsError("has several inputs or outputs; supported is one of each")
        encoder, decoder, crop = _stages(outputs[0])
        sizes = _config(encoder, decoder, crop, length)
        names = _parameters(encoder, decoder)
        groups, weights = [], []
        for spec in model["config"]["layers"]:
            groups.append(spec["name"])
            # Keras lists the frozen variables of a nested model after the others.
            layers = sorted(_weighted(spec, ""), key=lambda layer: not layer.options.get("trainable", True))
            weights += [w for layer in layers for w in _weights(spec["name"], layer, names)]
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error
    except json.JSONDecodeError as error:
        raise WeightsError(f"{source}: is not JSON ({error})") from error
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise WeightsError(f"{source}: is not the JSON of a functional Keras 2 model ({error!r})") from error
    scales = {"input_scale": input_scale, "output_scale": output_scale}
    config = model_config({"name": "encoder_decoder"} | sizes | scales, source)
    return Network(config, tuple(groups), tuple(weights))  # pyright: ignore


def _stages(x: Tensor) -> tuple[list[_Stage], list[_Stage], tuple[int, int]]:
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


def _bare(x: Tensor) -> Tensor:
    """The tensor before axes of size one came and went."""
    while x.operation == "reshape":
        (x,) = x.inputs
    return x


def _config(encoder: list[_Stage], decoder: list[_Stage], crop: tuple[int, int], length: int | None) -> dict[str, Any]:
    """Our configuration, but for the scales, once all layers are as regular as it can say."""
    first = encoder[0].convolution.inputs[0]
    given = first.shape[0]
    if given is None and length is None:
        raise WeightsError("the input is of any length; give `length`, the samples of a window")
    if length is not None and given not in (None, length):
        raise WeightsError(f"the input has {given} samples, but `length` is {length}")
    samples = given if length is None else length
    filters, kernels, strides = zip(*(stage.size for stage in encoder), strict=True)
    targets = decoder[-1].size[0]
    mirrored = list(zip((*filters[-2::-1], targets), kernels[::-1], strides[::-1], strict=True))
    for stage, size in zip(decoder, mirrored, strict=True):
        if stage.size != size:
            raise stage.convolution.layer.error(
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
            raise stage.convolution.layer.error(f"has the {what} {value!r}, others {values[0]!r}; supported is one")
    return values[0] if values else None


def _skip(encoder: list[_Stage], decoder: list[_Stage]) -> Any:
    """Which of the encoder's tensors join the decoder."""
    for k, stage in enumerate([*encoder, *decoder]):
        if (stage.skip is None) != (k <= len(encoder)):
            raise stage.convolution.layer.error(
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
            raise stage.convolution.layer.error(
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


def _weighted(spec: Mapping[str, Any], prefix: str) -> Iterator[Layer]:
    """The layers with weights, of a layer or nested model."""
    path = prefix + spec["name"]
    if spec["class_name"] in MODEL_CLASSES:
        for inner in spec["config"]["layers"]:
            yield from _weighted(inner, f"{path}/")
    elif spec["class_name"] == "PReLU" or spec["class_name"].startswith("Conv"):
        yield Layer(path, spec["class_name"], spec["config"])


def _weights(group: str, layer: Layer, names: dict[str, tuple[tuple[str | int, ...], int]]) -> Iterator[Weight]:
    """The arrays of a layer."""
    if layer.path not in names:
        raise layer.error("does not lead to the output")
    owner, axes = names[layer.path]
    below = layer.path.removeprefix(f"{group}/")
    if layer.kind == "PReLU":
        yield Weight(group, f"{below}/alpha:0", (*owner, "weight"), tuple(range(axes - 1)))
        return
    yield Weight(group, f"{below}/kernel:0", (*owner, "kernel"), (1,) if axes == 3 else ())
    if layer.options["use_bias"]:
        yield Weight(group, f"{below}/bias:0", (*owner, "bias"), ())


def network_json(config: EncoderDecoderConfig, version: str) -> str:
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
        keras = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == function)
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
