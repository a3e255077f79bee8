"""What models promise."""

import contextlib
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
    Contract,
    Promise,
    apart,
    as_double,
    name_of,
    plain_keys,
    prerequisite,
    reload_fault,
    same,
    slope_fault,
    tracing_fault,
)

__all__ = ["check_model"]


class _ModelContract(Contract):
    """A model, how to build it anew, and a batch; compiled in few programs, since eager calls of models are slow."""

    noun = "model"

    def __init__(self, build: Callable[[nnx.Rngs], Any], sizes: Sizes):
        self.build = build
        rng = np.random.default_rng(11)
        self.windows = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), sizes.batch(4))
        self.graphs: list[Any] = []

    def variables(self, key: Any) -> Any:
        """Those of a new model, whose graph is kept; to be traced."""
        graph, state = nnx.split(self.build(model_rngs(key)))
        self.graphs.append(graph)
        return state

    @functools.cached_property
    def made(self) -> Callable[[Any], Any]:
        return jax.jit(self.variables)

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
        return self.forward(*self.parts, self.windows._replace(**changes))[0]

    @functools.cached_property
    def predicted(self) -> Prediction:
        return self.predict()

    def traced_anew(self, train: bool) -> str | None:
        """What another tracing of a prediction changes."""
        graph, state = self.parts
        return tracing_fault(lambda s, b: self.call(graph, s, b, train)[0], state, self.windows)

    @prerequisite
    def kind(self):
        """It is built from the arguments of its constructor, and is a flax.nnx.Module.

        Remedy: derive the class from nnx.Module; let __init__ take `*, rngs` and those of features, length, horizons
        and outputs that it needs.
        """
        made = []
        jax.eval_shape(lambda key: made.append(self.build(model_rngs(key))), jax.random.key(0))
        return None if isinstance(made[0], nnx.Module) else f"{type(made[0]).__qualname__}"

    @prerequisite
    def traceable(self):
        """It can be compiled: its computation does not depend on the values of its inputs.

        Remedy: compute with jax.numpy, and branch on sizes only, not on values.
        """
        graph, state = self.parts
        jax.eval_shape(lambda s, b: jax.tree.leaves(self.call(graph, s, b)), state, self.windows)

    @prerequisite
    def prediction(self):
        """model(batch, train=...) returns the expected values, an array [batch, horizon, target], or a Prediction.

        Remedy: take `batch, *, train=False`; reshape the output to (len(batch.inputs), horizons, outputs).
        """
        graph, state = self.parts
        found = jax.eval_shape(lambda s, b: self.call(graph, s, b)[0], state, self.windows).mean.shape
        wanted = self.windows.targets.shape
        return None if found == wanted else f"an array of shape {found} where the targets have {wanted}"

    @Promise
    def finite(self):
        """Its predictions are finite for inputs of unit variance.

        Remedy: look for a division by a spread that may be zero, and for logarithms.
        """
        bad = int((~np.isfinite(np.asarray(self.predicted.mean, np.float32))).sum())
        return f"{bad} of {self.predicted.mean.size} values that are not" if bad else None

    @Promise
    def dtype(self):
        """Its predictions have the precision of its inputs, whatever it computes in.

        Remedy: cast the output: y.astype(batch.inputs.dtype).
        """
        found = self.predicted.mean.dtype
        return None if found == jnp.float32 else f"{found} of float32"

    @Promise
    def seeded(self):
        """Its weights come from `rngs` alone: the same seed gives the same model.

        Remedy: draw with rngs.params(), not with numpy or a key of its own.
        """
        found = tracing_fault(self.variables, jax.random.key(0))
        return found or (None if self.graphs[-1] == self.graphs[-2] else "attributes that are drawn anew")

    @Promise
    def pure(self):
        """Outside training it changes nothing, and the same batch gives the same prediction.

        Remedy: drop values and update statistics only where train is True; draw from rngs, never from numpy.
        """
        if (found := self.traced_anew(train=False)) is not None:
            return found
        before, after = self.parts[1], self.forward(*self.parts, self.windows)[1]
        return None if same(plain_keys(before), plain_keys(after)) else "variables that a prediction has changed"

    @Promise
    def batch(self):
        """The prediction of a window does not depend on which others are in the batch.

        Remedy: normalise over features or time, or by statistics that training has kept; never over the batch.
        """
        others = self.windows.inputs.at[2:].multiply(3.0)
        return apart(self.predict(inputs=others).mean[:2], self.predicted.mean[:2])

    @Promise
    def blind(self):
        """It does not read the targets of the batch, which are what it should predict.

        Remedy: use batch.inputs, and batch.future for what is known ahead.
        """
        other = self.predict(targets=self.windows.targets + 1)
        return None if same(other.mean, self.predicted.mean) else "predictions that follow them"

    @Promise
    def quantiles(self):
        """Quantiles are [batch, horizon, target, quantile], one for each level between 0 and 1.

        Remedy: return Prediction(mean, quantiles, levels=levels).
        """
        mean, quantiles, levels = self.predicted.mean, self.predicted.quantiles, self.predicted.levels
        if quantiles is None:
            return None if levels is None else "levels without quantiles"
        if levels is None or quantiles.shape != (*mean.shape, len(levels)):
            return f"quantiles of shape {quantiles.shape} for levels {levels}"
        return None if bool(((levels > 0) & (levels < 1)).all()) else f"levels {np.asarray(levels)}"

    @Promise
    def training(self):
        """With train=True it predicts alike in shape, finite, and keeps its variables' structure.

        Remedy: draw masks from rngs.dropout (nnx.Dropout does); keep running statistics in nnx.BatchStat, made in
        __init__.
        """
        if (found := self.traced_anew(train=True)) is not None:
            return found
        said, after = self.forward(*self.parts, self.windows, train=True)
        if said.mean.shape != self.predicted.mean.shape:
            return f"shape {said.mean.shape}, and {self.predicted.mean.shape} outside training"
        if jax.tree.structure(after) != jax.tree.structure(self.parts[1]):
            return "variables that appear or vanish in training"
        return None if np.isfinite(np.asarray(said.mean, np.float32)).all() else "values that are not finite"

    @Promise
    def gradient(self):
        """Its derivatives with respect to its weights and its inputs are those of its predictions, and finite.

        Remedy: check custom_vjp rules; keep weights in nnx.Param.
        """
        graph, weights, rest = nnx.split(nnx.merge(*self.parts, copy=True), nnx.Param, ...)
        with double_precision():
            at, others, batch = as_double(weights), as_double(rest), as_double(self.windows)
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

    @Promise
    def serialisation(self):
        """Its variables are all that it knows: written and read back into a new model, they give the same predictions.

        Remedy: keep arrays in nnx.Param or nnx.Variable, not in numpy arrays or Python numbers that are drawn at
        random.
        """
        kept = nnx.state(nnx.merge(*self.parts, copy=True), nnx.Not(nnx.RngState))
        if (found := reload_fault(nnx.to_pure_dict(kept))) is not None:
            return found
        other = self.made(jax.random.key(1))
        fresh = nnx.merge(self.graphs[-1], other, copy=True)
        nnx.update(fresh, kept)
        return apart(self.forward(*nnx.split(fresh), self.windows)[0].mean, self.predicted.mean)


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
    sizes, block = Sizes(features, length, horizons, outputs, known), model
    if isinstance(model, Config):
        own = {name: getattr(model, name, size) for name, size in sizes._asdict().items()}
        sizes = Sizes(**own | {"outputs": own["outputs"] or own["features"], "known": known})
    elif isinstance(model, str | Mapping):
        block = ({"name": model} if isinstance(model, str) else dict(model)) | dict(arguments or {})
    elif not isinstance(model, nnx.Module):
        with contextlib.suppress(ValueError):  # what is no model is refused when it is built, as the promise "kind"
            block = MODELS.block(model)
        block = block.model_copy(update=dict(arguments or {})) if isinstance(block, Block) else block

    def build(rngs: nnx.Rngs) -> Any:
        if isinstance(model, nnx.Module):
            return nnx.clone(model)
        return build_model(block, None if isinstance(model, Config) else sizes, rngs=rngs)

    _ModelContract(build, sizes).verify(model if isinstance(model, str) else name_of(model), skip)
