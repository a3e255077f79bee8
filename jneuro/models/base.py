"""What every model takes and returns."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.types import Array, Float
from jneuro.datasets.windows import Batch

__all__ = ["Model", "ModelConfig", "Prediction", "check_inputs"]


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
