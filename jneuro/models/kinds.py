"""The models that a configuration may name; nothing heavy is imported to list them."""

import inspect
from typing import Any

from jneuro.core.config import Config
from jneuro.core.registry import Registry

__all__ = ["MODELS", "SIZES"]

SIZES = ("features", "length", "horizons", "outputs")
"""What a model takes from its data; passed by name where its constructor, or its configuration, asks for it."""


def _lacks(thing: Any) -> str | None:
    """What something lacks to be a model, or to make one."""
    if isinstance(thing, Config) or (inspect.isclass(thing) and issubclass(thing, Config)):
        return None if callable(getattr(thing, "build", None)) else "its configuration has no method build(*, rngs)"
    from flax import nnx

    if isinstance(thing, nnx.Module):
        return "it is built already; name its class, or a function that returns it"
    if inspect.isclass(thing) and not issubclass(thing, nnx.Module):
        return "its class is not a flax.nnx.Module"
    return None if callable(thing) else "it must be a flax.nnx.Module, or a function that returns one"


MODELS = Registry(
    "model",
    {
        "lstm": "jneuro.models.forecasters:LSTMForecasterConfig",
        "cnn_lstm": "jneuro.models.forecasters:CNNLSTMConfig",
        "compact": "jneuro.models.compact:CompactForecasterConfig",
        "seq2seq_lstm": "jneuro.models.forecasters:Seq2SeqLSTMConfig",
        "lstm_autoencoder": "jneuro.models.forecasters:LSTMAutoencoderConfig",
        "spike_count_lstm": "jneuro.models.forecasters:SpikeCountLSTMConfig",
        "tft": "jneuro.models.tft:TemporalFusionTransformerConfig",
        "neuron_tft": "jneuro.models.neuron_tft:NeuronTFTConfig",
        "encoder_decoder": "jneuro.models.encoder_decoder:EncoderDecoderConfig",
    },
    _lacks,
    given=(*SIZES, "rngs"),
)
"""Every model by the name that a configuration gives it: a typed configuration, or a `flax.nnx.Module` of one's own."""
