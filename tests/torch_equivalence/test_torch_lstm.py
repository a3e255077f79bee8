"""Our stacked LSTM against `torch.nn.LSTM`: outputs, final states and every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jneuro.models import LSTM

BATCH, TIME, FEATURES, HIDDEN, LAYERS = 3, 20, 5, 8, 2
NAMES = "weight_ih", "weight_hh", "bias_ih", "bias_hh"


def run_torch(stack, inputs, initial, cotangents):
    twin = torch.nn.LSTM(FEATURES, HIDDEN, LAYERS, batch_first=True, dtype=torch.from_numpy(inputs).dtype)
    with torch.no_grad():
        for k, layer in enumerate(stack.layers):
            for name in NAMES:
                getattr(twin, f"{name}_l{k}").copy_(torch.from_numpy(np.array(getattr(layer, name)[...]).T))
    x, h, c = (torch.from_numpy(a).requires_grad_() for a in (inputs, *initial))
    outputs, (h_last, c_last) = twin(x, (h, c))
    torch.autograd.backward((outputs, h_last, c_last), tuple(map(torch.from_numpy, cotangents)))
    weights = [[getattr(twin, f"{name}_l{k}").grad.numpy().T for name in NAMES] for k in range(LAYERS)]
    return [t.detach().numpy() for t in (outputs, h_last, c_last)], weights, [t.grad for t in (x, h, c)]


def run_ours(stack, inputs, initial, cotangents):
    graph, params, rest = nnx.split(stack, nnx.Param, ...)

    def run(params, x, h, c):
        outputs, states = nnx.merge(graph, params, rest)(x, list(zip(h, c, strict=True)), train=False)
        return outputs, *(jnp.stack(s) for s in zip(*states, strict=True))

    @jax.jit
    def values_and_gradients(arguments, cotangents):
        values, pullback = jax.vjp(run, *arguments)
        return values, pullback(cotangents)

    values, (grads, *others) = values_and_gradients((params, inputs, *initial), cotangents)
    return values, [[grads["layers"][k][name][...] for name in NAMES] for k in range(LAYERS)], others


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-4)], ids=["float64", "float32"])
def test_values_and_gradients(x64, dtype, tolerance):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(BATCH, TIME, FEATURES)).astype(dtype)
    initial = rng.normal(size=(2, LAYERS, BATCH, HIDDEN)).astype(dtype)
    cotangents = rng.normal(size=(BATCH, TIME, HIDDEN)).astype(dtype), *rng.normal(size=initial.shape).astype(dtype)
    stack = LSTM(FEATURES, HIDDEN, LAYERS, rngs=nnx.Rngs(0))
    nnx.update(stack, jax.tree.map(lambda p: np.asarray(p, dtype), nnx.state(stack, nnx.Param)))
    ours, theirs = (run(stack, inputs, initial, cotangents) for run in (run_ours, run_torch))
    assert ours[0][0].dtype == dtype
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, tolerance, tolerance)
