"""Encoder–decoders from Keras 2 and back: architecture in JSON, weights in HDF5, bit by bit.

Kernels lie in both as `[kernel, in, out]`, transposed ones as `[kernel, out, in]`; where Keras computes in two
dimensions, with kernels over time only, its arrays have further axes of size one. Keras finds weights by position: in
the order of the attributes `layer_names` and `weight_names`, which is not HDF5's own, alphabetical one.

A network that treats every one of several channels alike (an axis "width" that no kernel spans) becomes a model of one
channel: put the channels on the batch axis.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.interop.keras_network import Network, Weight, network_json, read_network
from jneuro.interop.tensors import WeightsError, check_tensors
from jneuro.interop.weights_folder import new_model, written_whole
from jneuro.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig

__all__ = ["load_keras", "save_keras"]

# The first that knows Conv1DTranspose.
_VERSION = "2.4.0"


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
    path = Path(weights_path or json_path)
    with _reading(path) as file:
        text = _read_text(json_path) if weights_path else _text(file.attrs.get("model_config"))
        if text is None:
            raise WeightsError(f"{path}: holds weights alone; name the JSON file of the architecture too")
        network = read_network(text, str(json_path), length=length, input_scale=input_scale, output_scale=output_scale)
        found = _arrays(file, path, network)
    # Shapes alone: every parameter comes from the file.
    model = nnx.eval_shape(lambda: new_model(network.config))
    variables = _variables(model, network)
    shapes = {_key(weight): _shape(weight, variable) for weight, variable in variables}
    check_tensors(shapes, found, f"the layers of {json_path}")
    for weight, variable in variables:
        variable.set_value(jnp.array(found[_key(weight)].reshape(variable.shape)))
    return model  # pyright: ignore


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
    text = _read_text(like) if like else network_json(config, _VERSION)
    network = read_network(text, str(like or json_path), length=config.length)
    theirs, ours = _architecture(network.config), _architecture(config)
    if theirs != ours:
        said = [f"{name} is {theirs[name]}, the model's {ours[name]}" for name in ours if theirs[name] != ours[name]]
        raise WeightsError(f"{like}: is another architecture: {'; '.join(said)}")
    arrays = {w: np.reshape(v[...], _shape(w, v)) for w, v in _variables(model, network)}
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


def _variables(model: Any, network: Network) -> list[tuple[Weight, nnx.Variable]]:
    """Our parameter for each of the file's arrays."""
    nodes = dict(nnx.iter_graph(model))
    return [(weight, nodes[weight.path]) for weight in network.weights]


def _shape(weight: Weight, variable: nnx.Variable) -> tuple[int, ...]:
    """The shape that a parameter has in the file."""
    shape = list(variable.shape)
    for axis in weight.axes:
        shape.insert(axis, 1)
    return tuple(shape)


def _key(weight: Weight) -> str:
    return f"{weight.group}/{weight.name}"


def _arrays(file: Any, path: Path, network: Network) -> dict[str, np.ndarray]:
    """The file's arrays, in its order, under the names that the architecture gives them."""
    if "model_weights" in file and "layer_names" not in file.attrs:
        file = file["model_weights"]
    backend = _text(file.attrs.get("backend", "tensorflow"))
    if backend != "tensorflow":
        raise WeightsError(f"{path}: was written with the backend {backend!r}; supported is 'tensorflow'")
    groups = [name for name in _names(file, "layer_names", path) if name in file]
    named = [[f"{name}/{weight}" for weight in _names(file[name], "weight_names", path)] for name in groups]
    named = [names for names in named if names]
    expected = [[_key(w) for w in weights] for _, weights in groupby(network.weights, lambda weight: weight.group)]
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


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    try:
        file = _h5py().File(path, "r")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read as an HDF5 file ({error})") from error
    with file:
        yield file


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise WeightsError("reading and writing Keras files needs h5py: pip install 'jneuro[keras]'") from error
    return h5py
