"""What every model takes and returns."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from pydantic import Field

from jneuro._types import Array, Config, Float
from jneuro.datasets.windows import Batch

__all__ = ["Model", "ModelConfig", "Prediction", "check_inputs"]


class Prediction(NamedTuple):
    """What a model says of the future.

    Attributes:
        mean: expected value, in the units of the batch it was given.
        quantiles: quantiles of the predictive distribution, where the model has them.
        diagnostics: further arrays by name, such as attention weights.
    """

    mean: Float[Array, "batch horizon feature"]
    quantiles: Float[Array, "batch horizon feature quantile"] | None = None
    diagnostics: Mapping[str, Array] = {}


class ModelConfig(Config):
    """The three sizes that a model takes from its data; an experiment fills them in from the windows.

    Attributes:
        features: variables observed at each time, here neurons.
        length: time steps in the input window.
        horizons: future times predicted at once.
    """

    features: int = Field(default=100, ge=1)
    length: int = Field(default=150, ge=1)
    horizons: int = Field(default=1, ge=1)


class Model(Protocol):
    """The one call signature of all models; each is a `flax.nnx.Module` built as `Model(config, *, rngs)`."""

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict the batch's targets from its inputs."""
        ...


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
