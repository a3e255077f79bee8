"""Every model, small, with its twin and its training; and every kind of training."""

from equivalence import Case, recipe
from twins.autoencoder import LSTMAutoencoderTwin
from twins.compact import CompactForecasterTwin
from twins.encoder_decoder import EncoderDecoderTwin
from twins.forecaster import CNNLSTMTwin, LSTMForecasterTwin
from twins.seq2seq import Seq2SeqLSTMTwin
from twins.spike_count import SpikeCountLSTMTwin
from twins.tft import NeuronTFTTwin, TemporalFusionTransformerTwin

from jneuro.models import (
    CNNLSTMConfig,
    CompactForecasterConfig,
    EncoderDecoderConfig,
    LSTMAutoencoderConfig,
    LSTMForecasterConfig,
    NeuronTFTConfig,
    Seq2SeqLSTMConfig,
    SpikeCountLSTMConfig,
    TemporalFusionTransformerConfig,
)
from jneuro.training import Adam, AdamW, Plateau

__all__ = ["CASES", "RECIPES"]

SMALL = {"features": 5, "length": 8, "horizons": 2}
LADDER = SMALL | {"hidden": 6, "dropout": 0}
STACK = {"features": 5, "length": 6, "hidden": 6}
COUNTS = {"twin": SpikeCountLSTMTwin, "ahead": (1,), "counts": (0, 1, 2)}
SURROGATE = {"features": 2, "length": 16, "horizons": 13, "outputs": 1, "layers": 2, "filters": 4, "crop": (2, 1)}
SURROGATE |= {"input_scale": 0.5, "output_scale": 0.7}
INSIDE = tuple(range(2 - 15, 15 - 15))

CASES = {
    "lstm": Case(LSTMForecasterConfig(**LADDER, residual=False, layer_norm=False), LSTMForecasterTwin),
    "lstm, residual and norm": Case(LSTMForecasterConfig(**LADDER), LSTMForecasterTwin),
    "cnn_lstm": Case(CNNLSTMConfig(**LADDER, channel_dropout=0), CNNLSTMTwin),
    "cnn_lstm, no residual, no norm": Case(
        CNNLSTMConfig(**LADDER, channel_dropout=0, residual=False, layer_norm=False), CNNLSTMTwin
    ),
    "compact": Case(
        CompactForecasterConfig(**SMALL, lags=6, hidden=7, mixing_lags=3, mixing_hidden=4), CompactForecasterTwin
    ),
    "compact, echo": Case(
        CompactForecasterConfig(**SMALL, lags=6, hidden=7, mixing_lags=3, mixing_hidden=4, echo=True),
        CompactForecasterTwin,
    ),
    "seq2seq_lstm": Case(
        Seq2SeqLSTMConfig(**STACK, horizons=6, outputs=4, layers=2), Seq2SeqLSTMTwin, tuple(range(1, 7))
    ),
    "lstm_autoencoder": Case(
        LSTMAutoencoderConfig(**STACK, horizons=6, code=4), LSTMAutoencoderTwin, tuple(range(-5, 1))
    ),
    "spike_count_lstm, poisson": Case(
        SpikeCountLSTMConfig(**STACK, outputs=3), recipe=recipe(loss="poisson"), **COUNTS
    ),
    "spike_count_lstm, mse": Case(SpikeCountLSTMConfig(**STACK, outputs=3, head="mse"), **COUNTS),
    "spike_count_lstm, own past": Case(
        SpikeCountLSTMConfig(**STACK | {"features": 7}, outputs=3, own_hidden=4),
        recipe=recipe(loss="poisson"),
        **COUNTS,
    ),
    # Three variables at least where some are selected: the normalisation of two values leaves little but their signs,
    # and single precision, PyTorch's as well, is then off by more than the bound.
    "tft": Case(
        TemporalFusionTransformerConfig(
            features=8,
            length=6,
            horizons=3,
            outputs=1,
            known=(1, 2, 3),
            static=(4, 5, 6),
            categories=((3, 3), (6, 3)),
            hidden=6,
            heads=2,
            dropout=0,
        ),
        TemporalFusionTransformerTwin,
        (1, 2, 3),
        recipe(loss="pinball"),
        known=(1, 2, 3),
        counts=(3, 6),
    ),
    # Own past, what all are told, and the time step: three.
    "neuron_tft": Case(
        NeuronTFTConfig(features=4, length=6, horizons=3, outputs=3, hidden=6, heads=2, dropout=0),
        NeuronTFTTwin,
        (1, 2, 3),
        recipe(loss="pinball"),
    ),
    "encoder_decoder, tanh and sigmoid": Case(
        EncoderDecoderConfig(**SURROGATE, kernel=4), EncoderDecoderTwin, INSIDE, recipe(loss="mae")
    ),
    "encoder_decoder, prelu": Case(
        EncoderDecoderConfig(
            **SURROGATE,
            kernel=5,
            bias=False,
            encoder_activation="prelu",
            decoder_activation="prelu",
            output_activation="prelu",
        ),
        EncoderDecoderTwin,
        INSIDE,
    ),
    "encoder_decoder, silu": Case(
        EncoderDecoderConfig(
            **SURROGATE,
            kernel=(5, 3),
            stride=(4, 2),
            encoder_activation="silu",
            decoder_activation="silu",
            skip="after_activation",
        ),
        EncoderDecoderTwin,
        INSIDE,
    ),
}
"""By the model's name, and what is special."""


def trained(**changes):
    """The smallest model, trained in a certain way."""
    config = LSTMForecasterConfig(features=3, length=4, horizons=2, hidden=3, layers=1, dropout=0, residual=False)
    return Case(config, LSTMForecasterTwin, recipe=recipe(**changes))


RECIPES = {
    "adam; cosine": trained(
        optimizer=Adam(weight_decay=0, clip_norm=None), warmup_epochs=0, plateau=None, schedule="cosine"
    ),
    "adam, coupled decay; plateau to its floor": trained(
        optimizer=Adam(weight_decay=0.1, clip_norm=None, betas=(0.8, 0.99), eps=1e-4),
        warmup_epochs=0,
        plateau=Plateau(factor=0.1, patience=0, min_lr=1e-3),
    ),
    "adam, coupled decay, clipping; warm-up, plateau": trained(optimizer=Adam(weight_decay=0.1, clip_norm=1.0)),
    "adamw, decoupled decay; plateau with a threshold": trained(
        optimizer=AdamW(weight_decay=0.1, clip_norm=None), warmup_epochs=0, plateau=Plateau(patience=0, threshold=0.2)
    ),
    "adamw, decoupled decay, clipping; warm-up, cosine": trained(
        optimizer=AdamW(weight_decay=0.1, clip_norm=1.0), plateau=None, schedule="cosine"
    ),
}
"""By optimiser and schedule."""
