"""From a name with arguments to a model: the sizes come from the data, the weights from a key."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jneuro.core.random import require_key, stream
from jneuro.core.registry import Block, accepted
from jneuro.core.types import Array, Float, Key
from jneuro.datasets.windows import Batch, Windows
from jneuro.models.base import Prediction, check_prediction, forward
from jneuro.models.kinds import MODELS

__all__ = ["Sizes", "build_model", "check_shapes", "initialised", "model_rngs", "sized"]


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
        >>> from jneuro.models.build import Sizes, build_model
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
