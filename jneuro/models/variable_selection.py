"""Variable selection of the Temporal Fusion Transformer, for hundreds of variables at once.

A real variable's embedding is affine in one number, so whatever linear layer reads it is affine in that number too. The
layer's matrix is therefore applied to the embeddings' weights, once for the whole batch, and neither the embeddings of
hundreds of variables side by side nor their product with that matrix are ever formed. The networks of the single
variables are stacked: one product over all of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from jneuro.core.types import Array, Float
from jneuro.models.gating import GatedResidualNetwork, ResampledNorm, dense, gated_linear, interpolation
from jneuro.models.layers import INITIALISERS, compute_dtype, dropout_layer, starts_at
from jneuro.models.tft_config import TemporalFusionTransformerConfig

__all__ = ["Embedded", "InputEmbedding", "VariableNetworks", "VariableSelection"]


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
        return Embedded(
            tuple(
                self._look_up(table[column], values[..., k]).astype(dtype) for k, column in enumerate(columns[:count])
            ),
            values[..., count:].astype(dtype),
            self.weight[...][rows],
            self.bias[...][rows],
        )

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
        self.dropout = dropout_layer(config.dropout, rngs=rngs)
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
        return _normalise(self._skip(variables) + gated_linear(x), self.norm_scale, self.norm_bias)

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
        total, inner = (
            sum(sizes) + real_count * config.real_size,
            min(config.hidden, count) if config.compat else config.hidden,
        )
        weigh, resize = count > 1, count > 1 and total != count
        self.weights = GatedResidualNetwork(config, total, inner, count, context=context, rngs=rngs) if weigh else None
        self.skip = self._resize(config, total, count, rngs=rngs) if resize else None

    @staticmethod
    def _resize(config: TemporalFusionTransformerConfig, total: int, count: int, *, rngs: nnx.Rngs) -> nnx.Module:
        return ResampledNorm(count, rngs=rngs) if config.compat else dense(config, total, count, rngs=rngs)

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
        weights = jax.nn.softmax(self.weights.finish(variables.through(self.weights.fc1), skip, context, train=train))
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
