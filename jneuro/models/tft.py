"""The Temporal Fusion Transformer of Lim et al. (2021), in the paper's form and in that of pytorch-forecasting.

Variables are selected for hundreds of them at once. A real variable's embedding is affine in one number, so whatever
linear layer reads it is affine in that number too. The layer's matrix is therefore applied to the embeddings' weights,
once for the whole batch, and neither the embeddings of hundreds of variables side by side nor their product with that
matrix are ever formed. The networks of the single variables are stacked: one product over all of them.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from pydantic import Field, model_validator

from jneuro.core.types import Array, Float
from jneuro.datasets.windows import Batch
from jneuro.models.base import ModelConfig, Prediction, check_inputs
from jneuro.models.layers import (
    INITIALISERS,
    LSTM,
    Dropout,
    InitialiserName,
    compute_dtype,
    layer_norm,
    linear,
    starts_at,
)

__all__ = ["TemporalFusionTransformer", "TemporalFusionTransformerConfig", "TransformerConfig", "interpolation"]

Column = Annotated[int, Field(ge=0)]


class TransformerConfig(ModelConfig):
    """What the Temporal Fusion Transformer and its form for neurons share.

    Attributes:
        layers: of the LSTM encoder, and of the decoder.
        dropout: probability of dropping a value before every gate but the last, after the attention, and between the
            layers of the LSTM.
        quantiles: levels that are predicted, ascending; 0.5 among them, for it is the forecast. The defaults are the
            paper's (Lim et al. 2021, section 4.6).
    """

    layers: int = Field(default=1, ge=1, le=16)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    quantiles: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.5, 0.9)


class TemporalFusionTransformerConfig(TransformerConfig):
    """The Temporal Fusion Transformer: gated variable selection, LSTMs and attention, with quantiles.

    Every column of a window's inputs is one variable. Those that are not static make up the past, the known ones
    included; wherever variables are listed (`static_variables`, `past_variables`, `future_variables`, and with them the
    last axis of the selection weights), categorical ones come first, each kind in the order of its columns.

    Attributes:
        known: columns that are known ahead; the batch's `future` holds them in this order.
        static: columns that do not change within a window, read at its first step.
        categories: `(column, classes)` of the categorical columns, which hold whole numbers from 0 to `classes − 1`,
            not scaled; another value gives predictions that are no numbers. All other columns are real.
        hidden: size of everything: embeddings, contexts, LSTM states, attention.
        heads: of the attention; each has queries and keys of size hidden / heads.
        causal_attention: whether a horizon attends to no later one; false lets each attend to all.
        kernel_init: how the weights start, but those of the LSTM and of the categories; biases start at zero.
        compat: null is the paper's form; `pytorch_forecasting` has that package's differences.
        hidden_continuous: size of a real variable's embedding, with `compat` only; null is `hidden`, as in the paper.
    """

    name: Literal["tft"] = "tft"
    known: tuple[Column, ...] = ()
    static: tuple[Column, ...] = ()
    categories: tuple[tuple[Column, Annotated[int, Field(ge=1)]], ...] = ()
    hidden: int = Field(default=64, ge=1)
    heads: int = Field(default=4, ge=1)
    causal_attention: bool = True
    kernel_init: InitialiserName = "xavier_uniform"
    compat: Literal["pytorch_forecasting"] | None = None
    hidden_continuous: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        categorical = tuple(column for column, _ in self.categories)
        for key, columns in (("known", self.known), ("static", self.static), ("categories", categorical)):
            if twice := [c for c, count in Counter(columns).items() if count > 1]:
                raise ValueError(f"{key} names column {twice[0]} more than once; name every column once")
            if columns and max(columns) >= self.features:
                raise ValueError(
                    f"{key} names column {max(columns)}, but the {self.features} features are columns 0 to"
                    f" {self.features - 1}"
                )
        if both := sorted(set(self.known) & set(self.static)):
            raise ValueError(f"column {both[0]} is both static and known; a static one is known already, name it there")
        if not self.past_variables:
            raise ValueError(f"all {self.features} features are static; at least one must change within a window")
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.hidden % self.heads and not (self.compat and self.heads < self.hidden):
            raise ValueError(f"hidden must be a multiple of heads, got hidden = {self.hidden}, heads = {self.heads}")
        if 0.5 not in self.quantiles or sorted(set(self.quantiles)) != list(self.quantiles):
            raise ValueError(f"quantiles must ascend and hold 0.5, the median, got {self.quantiles}")
        if self.hidden_continuous and not self.compat:
            raise ValueError("hidden_continuous needs compat = pytorch_forecasting; without, leave it out")
        return self

    @property
    def static_variables(self) -> tuple[int, ...]:
        """Static columns, in the order of their weights."""
        return self._ordered(self.static)

    @property
    def past_variables(self) -> tuple[int, ...]:
        """All other columns, in the order of their weights."""
        return self._ordered(set(range(self.features)) - set(self.static))

    @property
    def future_variables(self) -> tuple[int, ...]:
        """Columns known ahead, in the order of their weights."""
        return self._ordered(self.known)

    @property
    def reals(self) -> tuple[int, ...]:
        """All real columns, ascending."""
        return tuple(c for c in range(self.features) if c not in dict(self.categories))

    @property
    def real_size(self) -> int:
        """Size of a real variable's embedding."""
        return self.hidden_continuous or self.hidden

    def category_size(self, classes: int) -> int:
        """Size of a categorical variable's embedding; pytorch-forecasting's depends on the number of classes."""
        if not self.compat:
            return self.hidden
        return min(round(1.6 * classes**0.56) if classes > 2 else 1, 100, self.hidden)

    def build(self, *, rngs: nnx.Rngs) -> "TemporalFusionTransformer":
        """Build the model with weights of its own."""
        return TemporalFusionTransformer(self, rngs=rngs)

    def _ordered(self, columns: Iterable[int]) -> tuple[int, ...]:
        """Categorical columns, then real ones."""
        return tuple(sorted(columns, key=lambda column: (column not in dict(self.categories), column)))


class Embedded(NamedTuple):
    """Variables at some times, each a vector; those of real variables as x·weight + bias, not yet multiplied out.

    Attributes:
        categories: vectors of the categorical variables.
        reals: values of the real ones.
        weight: of their embeddings.
        bias: of their embeddings.
    """

    categories: tuple[Float[Array, "batch time size"], ...]
    reals: Float[Array, "batch time real"]
    weight: Float[Array, "real size"]
    bias: Float[Array, "real size"]

    def project(self, kernel: Float[Array, "total outputs"]) -> Float[Array, "batch time outputs"]:
        """All vectors side by side, times a matrix."""
        kernel = jnp.asarray(kernel, self.weight.dtype)
        rows = np.cumsum([c.shape[-1] for c in self.categories], dtype=int)
        *parts, kernel = jnp.split(kernel, rows)
        kernel = kernel.reshape(*self.weight.shape, kernel.shape[-1])
        slope = jnp.einsum("vs,vsk->vk", self.weight, kernel)
        offset = jnp.einsum("vs,vsk->k", self.bias, kernel)
        total = self.reals @ slope.astype(self.reals.dtype) + offset[None, None]
        return total + sum(c @ part.astype(c.dtype) for c, part in zip(self.categories, parts, strict=True))

    def through(self, layer: nnx.Linear) -> Float[Array, "batch time outputs"]:
        """All vectors side by side, through a linear layer."""
        y = self.project(layer.kernel[...])
        return y if layer.bias is None else y + layer.bias[...][None, None]

    def each(self, kernels: Float[Array, "variable size outputs"]) -> Float[Array, "variable batch time outputs"]:
        """Every vector times a matrix of its own."""
        count = len(self.categories)
        slope = jnp.einsum("vs,vsk->vk", self.weight, kernels[count:])
        offset = jnp.einsum("vs,vsk->vk", self.bias, kernels[count:])
        dtype = self.reals.dtype
        reals = self._affine(slope.astype(dtype), offset.astype(dtype))
        return _stack([c @ k.astype(c.dtype) for c, k in zip(self.categories, kernels[:count], strict=True)], reals)

    def vectors(self) -> Float[Array, "variable batch time size"]:
        """The vectors themselves, all of one size."""
        return _stack(self.categories, self._affine(self.weight, self.bias))

    def _affine(self, weight, bias):
        return jnp.moveaxis(self.reals, 2, 0)[..., None] * weight[:, None, None] + bias[:, None, None]


def _stack(categories: Sequence[Array], reals: Array) -> Array:
    return jnp.concatenate([*(c[None] for c in categories), reals])


def _dense(config: TemporalFusionTransformerConfig, inputs: int, outputs: int, **options) -> nnx.Linear:
    """A linear layer as the configuration says."""
    init, dtype = INITIALISERS[config.kernel_init], compute_dtype(config.precision)
    return linear(inputs, outputs, initialiser=init, dtype=dtype, **options)


def _gated_linear(x: Float[Array, "*any two_hidden"]) -> Float[Array, "*any hidden"]:
    """The first half of the last axis, times the logistic function of the second half."""
    value, gate = jnp.split(x, 2, axis=-1)
    return value * jax.nn.sigmoid(gate)


class GateAddNorm(nnx.Module):
    """LayerNorm(skip + GLU(dropout(x))), with GLU(x) = (W₁x + b₁) ⊙ σ(W₂x + b₂); both maps are the one layer `fc`.

    Args:
        config: the model's.
        inputs: size of what is gated.
        outputs: size of what it is added to.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
    """

    def __init__(self, config: TemporalFusionTransformerConfig, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.dropout = Dropout(config.dropout, rngs=rngs)
        self.fc = _dense(config, inputs, 2 * outputs, rngs=rngs)
        self.norm = layer_norm(outputs, rngs=rngs)

    def __call__(
        self, x: Float[Array, "*any inputs"], skip: Float[Array, "*any outputs"], *, train: bool
    ) -> Float[Array, "*any outputs"]:
        """Gate `x` and add it to `skip`."""
        return self.norm(skip + _gated_linear(self.fc(self.dropout(x, deterministic=not train))))


class GatedResidualNetwork(nnx.Module):
    """A small network that its gate can skip.

        GRN(x, c) = LayerNorm(x + GLU(dropout(W₂ ELU(W₁x + W_c c + b₁) + b₂)))

    Args:
        config: the model's.
        inputs: size of x.
        hidden: size within.
        outputs: size of what comes out; where it is not that of x, a `skip` of that size is given.
        context: whether there is a c.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    References:
        Lim B. et al., Int. J. Forecasting 37 (2021) 1748, equations 2 to 5.
    """

    def __init__(
        self,
        config: TemporalFusionTransformerConfig,
        inputs: int,
        hidden: int,
        outputs: int,
        *,
        context: bool = False,
        rngs: nnx.Rngs,
    ):
        self.fc1 = _dense(config, inputs, hidden, rngs=rngs)
        self.context = _dense(config, config.hidden, hidden, use_bias=False, rngs=rngs) if context else None
        self.fc2 = _dense(config, hidden, hidden, rngs=rngs)
        self.gate = GateAddNorm(config, hidden, outputs, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch *time inputs"] | Embedded,
        context: Float[Array, "batch hidden"] | None = None,
        *,
        skip: Float[Array, "batch *time outputs"] | None = None,
        train: bool,
    ) -> Float[Array, "batch *time outputs"]:
        """Run the network; one context serves all times; `skip` takes the place of x where the sizes differ."""
        first = x.through(self.fc1) if isinstance(x, Embedded) else self.fc1(x)
        if self.context is not None and context is not None:
            first = first + self.context(context)[:, None]
        beside: Any = x if skip is None else skip
        return self.gate(self.fc2(jax.nn.elu(first)), beside, train=train)


class ResampledNorm(nnx.Module):
    """pytorch-forecasting's skip between sizes: LayerNorm(2σ(mask) ⊙ x), where x was interpolated to the new size.

    Args:
        outputs: the new size.
        rngs: required by Flax; nothing is drawn.
    """

    def __init__(self, outputs: int, *, rngs: nnx.Rngs):
        self.mask = nnx.Param(starts_at(0, outputs))
        self.norm = layer_norm(outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "batch time outputs"]) -> Float[Array, "batch time outputs"]:
        """Weigh and normalise."""
        return self.norm(x * (2 * jax.nn.sigmoid(self.mask[...]))[None, None])


@functools.cache
def interpolation(inputs: int, outputs: int) -> np.ndarray:
    """The matrix that interpolates linearly from one number of equidistant points to another, ends to ends.

    Args:
        inputs: points given.
        outputs: points wanted.

    Returns:
        A matrix `[inputs, outputs]`; the identity where they are equal.
    """
    wanted = np.linspace(0, inputs - 1, outputs)
    return np.maximum(1 - np.abs(wanted[None] - np.arange(inputs)[:, None]), 0)


class InputEmbedding(nnx.Module):
    """One embedding for each column, the same in past and future.

    Args:
        config: the model's.
        rngs: draws the weights (`params`).
    """

    def __init__(self, config: TemporalFusionTransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.categories = nnx.List(
            [nnx.Embed(classes, config.category_size(classes), rngs=rngs) for _, classes in config.categories]
        )
        self.weight = nnx.Param(_stacked(config, len(config.reals), 1, config.real_size, rngs=rngs)[:, 0])
        self.bias = nnx.Param(starts_at(0, *self.weight.shape))

    def __call__(self, values: Float[Array, "batch time variable"], columns: tuple[int, ...]) -> Embedded:
        """Embed variables.

        Args:
            values: what they are.
            columns: which they are, categorical ones first.

        Returns:
            Their vectors, in the same order.
        """
        table = {column: k for k, (column, _) in enumerate(self.config.categories)}
        count = sum(column in table for column in columns)
        rows = np.asarray([self.config.reals.index(column) for column in columns[count:]], int)
        dtype = compute_dtype(self.config.precision) or jnp.result_type(values, self.weight[...])
        vectors = [self._look_up(table[c], values[..., k]).astype(dtype) for k, c in enumerate(columns[:count])]
        reals = values[..., count:].astype(dtype)
        return Embedded(tuple(vectors), reals, self.weight[...][rows], self.bias[...][rows])

    def _look_up(self, k: int, values: Float[Array, "batch time"]) -> Float[Array, "batch time size"]:
        """Rows of a table; no numbers for a class that it does not have."""
        table = self.categories[k].embedding[...]
        code = jnp.round(values).astype(jnp.int32)
        known = (code == values) & (code >= 0) & (code < len(table))
        return jnp.where(known[..., None], table[jnp.where(known, code, 0)], jnp.nan)


def _stacked(
    config: TemporalFusionTransformerConfig, variables: int, inputs: int, outputs: int, *, rngs: nnx.Rngs
) -> Float[Array, "variable inputs outputs"]:
    """Draw a matrix for each variable."""
    init, keys = INITIALISERS[config.kernel_init], jax.random.split(rngs.params(), variables)
    return jax.vmap(lambda key: init(key, (inputs, outputs), jnp.float32))(keys)


class VariableNetworks(nnx.Module):
    """The gated residual networks of single variables, without context, parameters stacked `[variable, …]`.

    Where embeddings have another size than `hidden`, as in pytorch-forecasting, the skip is interpolated, weighed and
    normalised.

    Args:
        config: the model's.
        variables: how many.
        size: of their embeddings.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).
    """

    def __init__(self, config: TemporalFusionTransformerConfig, variables: int, size: int, *, rngs: nnx.Rngs):
        self.dtype = compute_dtype(config.precision)
        inner, outputs = min(size, config.hidden), config.hidden
        self.fc1_kernel = nnx.Param(_stacked(config, variables, size, inner, rngs=rngs))
        self.fc1_bias = nnx.Param(starts_at(0, variables, inner))
        self.fc2_kernel = nnx.Param(_stacked(config, variables, inner, inner, rngs=rngs))
        self.fc2_bias = nnx.Param(starts_at(0, variables, inner))
        self.dropout = Dropout(config.dropout, rngs=rngs)
        self.gate_kernel = nnx.Param(_stacked(config, variables, inner, 2 * outputs, rngs=rngs))
        self.gate_bias = nnx.Param(starts_at(0, variables, 2 * outputs))
        self.norm_scale = nnx.Param(starts_at(1, variables, outputs))
        self.norm_bias = nnx.Param(starts_at(0, variables, outputs))
        self.resampled = size != outputs
        if self.resampled:
            self.skip_mask = nnx.Param(starts_at(0, variables, outputs))
            self.skip_scale = nnx.Param(starts_at(1, variables, outputs))
            self.skip_bias = nnx.Param(starts_at(0, variables, outputs))

    def __call__(self, variables: Embedded, *, train: bool) -> Float[Array, "variable batch time hidden"]:
        """Transform every variable by its own network."""
        x = variables.each(self.fc1_kernel[...]) + _rows(self.fc1_bias, self.dtype)
        x = self._product(jax.nn.elu(x), self.fc2_kernel) + _rows(self.fc2_bias, self.dtype)
        x = self.dropout(x.swapaxes(0, 1), deterministic=not train).swapaxes(0, 1)  # masks go by the place in the batch
        x = self._product(x, self.gate_kernel) + _rows(self.gate_bias, self.dtype)
        return _normalise(self._skip(variables) + _gated_linear(x), self.norm_scale, self.norm_bias)

    def _product(self, x: Array, kernel: nnx.Param) -> Array:
        return jnp.einsum("vbth,vhk->vbtk", x, kernel[...].astype(x.dtype))

    def _skip(self, variables: Embedded) -> Array:
        if not self.resampled:
            return variables.vectors()
        shape = *self.fc1_kernel.shape[:2], self.norm_scale.shape[1]
        matrix = jnp.asarray(interpolation(*shape[1:]), self.skip_mask.dtype)
        x = variables.each(jnp.broadcast_to(matrix[None], shape))
        return _normalise(x * (2 * jax.nn.sigmoid(_rows(self.skip_mask))), self.skip_scale, self.skip_bias)


def _rows(parameter: nnx.Param, dtype: DTypeLike | None = None) -> Array:
    """One row for each variable, at all times of a batch."""
    return parameter[...].astype(dtype or parameter.dtype)[:, None, None]


def _normalise(x: Array, scale: nnx.Param, bias: nnx.Param) -> Array:
    """Layer normalisation with one scale and bias for each variable."""
    x = x.astype(jnp.promote_types(x.dtype, scale.dtype))
    x = x - x.mean(-1, keepdims=True)
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * _rows(scale) + _rows(bias)


class VariableSelection(nnx.Module):
    """Which variables matter now: the mean of their transformed embeddings ξ under weights that depend on all of them.

        v = softmax(GRN([ξ₁ … ξ_m], c)),    selected = Σ_j v_j GRN_j(ξ_j)

    The first network maps to another size, so its skip has a linear layer. A single variable has weight 1.

    With pytorch-forecasting's differences, its width is at most the number of variables, its skip is interpolated, and
    categorical variables have no network of their own, only the interpolation to `hidden`, weighed and normalised.

    Args:
        config: the model's.
        columns: the variables, categorical ones first.
        context: whether there is a c.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    References:
        Lim B. et al., Int. J. Forecasting 37 (2021) 1748, equations 6 to 8.
    """

    def __init__(
        self, config: TemporalFusionTransformerConfig, columns: tuple[int, ...], *, context: bool, rngs: nnx.Rngs
    ):
        classes = dict(config.categories)
        sizes = [config.category_size(classes[c]) for c in columns if c in classes]
        count, real_count = len(columns), len(columns) - len(sizes)
        self.resampled = nnx.List([ResampledNorm(config.hidden, rngs=rngs) for _ in sizes] if config.compat else [])
        own = real_count if config.compat else count
        self.networks = VariableNetworks(config, own, config.real_size, rngs=rngs) if own else None
        total, weights, skip = sum(sizes) + real_count * config.real_size, None, None
        if count > 1:
            inner = min(config.hidden, count) if config.compat else config.hidden
            weights = GatedResidualNetwork(config, total, inner, count, context=context, rngs=rngs)
            if total != count:
                skip = ResampledNorm(count, rngs=rngs) if config.compat else _dense(config, total, count, rngs=rngs)
        self.weights, self.skip = weights, skip

    def __call__(
        self, variables: Embedded, context: Float[Array, "batch hidden"] | None = None, *, train: bool
    ) -> tuple[Float[Array, "batch time hidden"], Float[Array, "batch time variable"]]:
        """Select.

        Args:
            variables: the embedded variables.
            context: c, the same at all times.
            train: whether to drop values.

        Returns:
            What was selected, and the weights of the variables.
        """
        transformed = self._transform(variables, train=train)
        if self.weights is None:
            return transformed[0], jnp.ones((*variables.reals.shape[:2], 1), transformed.dtype)
        skip = self._skip(variables, self.weights.fc1.in_features, transformed.shape[0])
        weights = jax.nn.softmax(self.weights(variables, context, skip=skip, train=train))
        return jnp.einsum("vbth,btv->bth", transformed, weights), weights

    def _transform(self, variables: Embedded, *, train: bool) -> Float[Array, "variable batch time hidden"]:
        """Every variable by itself."""
        alone = []
        if len(self.resampled):
            for vector, norm in zip(variables.categories, self.resampled, strict=True):
                matrix = interpolation(vector.shape[-1], norm.mask.shape[0])
                alone.append(norm(vector @ jnp.asarray(matrix, vector.dtype))[None])
            variables = variables._replace(categories=())
        if self.networks is not None:
            alone.append(self.networks(variables, train=train))
        return jnp.concatenate(alone)

    def _skip(self, variables: Embedded, total: int, count: int) -> Float[Array, "batch time variable"]:
        """All embeddings side by side, as many numbers as there are variables."""
        if isinstance(self.skip, nnx.Linear):
            return variables.through(self.skip)
        resampled = variables.project(jnp.asarray(interpolation(total, count)))
        return resampled if self.skip is None else self.skip(resampled)


class InterpretableAttention(nnx.Module):
    """Attention whose heads ask differently but read the same values, so that their mean says what was read.

        A_h = softmax(X_q Q_h (X K_h)ᵀ / √d + mask),    output = (1/H Σ_h A_h) X V W,    d = hidden / H

    A horizon attends to the whole past and to all horizons up to itself; with pytorch-forecasting's differences only to
    those before it, and Q, K and V have biases; without `causal_attention`, to all. The heads' mean is taken before the
    product with the values, which is the same sum and one product instead of H; dropout acts on the output, once.

    Args:
        config: the model's.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    References:
        Lim B. et al., Int. J. Forecasting 37 (2021) 1748, equations 9 to 16.
    """

    def __init__(self, config: TemporalFusionTransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        size, bias = config.hidden // config.heads, config.compat is not None
        self.query = _dense(config, config.hidden, config.heads * size, use_bias=bias, rngs=rngs)
        self.key = _dense(config, config.hidden, config.heads * size, use_bias=bias, rngs=rngs)
        self.value = _dense(config, config.hidden, size, use_bias=bias, rngs=rngs)
        self.output = _dense(config, size, config.hidden, use_bias=False, rngs=rngs)
        self.dropout = Dropout(config.dropout, rngs=rngs)

    def __call__(
        self, x: Float[Array, "batch time hidden"], *, train: bool
    ) -> tuple[Float[Array, "batch horizon hidden"], Float[Array, "batch head horizon time"]]:
        """Attend from the horizons, the last times of `x`, to all times.

        Args:
            x: past and horizons.
            train: whether to drop values.

        Returns:
            What was read, and each head's attention.
        """
        config = self.config
        heads = (*x.shape[:1], -1, config.heads, config.hidden // config.heads)
        query, key = self.query(x[:, config.length :]).reshape(heads), self.key(x).reshape(heads)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(heads[-1])
        # In single precision at least, whatever the products were made in.
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        ahead = np.arange(x.shape[1])[None] - config.length - np.arange(config.horizons)[:, None]
        allowed = (ahead < 0 if config.compat else ahead <= 0) | (not config.causal_attention)
        attention = jax.nn.softmax(jnp.where(allowed[None, None], scores, -jnp.inf))
        value = self.value(x)
        read = self.output(attention.mean(1).astype(value.dtype) @ value)
        return self.dropout(read, deterministic=not train), attention


class TemporalFusionTransformer(nnx.Module):
    r"""Forecast quantiles from past, static and known variables, and say which of them and which times were used.

    With s the static context (four networks make \(c_s, c_e, c_h, c_c\) of the selected static variables),

        ξ    = select(past, c_s), select(future, c_s)
        φ    = LayerNorm(ξ + GLU(LSTM(ξ; h₀ = c_h, c₀ = c_c)))     encoder over the past, decoder over the horizons
        θ    = GRN(φ, c_e)
        ψ    = LayerNorm(θ + GLU(attention(θ)))                    at the horizons
        ŷ    = W LayerNorm(φ + GLU(GRN(ψ))) + b                    one number for each target and quantile

    Every layer of the LSTM starts from the same \(c_h, c_c\). Without static columns there are no contexts: selection
    and enrichment have no \(W_c\), and the LSTM starts at zero. Without known columns the decoder reads zeros.

    `compat="pytorch_forecasting"` has that package's differences instead: biases on queries, keys and values; a horizon
    does not attend to itself; other widths and skips in the variable selection (see `VariableSelection`); small
    embeddings; and without static columns, contexts made of zeros. `jneuro.interop.pytorch_forecasting` exchanges
    weights with it.

    Besides quantiles and their median, a prediction holds in `diagnostics`:

    - `attention [batch horizon time]`, over the past and then the horizons, the mean of
      `attention_heads [batch head horizon time]`;
    - `static_weights [batch variable]`, `past_weights [batch time variable]` and
      `future_weights [batch horizon variable]`, in the order of the configuration's `static_variables`,
      `past_variables` and `future_variables`.

    Args:
        config: variables and sizes.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    References:
        Lim B., Arık S. Ö., Loeff N. & Pfister T., Int. J. Forecasting 37 (2021) 1748.
    """

    def __init__(self, config: TemporalFusionTransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        hidden, static = config.hidden, bool(config.static)
        contexts = static or config.compat is not None

        def network(*, context: bool = False) -> GatedResidualNetwork:
            return GatedResidualNetwork(config, hidden, hidden, hidden, context=context, rngs=rngs)

        def selection(columns: tuple[int, ...], *, context: bool) -> VariableSelection | None:
            return VariableSelection(config, columns, context=context, rngs=rngs) if columns else None

        self.embedding = InputEmbedding(config, rngs=rngs)
        self.static_selection = selection(config.static_variables, context=False)
        self.past_selection = VariableSelection(config, config.past_variables, context=contexts, rngs=rngs)
        self.future_selection = selection(config.future_variables, context=contexts)
        names = ("selection", "enrichment", "hidden", "cell") if contexts else ()
        self.contexts = nnx.Dict({name: network() for name in names})
        options = {"dropout": config.dropout, "dtype": compute_dtype(config.precision), "rngs": rngs}
        self.encoder = LSTM(hidden, hidden, config.layers, **options)
        self.decoder = LSTM(hidden, hidden, config.layers, **options)
        self.lstm_gate = GateAddNorm(config, hidden, hidden, rngs=rngs)
        self.enrichment = network(context=contexts)
        self.attention = InterpretableAttention(config, rngs=rngs)
        self.attention_gate = GateAddNorm(config, hidden, hidden, rngs=rngs)
        self.feed_forward = network()
        self.output_gate = GateAddNorm(config.model_copy(update={"dropout": 0.0}), hidden, hidden, rngs=rngs)
        # In the parameters' precision, whatever the model's.
        outputs, init = config.targets * len(config.quantiles), INITIALISERS[config.kernel_init]
        self.output_layer = linear(hidden, outputs, initialiser=init, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict all horizons at once.

        Args:
            batch: the windows; its targets are not read.
            train: whether to drop values.

        Returns:
            The quantiles, their median as the mean, their levels, and the weights of variables and times.

        Raises:
            ValueError: if the inputs are not `[batch, length, features]`, or `future` does not hold the known columns.
        """
        config = self.config
        self._check(batch)
        static, static_weights = self._static(batch.inputs, train=train)
        context = {name: net(static, train=train) for name, net in self.contexts.items()}
        columns = config.past_variables
        variables = self.embedding(batch.inputs[..., np.asarray(columns)], columns)
        past, past_weights = self.past_selection(variables, context.get("selection"), train=train)
        future, future_weights = self._future(batch, past, context.get("selection"), train=train)

        initial = [(context["hidden"], context["cell"])] * config.layers if context else None
        encoded, state = self.encoder(past, initial, train=train)
        decoded, _ = self.decoder(future, state, train=train)
        both = jnp.concatenate([past, future], 1)
        local = self.lstm_gate(jnp.concatenate([encoded, decoded], 1), both, train=train)

        enriched = self.enrichment(local, context.get("enrichment"), train=train)
        read, attention = self.attention(enriched, train=train)
        x = self.attention_gate(read, enriched[:, config.length :], train=train)
        x = self.output_gate(self.feed_forward(x, train=train), local[:, config.length :], train=train)
        quantiles = self.output_layer(x).reshape(*x.shape[:2], config.targets, len(config.quantiles))
        mean = quantiles[..., config.quantiles.index(0.5)]
        diagnostics = {"attention": attention.mean(1), "attention_heads": attention, "static_weights": static_weights}
        diagnostics |= {"past_weights": past_weights, "future_weights": future_weights}
        levels = jnp.asarray(config.quantiles, quantiles.dtype)
        return Prediction(mean, quantiles, diagnostics, levels)

    def _check(self, batch: Batch) -> None:
        """Check, while tracing, that the batch has what the model was built for."""
        config = self.config
        check_inputs(config, batch.inputs)
        shape = None if batch.future is None else batch.future.shape[1:]
        if config.known and shape != (config.horizons, len(config.known)):
            raise ValueError(
                f"columns {config.known} are known ahead, so future must be [batch, horizons={config.horizons},"
                f" known={len(config.known)}], got {shape and batch.inputs.shape[:1] + shape}"
            )

    def _static(self, inputs: Array, *, train: bool) -> tuple[Array, Array]:
        """The static variables selected, zeros without any, and their weights."""
        config = self.config
        if self.static_selection is None:
            zeros = jnp.zeros((inputs.shape[0], config.hidden), self.embedding.weight.dtype)
            return zeros, zeros[:, :0]
        columns = config.static_variables
        variables = self.embedding(inputs[:, :1, np.asarray(columns)], columns)
        selected, weights = self.static_selection(variables, train=train)
        return selected[:, 0], weights[:, 0]

    def _future(self, batch: Batch, past: Array, context: Array | None, *, train: bool) -> tuple[Array, Array]:
        """The known variables of the horizons selected, zeros without any, and their weights."""
        columns, known = self.config.future_variables, self.config.known
        if self.future_selection is None or batch.future is None:
            zeros = jnp.zeros((past.shape[0], self.config.horizons, past.shape[2]), past.dtype)
            return zeros, zeros[..., :0]
        values = batch.future[..., np.asarray([known.index(column) for column in columns])]
        return self.future_selection(self.embedding(values, columns), context, train=train)
