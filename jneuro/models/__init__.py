"""Sequence models: each a `flax.nnx.Module`, all called alike."""

from jneuro.models.autoencoder import LSTMAutoencoder, LSTMAutoencoderConfig
from jneuro.models.base import Model, ModelConfig, Prediction
from jneuro.models.build import Sizes, build_model
from jneuro.models.compact import CompactForecaster, CompactForecasterConfig
from jneuro.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from jneuro.models.forecaster import CNNLSTM, CNNLSTMConfig, LSTMForecaster, LSTMForecasterConfig
from jneuro.models.kinds import MODELS
from jneuro.models.neuron_tft import NeuronTFT, NeuronTFTConfig
from jneuro.models.recurrent import LSTM, LSTMLayer, lstm
from jneuro.models.seq2seq import Seq2SeqLSTM, Seq2SeqLSTMConfig
from jneuro.models.spike_count import SpikeCountLSTM, SpikeCountLSTMConfig
from jneuro.models.tft import TemporalFusionTransformer
from jneuro.models.tft_config import TemporalFusionTransformerConfig

__all__ = [
    "CNNLSTM",
    "LSTM",
    "MODELS",
    "CNNLSTMConfig",
    "CompactForecaster",
    "CompactForecasterConfig",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "LSTMAutoencoder",
    "LSTMAutoencoderConfig",
    "LSTMForecaster",
    "LSTMForecasterConfig",
    "LSTMLayer",
    "Model",
    "ModelConfig",
    "NeuronTFT",
    "NeuronTFTConfig",
    "Prediction",
    "Seq2SeqLSTM",
    "Seq2SeqLSTMConfig",
    "Sizes",
    "SpikeCountLSTM",
    "SpikeCountLSTMConfig",
    "TemporalFusionTransformer",
    "TemporalFusionTransformerConfig",
    "build_model",
    "lstm",
]
