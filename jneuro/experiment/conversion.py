"""Convert a model's weights from one kind of file to another.

.pt, .pth, .ckpt    a PyTorch state_dict, alone or within a checkpoint; written as a state_dict alone
.json               a Keras 2 architecture, its weights beside it in .h5
.h5                 a whole Keras 2 model, only to be read
a folder            `models/NAME` of a run, only to be read; or a weights folder, which holds its own configuration
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from flax import nnx

from jneuro.core.config import ConfigError, Loader, find_config
from jneuro.core.devices import double_precision
from jneuro.core.names import unknown_name
from jneuro.experiment.plan import load_plan, reopen
from jneuro.experiment.training import load_model
from jneuro.interop.keras_weights import load_keras, save_keras
from jneuro.interop.pytorch_forecasting import from_pytorch_forecasting, to_pytorch_forecasting
from jneuro.interop.tensors import check_sizes
from jneuro.interop.torch_weights import from_torch, load_state_dict, save_state_dict, to_torch
from jneuro.interop.weights_folder import load_weights, model_config, new_model, save_weights, written_whole
from jneuro.models import EncoderDecoderConfig, ModelConfig

__all__ = ["convert"]

_TORCH = (".pt", ".pth", ".ckpt")


def convert(
    source: Path,
    target: Path,
    *,
    model: str | None = None,
    columns: Sequence[str] = (),
    length: int | None = None,
    overwrite: bool = False,
) -> nnx.Module:
    """Read a model from one place and write it to another, bit by bit.

    Args:
        source: what to read.
        target: what to write; its ending says which kind.
        model: the configuration of the model, a YAML or JSON file, or `EXPERIMENT:NAME`. A state_dict needs it; Keras
            files take from it the scales that they lack; all else knows its own.
        columns: pytorch-forecasting's names of the columns, for a state_dict of that package's.
        length: samples of the window, for a Keras file that leaves them open, where `model` does not say it.
        overwrite: whether to replace the target.

    Returns:
        The model.

    Raises:
        WeightsError: if the weights do not fit the model, or a file cannot be read or written.
        ConfigError: if the configuration is missing or wrong.
    """
    config = None if model is None else _configuration(model)
    if length is not None and (config is not None or source.suffix not in (".json", ".h5")):
        raise ConfigError("--length is for Keras files without --model, which says the length; leave it out")
    with double_precision():  # or double precision would be lost on the way
        if source.suffix in _TORCH:
            found = _read_torch(source, config, columns)
        elif source.suffix in (".json", ".h5"):
            found = _read_keras(source, config, length)
        elif config is not None:
            raise ConfigError(f"--model is for .pt and Keras files; {source} has its own configuration, leave it out")
        else:
            found = _read_folder(source)
        _write(found, target, columns, overwrite)
    return found


def _read_torch(source: Path, config: ModelConfig | None, columns: Sequence[str]) -> nnx.Module:
    weights = load_state_dict(source)
    if config is None:
        raise ConfigError(
            f"{source}: a state_dict does not say which model it is of; give --model FILE, the model's configuration"
        )
    check_sizes(config.model_dump(), weights, "--model")
    model: nnx.Module = new_model(config)  # pyright: ignore
    return from_pytorch_forecasting(_tft(model), weights, columns) if columns else from_torch(model, weights)


def _tft(model: Any) -> Any:
    if getattr(model.config, "compat", None):
        return model
    raise ConfigError("--columns are pytorch-forecasting's; the model must be a tft with compat: pytorch_forecasting")


def _read_keras(source: Path, config: Any, length: int | None) -> nnx.Module:
    files = (source, source.with_suffix(".h5")) if source.suffix == ".json" else (source,)
    if config is None:
        return load_keras(*files, length=length)
    if getattr(config, "name", "") != "encoder_decoder":
        raise ConfigError(f"{source}: Keras files hold models called encoder_decoder, not {type(config).__name__}")
    known = {"input_scale": config.input_scale, "output_scale": config.output_scale, "length": config.length}
    loaded = load_keras(*files, **known)
    theirs, ours = _architecture(loaded.config), _architecture(config)
    apart = [f"{k} is {theirs[k]}, not {ours[k]}" for k in ours if theirs[k] != ours[k]]
    if apart:
        raise ConfigError(f"{source}: does not fit --model: {'; '.join(apart)}")
    return from_torch(new_model(config), to_torch(loaded))  # pyright: ignore


def _architecture(config: EncoderDecoderConfig) -> dict[str, Any]:
    """What the weights depend on."""
    values = config.model_dump(exclude={"initialiser", "formulation", "precision", "filters", "kernel", "stride"})
    return values | {"outputs": config.targets, "sizes": config.sizes}


def _read_folder(source: Path) -> nnx.Module:
    run = source.parent.parent
    if source.parent.name != "models" or not (run / "config.yaml").exists():
        return load_weights(source)  # pyright: ignore
    plan, folder = reopen(run)
    known = {training.folder: training for training in plan.trainings}
    if source.name not in known:
        raise ConfigError(f"{source}: {unknown_name(source.name, known, 'model')}")
    folder.require(known[source.name].stage, f"{source.name} is not trained")
    return load_model(known[source.name], folder)  # pyright: ignore


def _write(model: Any, target: Path, columns: Sequence[str], overwrite: bool) -> None:
    if target.suffix in _TORCH:
        weights = to_pytorch_forecasting(_tft(model), columns) if columns else to_torch(model)
        with written_whole(target, overwrite=overwrite) as file:
            save_state_dict(weights, file)
    elif target.suffix in (".json", ".h5"):
        if getattr(model.config, "name", "") != "encoder_decoder":
            raise ConfigError(f"{target}: only encoder_decoder models go into Keras files; write a .pt file instead")
        save_keras(model, target.with_suffix(".json"), target.with_suffix(".h5"), overwrite=overwrite)
    else:
        save_weights(model, target, overwrite=overwrite)


def _configuration(text: str) -> ModelConfig:
    """The model that `--model` names."""
    name = ""
    if not Path(text).exists() and ":" in text:
        text, _, name = text.rpartition(":")
    path = find_config(text)
    if name:
        models = load_plan(path).config.models
        if name not in models:
            raise ConfigError(f"{path}: {unknown_name(name, models, 'model')}")
        return models[name].model
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    if isinstance(values, dict) and isinstance(values.get("models"), dict):
        raise ConfigError(
            f"{path}: is an experiment; name one of its models, such as {path}:{next(iter(values['models']))}"
        )
    return model_config(values, str(path))
