"""A PyTorch twin of the sequence-to-sequence LSTM, and its rollout."""

import torch
from torch import nn

__all__ = ["Seq2SeqLSTMTwin", "rollout"]


class Seq2SeqLSTMTwin(nn.Module):
    def __init__(self, config):
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0
        self.reverse = config.order == "reverse"
        self.residual = config.residual
        self.lstm = nn.LSTM(config.features, config.hidden, config.layers, dropout=between, batch_first=True)
        self.output_layer = nn.Linear(config.hidden, config.targets)

    def forward(self, inputs, future=None):
        outputs = self.output_layer(self.lstm(torch.flip(inputs, [1]) if self.reverse else inputs)[0])
        if self.residual:
            outputs = outputs + inputs[:, -1:, : outputs.shape[2]]
        return outputs


@torch.no_grad()
def rollout(model, inputs, driving, steps):
    """Feed predictions, followed by the known columns, back into a model whose horizon is its window."""
    horizon = inputs.shape[1]
    predictions = []
    for start in range(0, steps, horizon):
        predictions.append(model(inputs))
        if start + horizon < steps:
            inputs = torch.cat([predictions[-1], driving[:, start : start + horizon]], dim=2)
    return torch.cat(predictions, dim=1)[:, :steps]
