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
        self.own, self.variables = None, config.features // config.targets
        if config.own_hidden:
            first = nn.Linear(self.variables * config.length, config.own_hidden)
            self.own = nn.ModuleList([first, nn.Linear(config.own_hidden, config.horizons)])

    def forward(self, inputs, future=None):
        mean = self.output_layer(self.lstm(inputs)[0][:, -1]).reshape(self.shape)
        if self.own is not None:
            first, last = self.own
            neurons = self.shape[2]
            # [batch, time, variable and neuron] -> [batch, neuron, variable and time]
            own = inputs[..., : self.variables * neurons].unflatten(-1, (self.variables, neurons))
            mean = mean + last(functional.silu(first(own.permute(0, 3, 2, 1).flatten(2)))).transpose(1, 2)
        return functional.softplus(mean, threshold=50) + 1e-6 if self.poisson else mean
