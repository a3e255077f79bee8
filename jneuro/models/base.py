"""What every model takes and returns."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.types import Array, Float
from jneuro.datasets.windows import Batch

__all__ = [
    "Model",
    "ModelConfig",
    "Prediction",
    "check_inputs",
    "check_prediction",
    "forward",
    "name_of",
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
