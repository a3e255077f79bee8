"""Models by the names that a configuration uses, and what builds them."""

from typing import Annotated

from flax import nnx
from pydantic import Field

from jneuro.models.autoencoder import LSTMAutoencoder, LSTMAutoencoderConfig
from jneuro.models.base import Model, ModelConfig
from jneuro.models.compact import CompactForecaster, CompactForecasterConfig
from jneuro.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from jneuro.models.forecaster import CNNLSTM, CNNLSTMConfig, LSTMForecaster, LSTMForecasterConfig
from jneuro.models.neuron_tft import NeuronTFT, NeuronTFTConfig
from jneuro.models.seq2seq import Seq2SeqLSTM, Seq2SeqLSTMConfig
from jneuro.models.spike_count import SpikeCountLSTM, SpikeCountLSTMConfig
from jneuro.models.tft import TemporalFusionTransformer
from jneuro.models.tft_config import TemporalFusionTransformerConfig

__all__ = ["MODELS", "AnyModelConfig", "build_model"]

AnyModelConfig = Annotated[
    LSTMForecasterConfig
    | CNNLSTMConfig
    | CompactForecasterConfig
    | Seq2SeqLSTMConfig
    | LSTMAutoencoderConfig
    | SpikeCountLSTMConfig
    | TemporalFusionTransformerConfig
    | NeuronTFTConfig
    | EncoderDecoderConfig,
    Field(discriminator="name"),
]
"""The configuration of any model, told apart by `name`."""

MODELS: dict[str, tuple[type[ModelConfig], type[nnx.Module]]] = {
    "lstm": (LSTMForecasterConfig, LSTMForecaster),
    "cnn_lstm": (CNNLSTMConfig, CNNLSTM),
    "compact": (CompactForecasterConfig, CompactForecaster),
    "seq2seq_lstm": (Seq2SeqLSTMConfig, Seq2SeqLSTM),
    "lstm_autoencoder": (LSTMAutoencoderConfig, LSTMAutoencoder),
    "spike_count_lstm": (SpikeCountLSTMConfig, SpikeCountLSTM),
    "tft": (TemporalFusionTransformerConfig, TemporalFusionTransformer),
    "neuron_tft": (NeuronTFTConfig, NeuronTFT),
    "encoder_decoder": (EncoderDecoderConfig, EncoderDecoder),
}
"""Every model's configuration and module, by the configuration's `name`."""


def build_model(config: ModelConfig, *, rngs: nnx.Rngs) -> Model:
    """Build the model that a configuration describes.

    Args:
        config: one of the configurations in `MODELS`.
        rngs: draws the weights (`params`) and seeds the dropout streams (`dropout`).

    Returns:
        The model, a `flax.nnx.Module`.

    Raises:
        ValueError: if no model has this configuration.
    """
    for known, module in MODELS.values():
        if type(config) is known:
            return module(config, rngs=rngs)  # pyright: ignore
    raise ValueError(f"no model is configured by {type(config).__name__}; there are {', '.join(MODELS)}")
