"""The Temporal Fusion Transformer of Lim et al. (2021), in the paper's form and in that of pytorch-forecasting."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.core.types import Array, Float
from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction, check_inputs
from jneuro.models.gating import GateAddNorm, GatedResidualNetwork, dense
from jneuro.models.layers import INITIALISERS, compute_dtype, dropout_layer, linear
from jneuro.models.recurrent import LSTM
from jneuro.models.tft_config import TemporalFusionTransformerConfig
from jneuro.models.variable_selection import InputEmbedding, VariableSelection

__all__ = ["InterpretableAttention", "TemporalFusionTransformer"]


class InterpretableAttention(nnx.Module):
    """Attention whose heads ask differently but read the same values, so that their mean says what was read.

        A_h = softmax(X_q Q_h (X K_h)ᵀ / √d + mask),    output = (1/H Σ_h A_h) X V W,    d = hidden / H

    A horizon attends to the whole past and to all horizons up to itself; with pytorch-forecasting's differences only to
    those before it, and Q, K and V have biases. The heads' mean is taken before the product with the values, which
    is the same sum and one product instead of H; dropout acts on the output, once.

    Args:
        config: the model's.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    References:
        Lim B. et al., Int. J. Forecasting 37 (2021) 1748, equations 9 to 16.
    """

    def __init__(self, config: TemporalFusionTransformerConfig, *, rngs: nnx.Rngs):
        self.config = config
        size, bias = config.hidden // config.heads, config.compat is not None
        self.query = dense(config, config.hidden, config.heads * size, use_bias=bias, rngs=rngs)
        self.key = dense(config, config.hidden, config.heads * size, use_bias=bias, rngs=rngs)
        self.value = dense(config, config.hidden, size, use_bias=bias, rngs=rngs)
        self.output = dense(config, size, config.hidden, use_bias=False, rngs=rngs)
        self.dropout = dropout_layer(config.dropout, rngs=rngs)

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
        allowed = ahead < 0 if config.compat else ahead <= 0
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
        self.output_gate = GateAddNorm(config, hidden, hidden, dropout=0.0, rngs=rngs)
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
        past, past_weights = self._past(batch.inputs, context.get("selection"), train=train)
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
        return Prediction(
            quantiles[..., config.quantiles.index(0.5)],
            quantiles,
            {
                "attention": attention.mean(1),
                "attention_heads": attention,
                "static_weights": static_weights,
                "past_weights": past_weights,
                "future_weights": future_weights,
            },
            jnp.asarray(config.quantiles, quantiles.dtype),
        )

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
        selected, weights = self.static_selection(
            self.embedding(inputs[:, :1, np.asarray(columns)], columns), train=train
        )
        return selected[:, 0], weights[:, 0]

    def _past(self, inputs: Array, context: Array | None, *, train: bool) -> tuple[Array, Array]:
        """The variables of the past selected, and their weights."""
        columns = self.config.past_variables
        return self.past_selection(self.embedding(inputs[..., np.asarray(columns)], columns), context, train=train)

    def _future(self, batch: Batch, past: Array, context: Array | None, *, train: bool) -> tuple[Array, Array]:
        """The known variables of the horizons selected, zeros without any, and their weights."""
        columns, known = self.config.future_variables, self.config.known
        if self.future_selection is None or batch.future is None:
            zeros = jnp.zeros((past.shape[0], self.config.horizons, past.shape[2]), past.dtype)
            return zeros, zeros[..., :0]
        values = batch.future[..., np.asarray([known.index(column) for column in columns])]
        return self.future_selection(self.embedding(values, columns), context, train=train)
