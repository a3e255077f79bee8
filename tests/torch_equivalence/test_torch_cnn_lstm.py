"""The CNN-LSTM against a PyTorch twin: a training step's forecast, gradients and batch statistics, then evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from twins.forecaster import CNNLSTMTwin

from jneuro.datasets.windows import Batch
from jneuro.models import CNNLSTM, CNNLSTMConfig

CONFIG = CNNLSTMConfig(features=7, length=12, horizons=2, hidden=9, channel_dropout=0, dropout=0)


def torch_names(state):
    """The same arrays under PyTorch's names and in its layouts."""
    names = {}
    for k in range(2):
        convolution, norm = state["convolutions"][k], state["norms"][k]
        names[f"cnn_features.{4 * k}.weight"] = convolution["kernel"][...].transpose(2, 1, 0)
        names[f"cnn_features.{4 * k}.bias"] = convolution["bias"][...]
        names[f"cnn_features.{4 * k + 2}.weight"] = norm["scale"][...]
        names[f"cnn_features.{4 * k + 2}.bias"] = norm["bias"][...]
        for name, value in state["lstm"]["layers"][k].items():
            names[f"lstm.{name}_l{k}"] = value[...].T
    head = state["head"]
    names |= {"layer_norm.weight": head["layer_norm"]["scale"][...], "layer_norm.bias": head["layer_norm"]["bias"][...]}
    for name in ("residual_projection", "output_layer"):
        names |= {f"{name}.weight": head[name]["kernel"][...].T, f"{name}.bias": head[name]["bias"][...]}
    return {name: np.array(value) for name, value in names.items()}


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, 1e-9, 1e-10)


def test_training_step_then_evaluation(x64):
    rng = np.random.default_rng(0)
    inputs, cotangent = rng.normal(size=(4, 12, 7)), rng.normal(size=(4, 2, 7))
    model = CNNLSTM(CONFIG, rngs=nnx.Rngs(0))
    nnx.update(
        model, jax.tree.map(lambda p: np.asarray(p) + 0.1 * rng.normal(size=p.shape), nnx.state(model, nnx.Param))
    )
    nnx.update(model, jax.tree.map(lambda s: jnp.asarray(s, np.float64), nnx.state(model, nnx.BatchStat)))
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    batch = Batch(jnp.asarray(inputs), jnp.asarray(cotangent))

    twin = CNNLSTMTwin(CONFIG).double()
    weights = torch_names(params)
    assert set(weights) == {name for name, _ in twin.named_parameters()}
    twin.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)

    def forecast(params):
        model = nnx.merge(graph, params, rest, copy=True)
        return model(batch, train=True).mean, nnx.state(model, nnx.BatchStat)

    @jax.jit
    def step(params, cotangent):
        mean, pullback, statistics = jax.vjp(forecast, params, has_aux=True)
        return mean, pullback(cotangent)[0], statistics

    mean, grads, statistics = step(params, cotangent)
    expected = twin(torch.from_numpy(inputs))
    expected.backward(torch.from_numpy(cotangent))
    assert_close(mean, expected.detach())
    for name, grad in torch_names(grads).items():
        assert_close(grad, twin.get_parameter(name).grad)
    for k in range(2):
        norm = twin.cnn_features[4 * k + 2]
        assert_close(statistics["norms"][k]["mean"][...], norm.running_mean)
        assert_close(statistics["norms"][k]["var"][...], norm.running_var)

    nnx.update(model, statistics)
    twin.eval()
    assert_close(nnx.jit(lambda model: model(batch, train=False).mean)(model), twin(torch.from_numpy(inputs)).detach())


def test_parameters_in_all():
    twin = CNNLSTMTwin(CNNLSTMConfig())
    assert sum(p.numel() for p in twin.parameters()) == 2_188_168
