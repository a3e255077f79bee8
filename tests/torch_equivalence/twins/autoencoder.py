"""A PyTorch twin of the LSTM autoencoder."""

from torch import nn

__all__ = ["LSTMAutoencoderTwin"]


class LSTMAutoencoderTwin(nn.Module):
    def __init__(self, config):
        super().__init__()
        between = config.dropout if config.layers > 1 else 0.0
        self.length = config.length
        self.encoder = nn.LSTM(config.features, config.code, config.layers, dropout=between, batch_first=True)
        self.decoder = nn.LSTM(config.code, config.hidden, config.layers, dropout=between, batch_first=True)
        self.output_layer = nn.Linear(config.hidden, config.targets)

    def forward(self, inputs, future=None):
        code = self.encoder(inputs)[1][0][-1]
        return self.output_layer(self.decoder(code[:, None].expand(-1, self.length, -1))[0])
