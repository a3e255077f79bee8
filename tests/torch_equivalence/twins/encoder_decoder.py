"""The convolutional encoder–decoder in PyTorch."""

import torch
from torch import nn

__all__ = ["EncoderDecoderTwin"]

ACTIVATIONS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": nn.functional.silu,
    "relu": torch.relu,
    "none": lambda x: x,
}


class EncoderDecoderTwin(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, sizes = config, config.sizes
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        channels = config.features
        for size in sizes:
            padding = max(size.kernel - size.stride, 0) // 2
            self.encoder.append(
                nn.Conv1d(channels, size.filters, size.kernel, size.stride, padding=padding, bias=config.bias)
            )
            channels = size.filters
        for k, size in enumerate(reversed(sizes)):
            outputs = config.targets if k == len(sizes) - 1 else sizes[-2 - k].filters
            self.decoder.append(
                nn.ConvTranspose1d(
                    size.filters * (1 if k == 0 else 2),
                    outputs,
                    size.kernel,
                    size.stride,
                    padding=max(size.kernel - size.stride, 0) // 2,
                    output_padding=max(size.stride - size.kernel, 0),
                    bias=config.bias,
                )
            )
        if config.encoder_activation == "prelu":
            self.encoder_prelu = nn.ModuleList(nn.PReLU(size.filters, init=0.0) for size in sizes)
        if config.decoder_activation == "prelu":
            self.decoder_prelu = nn.ModuleList(nn.PReLU(size.filters, init=0.0) for size in sizes[-2::-1])
        if config.output_activation == "prelu":
            self.output_prelu = nn.PReLU(config.targets, init=0.0)

    def activate(self, part, layer, x):
        name = getattr(self.config, f"{part}_activation")
        if name != "prelu":
            return ACTIVATIONS[name](x)
        slopes = getattr(self, f"{part}_prelu")
        return (slopes if layer is None else slopes[layer])(x)

    def forward(self, inputs, future=None):
        config = self.config
        x = inputs.transpose(1, 2) * config.input_scale
        skips = []
        for k, (layer, size) in enumerate(zip(self.encoder, config.sizes, strict=True)):
            if size.kernel > size.stride and (size.kernel - size.stride) % 2:
                x = nn.functional.pad(x, (0, 1))  # TensorFlow pads the odd sample on the right
            convolved = layer(x)
            x = self.activate("encoder", k, convolved)
            skips.append(convolved if config.skip == "before_activation" else x)
        for k, (layer, size) in enumerate(zip(self.decoder, reversed(config.sizes), strict=True)):
            if k:
                x = torch.cat([self.activate("decoder", k - 1, x), skips[-1 - k]], dim=1)
            x = layer(x)[..., : x.shape[-1] * size.stride]
        x = self.activate("output", None, x)[..., config.crop[0] : config.length - config.crop[1]]
        return x.transpose(1, 2) / config.output_scale
