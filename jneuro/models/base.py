"""What every model takes and returns."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from pydantic import Field

from jneuro._types import Array, Config, Float
from jneuro.datasets.windows import Batch

__all__ = ["Model", "ModelConfig", "Prediction"]


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

    features: int = Field(100, ge=1)
    length: int = Field(150, ge=1)
    horizons: int = Field(1, ge=1)


class Model(Protocol):
    """The one call signature of all models; each is a `flax.nnx.Module` built as `Model(config, *, rngs)`."""

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict the batch's targets from its inputs."""
        ...
