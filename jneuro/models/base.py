"""What every model takes and returns, and how one is built: the sizes come from the data, the weights from a key."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.random import require_key, stream
from jneuro.core.registry import Block, accepted
from jneuro.core.types import Array, Float, Key
from jneuro.datasets.windows import Batch, Windows
from jneuro.models.kinds import MODELS

__all__ = [
    "Model",
    "ModelConfig",
    "Prediction",
    "Sizes",
    "build_model",
    "check_inputs",
    "check_prediction",
    "check_shapes",
    "forward",
    "initialised",
    "model_rngs",
    "name_of",
    "sized",
    "takes_train",
]


class Prediction(NamedTuple):
    """What a model says of the future.

    Attributes:
        mean: expected value, in the units of the batch it was given.
        quantiles: quantiles of the predictive distribution, where the model has them.
        diagnostics: further arrays by name, such as attention weights.
        levels: of the quantiles, between 0 and 1.
    """

    mean: Float[Array, "batch horizon target"]
    quantiles: Float[Array, "batch horizon target quantile"] | None = None
    diagnostics: Mapping[str, Array] = {}
    levels: Float[Array, " quantile"] | None = None


class ModelConfig(Config):
    """The sizes that a model takes from its data, and its precision; an experiment fills in the first three.

    A typed configuration of a model has a method `build(*, rngs)` that returns the model, a `flax.nnx.Module`.

    Attributes:
        features: variables observed at each time, such as neurons.
        length: time steps in the input window.
        horizons: times predicted at once.
        outputs: variables predicted at each time; null predicts all that are observed.
        precision: of the computation; parameters, normalisations and losses stay in single precision.
    """

    features: int = Field(default=100, ge=1)
    length: int = Field(default=150, ge=1)
    horizons: int = Field(default=1, ge=1)
    outputs: int | None = Field(default=None, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"

    @property
    def targets(self) -> int:
        """Variables predicted at each time."""
        return self.outputs or self.features


class Model(Protocol):
    """The one call signature of our models; `forward` calls those that take the batch alone, too.

    A model may also have a method `initialise(windows)`, which sets what it should start from, such as the mean of the
    training targets; it is called once, before the training.
    """

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict the batch's targets from its inputs."""
        ...


def forward(model: Any, batch: Batch, *, train: bool = False) -> Prediction:
    """Call a model, whichever of the accepted signatures it has.

    Args:
        model: called as `model(batch, train=train)`; a `flax.nnx.Module` without the argument `train` is put into
            Flax's modes by `model.train()` and `model.eval()` instead, and called as `model(batch)`.
        batch: the windows.
        train: whether dropout and batch statistics act as in training.

    Returns:
        The prediction; an array counts as its mean.

    Raises:
        ValueError: if the model returns something else.
    """
    if takes_train(model):
        said = model(batch, train=train)
    else:
        if isinstance(model, nnx.Module):
            # To predict, in a copy: the caller's model stays in its mode, and may belong to an outer trace.
            model = model if train else nnx.clone(model)
            model.train() if train else model.eval()
        said = model(batch)
    if isinstance(said, Prediction):
        return said
    if not isinstance(said, jax.Array):
        raise ValueError(
            f"{name_of(model)} returned {type(said).__name__}; a model returns an array [batch, horizon, target], or a "
            "jneuro.models.base.Prediction"
        )
    return Prediction(said)


def takes_train(model: Callable) -> bool:
    """Whether a model is called with `train=`."""
    parameters = inspect.signature(model).parameters.values()
    return any(p.name == "train" or p.kind is p.VAR_KEYWORD for p in parameters)


def name_of(model: Any) -> str:
    """What a model is called in messages."""
    return getattr(model, "__name__", type(model).__name__)


def check_prediction(prediction: Prediction, batch: Batch, model: Any) -> Prediction:
    """Check, while tracing, that a prediction has the shape of the targets: another one might broadcast silently.

    Args:
        prediction: what the model said.
        batch: what it was given.
        model: named in the message.

    Returns:
        The prediction.

    Raises:
        ValueError: if shape or dtype of the mean or the quantiles are others, with both.
    """
    wanted, mean, quantiles = batch.targets.shape, prediction.mean, prediction.quantiles
    named = f"[batch={wanted[0]}, horizon={wanted[1]}, target={wanted[2]}]"
    if mean.shape != wanted:
        raise ValueError(f"{name_of(model)} predicts an array of shape {list(mean.shape)}; the windows need {named}")
    if not jnp.issubdtype(mean.dtype, jnp.floating):
        raise ValueError(f"{name_of(model)} predicts {mean.dtype}; a prediction must be of floating-point numbers")
    levels: Any = prediction.levels
    if quantiles is not None and (quantiles.shape[:-1] != wanted or jnp.shape(levels) != quantiles.shape[-1:]):
        raise ValueError(
            f"{name_of(model)} predicts quantiles of shape {list(quantiles.shape)} for levels of shape "
            f"{list(jnp.shape(levels))}; the windows need {named[:-1]}, quantile] and as many levels"
        )
    return prediction


def check_inputs(config: ModelConfig, inputs: Float[Array, "batch time feature"]) -> None:
    """Check, while tracing, that the inputs have the sizes a model was built for.

    Args:
        config: the model's.
        inputs: the batch's.

    Raises:
        ValueError: if the shape is not `[batch, length, features]`.
    """
    if inputs.ndim != 3 or inputs.shape[1:] != (config.length, config.features):
        raise ValueError(
            f"{type(config).__name__} expects inputs [batch, length={config.length}, features={config.features}], got"
            f" shape {inputs.shape}; build the model with the `length` and `features` of the windows"
        )


class Sizes(NamedTuple):
    """What a model takes from its data.

    Attributes:
        features: variables observed at each time.
        length: time steps in the input window.
        horizons: times predicted at once.
        outputs: variables predicted at each time; None if they are those that are observed.
        known: variables that are known ahead.
    """

    features: int
    length: int
    horizons: int
    outputs: int | None = None
    known: int = 0

    @classmethod
    def of(cls, windows: Windows) -> "Sizes":
        """The sizes that windows give."""
        outputs = None if windows.input_columns == windows.target_columns else windows.outputs
        known = len(windows.known_columns)
        return cls(windows.features, windows.length, len(windows.horizons), outputs, known)

    @property
    def targets(self) -> int:
        """Variables predicted at each time."""
        return self.outputs or self.features

    def batch(self, size: int, dtype: Any = jnp.float32) -> Batch:
        """The shapes of a batch of so many windows."""
        shape: Any = jax.ShapeDtypeStruct
        future = shape((size, self.horizons, self.known), dtype) if self.known else None
        inputs = shape((size, self.length, self.features), dtype)
        return Batch(inputs, shape((size, self.horizons, self.targets), dtype), future)


def sized(model: Any, sizes: Sizes) -> Any:
    """Tell a model's configuration the sizes of its data.

    Args:
        model: a typed configuration or a `Block`, as `MODELS.block` returns them; or what that takes.
        sizes: of the data.

    Returns:
        The same with the sizes filled in, where it has such keys.

    Raises:
        ValueError: if it says another size than the data give.
    """
    model = MODELS.block(model)
    values: dict[str, Any] = {key: getattr(sizes, key) for key in ("features", "length", "horizons")}
    if isinstance(model, Block):
        values["outputs"], known, given = sizes.targets, accepted(model.target), model.arguments
    else:
        fields = type(model).model_fields
        if sizes.outputs is not None or ("outputs" in fields and fields["outputs"].default is not None):
            values["outputs"] = sizes.targets
        known, given = fields, {key: getattr(model, key) for key in model.model_fields_set}
    values = {key: value for key, value in values.items() if key in known}
    for key, value in values.items():
        if key in given and given[key] != value:
            raise ValueError(f"{key} = {given[key]}, but the data give {value}; leave it out")
    if isinstance(model, Block):
        return model.model_copy(update=values)
    return type(model).model_validate(model.model_dump() | values)


def build_model(model: Any, sizes: Sizes | None = None, *, rngs: nnx.Rngs) -> Any:
    """Build a model.

    Args:
        model: a typed configuration; a name of `MODELS` or `module:name`, alone or with arguments; a class of
            `flax.nnx.Module`, or a function that returns one. Of the sizes and `rngs`, what a constructor asks for by
            name is passed.
        sizes: of the data; None if the configuration says them.
        rngs: draws the weights (`params`) and seeds the dropout streams (`dropout`).

    Returns:
        The model, a `flax.nnx.Module`.

    Raises:
        ValueError: if it is no model, arguments are unknown or missing, or what was built is no `flax.nnx.Module`.

    Examples:
        >>> from jneuro.models.base import Sizes, build_model
        >>> sizes = Sizes(features=3, length=12, horizons=2)
        >>> type(build_model({"name": "compact", "lags": 4}, sizes, rngs=nnx.Rngs(0))).__name__
        'CompactForecaster'
    """
    model = MODELS.block(model) if sizes is None else sized(model, sizes)
    built = model.build(rngs=rngs)
    if not isinstance(built, nnx.Module):
        raise ValueError(f"{model.name} made {type(built).__name__}, which is not a flax.nnx.Module")
    return built


def model_rngs(key: Key[Array, ""]) -> nnx.Rngs:
    """The random streams that a model is built with.

    Args:
        key: from which all are derived: `params`, `dropout`, and one for every other name.
    """
    key = require_key(key)
    return nnx.Rngs(stream(key, "default"), params=stream(key, "params"), dropout=stream(key, "dropout"))


def initialised(model: Any, windows: Windows) -> Any:
    """Let a model that has a method `initialise` set what it starts from.

    Args:
        model: the model; its parameters are changed.
        windows: those of the training.

    Returns:
        The model.
    """
    if callable(hook := getattr(model, "initialise", None)):
        hook(windows)
    return model


def check_shapes(model: Any, sizes: Sizes, *, dtype: Any = jnp.float32, check: Any = None) -> None:
    """Build and call a model without computing anything, and refuse what does not fit the data.

    Args:
        model: as for `build_model`.
        sizes: of the data.
        dtype: of the data.
        check: further called with prediction and batch, such as a loss.

    Raises:
        ValueError: if building fails, or shape or dtype of the prediction are not those of the targets.
    """

    def call(batch: Batch) -> Float[Array, "batch horizon target"]:
        built = build_model(model, sizes, rngs=nnx.Rngs(0))
        prediction: Prediction = check_prediction(forward(built, batch, train=True), batch, built)
        if check is not None:
            check(prediction, batch)
        return prediction.mean

    nnx.eval_shape(call, sizes.batch(2, dtype))
