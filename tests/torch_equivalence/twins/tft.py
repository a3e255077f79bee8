"""The Temporal Fusion Transformer in PyTorch, in the paper's form, and as one for all neurons."""

import torch
from torch import nn
from torch.nn import functional

__all__ = ["NeuronTFTTwin", "TemporalFusionTransformerTwin"]


class GateAddNorm(nn.Module):
    def __init__(self, inputs, outputs, dropout):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(inputs, 2 * outputs)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x, skip):
        return self.norm(skip + functional.glu(self.fc(self.dropout(x))))


class GatedResidualNetwork(nn.Module):
    def __init__(self, inputs, hidden, outputs, dropout, context=False):
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.context = nn.Linear(hidden, hidden, bias=False) if context else None
        self.fc2 = nn.Linear(hidden, hidden)
        self.gate = GateAddNorm(hidden, outputs, dropout)

    def forward(self, x, context=None, skip=None):
        first = self.fc1(x)
        if self.context is not None:
            first = first + self.context(context)[:, None]
        return self.gate(self.fc2(functional.elu(first)), x if skip is None else skip)


class VariableNetworks(nn.Module):
    """One gated residual network for each variable, side by side."""

    def __init__(self, variables, hidden, dropout):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        for name, width in (("fc1", hidden), ("fc2", hidden), ("gate", 2 * hidden)):
            bound = (6 / (hidden + width)) ** 0.5
            kernel = nn.Parameter(torch.empty(variables, hidden, width).uniform_(-bound, bound))
            self.register_parameter(f"{name}_kernel", kernel)
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(variables, width)))
        self.norm_scale = nn.Parameter(torch.ones(variables, hidden))
        self.norm_bias = nn.Parameter(torch.zeros(variables, hidden))

    def forward(self, x):
        def layer(x, kernel, bias):
            return torch.einsum("btvh,vhk->btvk", x, kernel) + bias

        inner = layer(functional.elu(layer(x, self.fc1_kernel, self.fc1_bias)), self.fc2_kernel, self.fc2_bias)
        gated = functional.glu(layer(self.dropout(inner), self.gate_kernel, self.gate_bias))
        return functional.layer_norm(x + gated, x.shape[-1:]) * self.norm_scale + self.norm_bias


class VariableSelection(nn.Module):
    def __init__(self, variables, hidden, dropout, context):
        super().__init__()
        self.networks = VariableNetworks(variables, hidden, dropout)
        if variables > 1:
            self.weights = GatedResidualNetwork(variables * hidden, hidden, variables, dropout, context)
            self.skip = nn.Linear(variables * hidden, variables)

    def forward(self, x, context=None):
        transformed = self.networks(x)
        if x.shape[2] == 1:
            return transformed[:, :, 0]
        flat = x.flatten(2)
        weights = self.weights(flat, context, self.skip(flat)).softmax(-1)
        return (transformed * weights[..., None]).sum(2)


class InputEmbedding(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.categories = nn.ModuleList(nn.Embedding(classes, config.hidden) for _, classes in config.categories)
        self.weight = nn.Parameter(torch.randn(len(config.reals), config.hidden) / config.hidden**0.5)
        self.bias = nn.Parameter(torch.zeros(len(config.reals), config.hidden))
        self.categorical = [column for column, _ in config.categories]
        self.reals = config.reals

    def forward(self, values, columns):
        categorical = [k for k, column in enumerate(columns) if column in self.categorical]
        real = [k for k, column in enumerate(columns) if column in self.reals]
        rows = [self.reals.index(columns[k]) for k in real]
        tables = [self.categories[self.categorical.index(columns[k])] for k in categorical]
        looked_up = [table(values[..., k].long()) for table, k in zip(tables, categorical, strict=True)]
        affine = values[..., real, None] * self.weight[rows] + self.bias[rows]
        return torch.cat([*(x[:, :, None] for x in looked_up), affine], 2)


class InterpretableAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, size = config.heads, config.hidden // config.heads
        self.query = nn.Linear(config.hidden, config.hidden, bias=False)
        self.key = nn.Linear(config.hidden, config.hidden, bias=False)
        self.value = nn.Linear(config.hidden, size, bias=False)
        self.output = nn.Linear(size, config.hidden, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, length):
        query = self.query(x[:, length:]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key = self.key(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        later = torch.ones(scores.shape[2:], dtype=torch.bool, device=x.device).triu(length + 1)
        attention = scores.masked_fill(later, -torch.inf).softmax(-1)
        return self.dropout(self.output(attention.mean(1) @ self.value(x)))


class TemporalFusionTransformerTwin(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        hidden, dropout, static = config.hidden, config.dropout, bool(config.static)
        between = dropout if config.layers > 1 else 0.0
        self.embedding = InputEmbedding(config)
        if static:
            self.static_selection = VariableSelection(len(config.static), hidden, dropout, context=False)
        self.past_selection = VariableSelection(len(config.past_variables), hidden, dropout, context=static)
        if config.known:
            self.future_selection = VariableSelection(len(config.known), hidden, dropout, context=static)
        names = ("selection", "enrichment", "hidden", "cell") if static else ()
        self.contexts = nn.ModuleDict({n: GatedResidualNetwork(hidden, hidden, hidden, dropout) for n in names})
        self.encoder = nn.LSTM(hidden, hidden, config.layers, dropout=between, batch_first=True)
        self.decoder = nn.LSTM(hidden, hidden, config.layers, dropout=between, batch_first=True)
        self.lstm_gate = GateAddNorm(hidden, hidden, dropout)
        self.enrichment = GatedResidualNetwork(hidden, hidden, hidden, dropout, static)
        self.attention = InterpretableAttention(config)
        self.attention_gate = GateAddNorm(hidden, hidden, dropout)
        self.feed_forward = GatedResidualNetwork(hidden, hidden, hidden, dropout)
        self.output_gate = GateAddNorm(hidden, hidden, 0.0)
        self.output_layer = nn.Linear(hidden, config.targets * len(config.quantiles))

    def forward(self, inputs, future=None):
        config, length = self.config, self.config.length
        context, initial = {}, None
        if config.static:
            columns = config.static_variables
            static = self.static_selection(self.embedding(inputs[:, :1, columns], columns))[:, 0]
            context = {name: net(static) for name, net in self.contexts.items()}
            initial = tuple(context[n].expand(config.layers, -1, -1).contiguous() for n in ("hidden", "cell"))
        columns = config.past_variables
        past = self.past_selection(self.embedding(inputs[:, :, columns], columns), context.get("selection"))
        ahead = past.new_zeros(len(past), config.horizons, config.hidden)
        if config.known:
            columns = config.future_variables
            values = future[:, :, [config.known.index(column) for column in columns]]
            ahead = self.future_selection(self.embedding(values, columns), context.get("selection"))
        encoded, state = self.encoder(past, initial)
        decoded, _ = self.decoder(ahead, state)
        local = self.lstm_gate(torch.cat([encoded, decoded], 1), torch.cat([past, ahead], 1))
        enriched = self.enrichment(local, context.get("enrichment"))
        x = self.attention_gate(self.attention(enriched, length), enriched[:, length:])
        x = self.output_gate(self.feed_forward(x), local[:, length:])
        return self.output_layer(x).unflatten(-1, (config.targets, len(config.quantiles)))


class NeuronTFTTwin(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.network = TemporalFusionTransformerTwin(config.one_series())

    def forward(self, inputs, future=None):
        (count, length, _), config = inputs.shape, self.config
        steps = torch.arange(1 - length, config.horizons + 1, dtype=inputs.dtype)[:, None] / length
        series = []
        for neuron in range(config.targets):
            number = torch.full((count, length, 1), neuron, dtype=inputs.dtype)
            own, told = inputs[..., neuron, None], inputs[..., config.targets :]
            series.append(torch.cat([own, told, steps[:length].expand(count, -1, -1), number], 2))
        ahead = steps[length:].expand(count * config.targets, -1, -1)
        found = self.network(torch.stack(series, 1).flatten(0, 1), ahead)[:, :, 0]
        return found.unflatten(0, (count, config.targets)).movedim(1, 2)
