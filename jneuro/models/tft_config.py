"""What a Temporal Fusion Transformer is told of its variables, and its sizes."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from flax import nnx
from pydantic import Field, model_validator

from jneuro.models.base import ModelConfig
from jneuro.models.layers import InitialiserName

__all__ = ["QUANTILES", "Level", "TemporalFusionTransformerConfig"]

QUANTILES = (0.1, 0.5, 0.9)
"""The levels of the paper's forecasts (Lim et al. 2021, section 4.6)."""

Column = Annotated[int, Field(ge=0)]
Level = Annotated[float, Field(gt=0, lt=1)]
"""A quantile's."""


class TemporalFusionTransformerConfig(ModelConfig):
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
        layers: of the LSTM encoder, and of the decoder.
        dropout: probability of dropping a value before every gate but the last, after the attention, and between the
            layers of the LSTM.
        quantiles: levels that are predicted, ascending; 0.5 among them, for it is the forecast.
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
    layers: int = Field(default=1, ge=1, le=16)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    quantiles: tuple[Level, ...] = QUANTILES
    kernel_init: InitialiserName = "xavier_uniform"
    compat: Literal["pytorch_forecasting"] | None = None
    hidden_continuous: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        categorical = tuple(column for column, _ in self.categories)
        for key, columns in (("known", self.known), ("static", self.static), ("categories", categorical)):
            twice = [c for c, count in Counter(columns).items() if count > 1]
            if twice:
                raise ValueError(f"{key} names column {twice[0]} more than once; name every column once")
            if columns and max(columns) >= self.features:
                raise ValueError(
                    f"{key} names column {max(columns)}, but the {self.features} features are columns 0 to"
                    f" {self.features - 1}"
                )
        both = sorted(set(self.known) & set(self.static))
        if both:
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

    def build(self, *, rngs: nnx.Rngs) -> nnx.Module:
        """Build the model with weights of its own."""
        from jneuro.models.tft import TemporalFusionTransformer  # that module imports this one

        return TemporalFusionTransformer(self, rngs=rngs)

    def _ordered(self, columns: Iterable[int]) -> tuple[int, ...]:
        """Categorical columns, then real ones."""
        return tuple(sorted(columns, key=lambda column: (column not in dict(self.categories), column)))
