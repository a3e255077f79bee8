"""PyTorch twins of the LSTM forecaster and the CNN-LSTM, with the public reference's parameter names."""

from torch import nn

__all__ = ["CNNLSTMTwin", "LSTMForecasterTwin"]


class Forecaster(nn.Module):
    """An LSTM, and the head that maps its last hidden state and last input to all horizons."""

    def __init__(self, config, *, residual, layer_norm):
        super().__init__()
        self.shape = -1, config.horizons, config.targets
        between = config.dropout if config.layers > 1 else 0.0
        self.lstm = nn.LSTM(config.features, config.hidden, config.layers, dropout=between, batch_first=True)
        self.layer_norm = nn.LayerNorm(config.hidden) if layer_norm else nn.Identity()
        self.residual_projection = nn.Linear(config.features, config.hidden) if residual else None
        self.dropout = nn.Dropout(config.dropout)
        self.output_layer = nn.Linear(config.hidden, config.horizons * config.targets)

    def forecast(self, inputs):
        state = self.layer_norm(self.lstm(inputs)[0][:, -1])
        if self.residual_projection is not None:
            state = state + self.residual_projection(inputs[:, -1])
        return self.output_layer(self.dropout(state)).reshape(self.shape)


class LSTMForecasterTwin(Forecaster):
    def __init__(self, config):
        super().__init__(config, residual=config.residual, layer_norm=config.layer_norm)

    def forward(self, inputs, future=None):
        return self.forecast(inputs)


class CNNLSTMTwin(Forecaster):
    def __init__(self, config):
        super().__init__(config, residual=config.residual, layer_norm=config.layer_norm)
        blocks = []
        for kernel in config.kernels:
            convolution = nn.Conv1d(config.length, config.length, kernel, padding="same")
            blocks += [convolution, nn.ReLU(), nn.BatchNorm1d(config.length), nn.Dropout1d(config.channel_dropout)]
        self.cnn_features = nn.Sequential(*blocks)

    def forward(self, inputs, future=None):
        return self.forecast(inputs + self.cnn_features(inputs))
