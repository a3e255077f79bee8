"""PyTorch twin of the compact forecaster."""

import torch
from torch import nn
from torch.nn.functional import silu

__all__ = ["CompactForecasterTwin"]


class CompactForecasterTwin(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        hidden, channels, neurons = config.hidden, config.channels, config.features
        self.trunk = nn.ModuleList([nn.Linear(config.lags, hidden), nn.Linear(hidden, hidden)])
        self.head = nn.Linear(hidden, hidden)
        self.output_layer = nn.Linear(hidden, config.horizons)
        if config.mixing:
            width = config.mixing_hidden
            self.message = nn.ModuleList([nn.Linear(config.mixing_lags, width), nn.Linear(width, channels)])
            self.mixing = nn.Parameter(torch.zeros(channels, neurons, neurons))
            self.hearing = nn.Linear(channels, hidden, bias=False)
            if config.echo:
                self.reaction = nn.Linear(width, channels)
                self.answer = nn.Linear(channels, width, bias=False)

    def forward(self, inputs, future=None):
        config = self.config
        own = inputs[:, -config.lags :].transpose(1, 2)
        for layer in self.trunk:
            own = silu(layer(own))
        x = self.head(own)
        if config.mixing:
            first, second = self.message
            message = first(inputs[:, -config.mixing_lags :].transpose(1, 2))
            if config.echo:
                reaction = self.reaction(silu(message))
                message = message + self.answer(torch.einsum("bnc,cmn->bmc", reaction, self.mixing))
            x = x + self.hearing(torch.einsum("bmc,cmn->bnc", second(silu(message)), self.mixing))
        return inputs[:, -1:] + self.output_layer(silu(x)).transpose(1, 2)
