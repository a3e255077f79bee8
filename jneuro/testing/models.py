"""What models promise."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.core.config import Config
from jneuro.core.devices import double_precision
from jneuro.core.registry import Block
from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction, Sizes, build_model, forward, model_rngs
from jneuro.models.kinds import MODELS
from jneuro.testing.contract import (
    Promise,
    apart,
    as_double,
    name_of,
    plain_keys,
    promise,
    reload_fault,
    same,
    slope_fault,
    tracing_fault,
    verify,
)

__all__ = ["check_model"]

_MODEL: list[Promise] = []


class _ModelCase:
    """A model, how to build it anew, and a batch; compiled in few programs, since eager calls of models are slow."""

    def __init__(self, build: Callable[[nnx.Rngs], Any], sizes: Sizes):
        self.build = build
        rng = np.random.default_rng(11)
        self.batch = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), sizes.batch(4))
        self.graphs: list[Any] = []

    def state(self, key: Any) -> Any:
        """The variables of a new model; to be traced."""
        graph, state = nnx.split(self.build(model_rngs(key)))
        self.graphs.append(graph)
        return state

    @functools.cached_property
    def made(self) -> Callable[[Any], Any]:
        return jax.jit(self.state)

    @functools.cached_property
    def parts(self) -> tuple[Any, Any]:
        """Graph and variables of the model."""
        state = self.made(jax.random.key(0))
        return self.graphs[0], state

    def call(self, graph: Any, state: Any, batch: Batch, train: bool = False) -> tuple[Prediction, Any]:
        """What the model says, and its variables afterwards; to be traced."""
        model = nnx.merge(graph, state, copy=True)
        return forward(model, batch, train=train), nnx.split(model)[1]

    @functools.cached_property
    def forward(self) -> Callable[..., Any]:
        return jax.jit(self.call, static_argnames=("graph", "train"))

    def predict(self, **changes: Any) -> Prediction:
        """The prediction of the batch with changes."""
        return self.forward(*self.parts, self.batch._replace(**changes))[0]

    @functools.cached_property
    def prediction(self) -> Prediction:
        return self.predict()


@promise(
    _MODEL,
    "kind",
    "it is built from the arguments of its constructor, and is a flax.nnx.Module",
    "derive the class from nnx.Module; let __init__ take `*, rngs` and those of features, length, horizons and outputs "
    "that it needs",
    first=True,
)
def _(case):
    made = []
    jax.eval_shape(lambda key: made.append(case.build(model_rngs(key))), jax.random.key(0))
    return None if isinstance(made[0], nnx.Module) else f"{type(made[0]).__qualname__}"


@promise(
    _MODEL,
    "traceable",
    "it can be compiled: its computation does not depend on the values of its inputs",
    "compute with jax.numpy, and branch on sizes only, not on values",
    first=True,
)
def _(case):
    graph, state = case.parts
    jax.eval_shape(lambda s, b: jax.tree.leaves(case.call(graph, s, b)), state, case.batch)
    return None


@promise(
    _MODEL,
    "prediction",
    "model(batch, train=...) returns the expected values, an array [batch, horizon, target], or a Prediction",
    "take `batch, *, train=False`; reshape the output to (len(batch.inputs), horizons, outputs)",
    first=True,
)
def _(case):
    graph, state = case.parts
    prediction = jax.eval_shape(lambda s, b: case.call(graph, s, b)[0], state, case.batch)
    shape = case.batch.targets.shape
    found = prediction.mean.shape
    return None if found == shape else f"an array of shape {found} where the targets have {shape}"


@promise(
    _MODEL,
    "finite",
    "its predictions are finite for inputs of unit variance",
    "look for a division by a spread that may be zero, and for logarithms",
)
def _(case):
    bad = int((~np.isfinite(np.asarray(case.prediction.mean, np.float32))).sum())
    return f"{bad} of {case.prediction.mean.size} values that are not" if bad else None


@promise(
    _MODEL,
    "dtype",
    "its predictions have the precision of its inputs, whatever it computes in",
    "cast the output: y.astype(batch.inputs.dtype)",
)
def _(case):
    found = case.prediction.mean.dtype
    return None if found == jnp.float32 else f"{found} of float32"


@promise(
    _MODEL,
    "seeded",
    "its weights come from `rngs` alone: the same seed gives the same model",
    "draw with rngs.params(), not with numpy or a key of its own",
)
def _(case):
    found = tracing_fault(case.state, jax.random.key(0))
    return found or (None if case.graphs[-1] == case.graphs[-2] else "attributes that are drawn anew")


@promise(
    _MODEL,
    "pure",
    "outside training it changes nothing, and the same batch gives the same prediction",
    "drop values and update statistics only where train is True; draw from rngs, never from numpy",
)
def _(case):
    graph, state = case.parts
    if (found := tracing_fault(lambda s, b: case.call(graph, s, b)[0], state, case.batch)) is not None:
        return found
    after = case.forward(graph, state, case.batch)[1]
    return None if same(plain_keys(state), plain_keys(after)) else "variables that a prediction has changed"


@promise(
    _MODEL,
    "batch",
    "the prediction of a window does not depend on which others are in the batch",
    "normalise over features or time, or by statistics that training has kept; never over the batch",
)
def _(case):
    others = case.batch.inputs.at[2:].multiply(3.0)
    return apart(case.predict(inputs=others).mean[:2], case.prediction.mean[:2])


@promise(
    _MODEL,
    "blind",
    "it does not read the targets of the batch, which are what it should predict",
    "use batch.inputs, and batch.future for what is known ahead",
)
def _(case):
    other = case.predict(targets=case.batch.targets + 1)
    return None if same(other.mean, case.prediction.mean) else "predictions that follow them"


@promise(
    _MODEL,
    "quantiles",
    "quantiles are [batch, horizon, target, quantile], one for each level between 0 and 1",
    "return Prediction(mean, quantiles, levels=levels)",
)
def _(case):
    quantiles, levels = case.prediction.quantiles, case.prediction.levels
    if quantiles is None:
        return None if levels is None else "levels without quantiles"
    if levels is None or quantiles.shape != (*case.prediction.mean.shape, len(levels)):
        return f"quantiles of shape {quantiles.shape} for levels {levels}"
    return None if bool(((levels > 0) & (levels < 1)).all()) else f"levels {np.asarray(levels)}"


@promise(
    _MODEL,
    "training",
    "with train=True it predicts alike in shape, finite, and keeps its variables' structure",
    "draw masks from rngs.dropout (nnx.Dropout does); keep running statistics in nnx.BatchStat, made in __init__",
)
def _(case):
    graph, state = case.parts
    if (found := tracing_fault(lambda s, b: case.call(graph, s, b, True)[0], state, case.batch)) is not None:
        return found
    said, after = case.forward(graph, state, case.batch, train=True)
    if said.mean.shape != case.prediction.mean.shape:
        return f"shape {said.mean.shape}, and {case.prediction.mean.shape} outside training"
    if jax.tree.structure(after) != jax.tree.structure(state):
        return "variables that appear or vanish in training"
    return None if np.isfinite(np.asarray(said.mean, np.float32)).all() else "values that are not finite"


@promise(
    _MODEL,
    "gradient",
    "its derivatives with respect to its weights and its inputs are those of its predictions, and finite",
    "check custom_vjp rules; keep weights in nnx.Param",
)
def _(case):
    graph, weights, rest = nnx.split(nnx.merge(*case.parts, copy=True), nnx.Param, ...)
    with double_precision():
        at, others, batch = as_double(weights), as_double(rest), as_double(case.batch)
        if not jax.tree.leaves(at):
            return "no nnx.Param, nothing to train"
        pull = jnp.asarray(np.random.default_rng(5).normal(size=batch.targets.shape))

        def total(varied):
            model = nnx.merge(graph, varied[0], others, copy=True)
            mean = forward(model, batch._replace(inputs=varied[1])).mean
            return jnp.sum(mean * pull.astype(mean.dtype))

        if jax.eval_shape(total, (at, batch.inputs)).dtype != jnp.float64:
            return "a prediction in single precision although all weights and inputs are double"
        return slope_fault(total, (at, batch.inputs), forward=False)


@promise(
    _MODEL,
    "serialisation",
    "its variables are all that it knows: written and read back into a new model, they give the same predictions",
    "keep arrays in nnx.Param or nnx.Variable, not in numpy arrays or Python numbers that are drawn at random",
)
def _(case):
    graph, state = case.parts
    kept = nnx.state(nnx.merge(graph, state, copy=True), nnx.Not(nnx.RngState))
    if (found := reload_fault(nnx.to_pure_dict(kept))) is not None:
        return found
    other = case.made(jax.random.key(1))
    fresh = nnx.merge(case.graphs[-1], other, copy=True)
    nnx.update(fresh, kept)
    graph, state = nnx.split(fresh)
    return apart(case.forward(graph, state, case.batch)[0].mean, case.prediction.mean)


def check_model(
    model: Any,
    *,
    features: int = 3,
    length: int = 8,
    horizons: int = 2,
    outputs: int = 2,
    known: int = 0,
    arguments: Mapping[str, Any] | None = None,
    skip: Sequence[str] = (),
) -> None:
    """Check that a model keeps the promises of its kind.

    They are: kind, traceable, prediction, finite, dtype, seeded, pure, batch, blind, quantiles, training, gradient,
    serialisation.

    Args:
        model: a class, or a function that returns a model; a name, alone or in a mapping with arguments; a typed
            configuration, whose own sizes then hold; or an instance, of which it is not asked how it is built.
        features: columns that are observed.
        length: frames of a window.
        horizons: times that are predicted.
        outputs: columns that are predicted.
        known: columns that are known ahead, in `batch.future`.
        arguments: further arguments of the constructor.
        skip: names of promises that are not asked.

    Raises:
        ContractError: naming each promise that is broken, what was found, and the remedy.
        ValueError: if `skip` names an unknown promise.

    Example:
        >>> import jneuro as jn
        >>> jn.testing.check_model(MyModel, length=20, arguments={"hidden": 8})  # doctest: +SKIP
    """
    sizes = Sizes(features, length, horizons, outputs, known)
    if isinstance(model, nnx.Module):
        build = lambda rngs: nnx.clone(model)  # noqa: E731
    elif isinstance(model, Config):
        own = {name: getattr(model, name, size) for name, size in sizes._asdict().items()}
        sizes = Sizes(**own | {"outputs": own["outputs"] or own["features"], "known": known})
        build = lambda rngs: build_model(model, rngs=rngs)  # noqa: E731
    else:
        block = _block(model, dict(arguments or {}))
        build = lambda rngs: build_model(block, sizes, rngs=rngs)  # noqa: E731
    about = model if isinstance(model, str) else name_of(model)
    verify(about, "model", _MODEL, _ModelCase(build, sizes), skip)


def _block(model: Any, arguments: dict[str, Any]) -> Any:
    """A model with arguments of its constructor, or of its configuration."""
    if isinstance(model, str | Mapping):
        return ({"name": model} if isinstance(model, str) else dict(model)) | arguments
    try:
        block = MODELS.block(model)
    except ValueError:
        return model  # refused when it is built, as the promise "kind"
    return block.model_copy(update=arguments) if isinstance(block, Block) else block
