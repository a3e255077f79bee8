"""A PyTorch twin of the spike-count LSTM."""

from torch import nn
from torch.nn import functional

__all__ = ["SpikeCountLSTMTwin"]


class SpikeCountLSTMTwin(nn.Module):
    def __init__(self, config):
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0
        self.shape = -1, config.horizons, config.targets
        self.poisson = config.head == "poisson"
        self.lstm = nn.LSTM(config.features, config.hidden, config.layers, dropout=between, batch_first=True)
        self.output_layer = nn.Linear(config.hidden, config.horizons * config.targets)

    def forward(self, inputs, future=None):
        mean = self.output_layer(self.lstm(inputs)[0][:, -1]).reshape(self.shape)
        return functional.softplus(mean, threshold=50) + 1e-6 if self.poisson else mean
