"""Weights to PyTorch's names and layouts and back, bit by bit; and what is refused."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from jneuro.datasets.windows import Batch
from jneuro.interop import WeightsError, from_torch, load_state_dict, save_state_dict, to_torch
from jneuro.models import MODELS, build_model

SIZES = {"features": 3, "length": 4, "hidden": 4}
MODEL_SIZES = {
    "lstm": SIZES,
    "cnn_lstm": SIZES,
    "compact": SIZES | {"lags": 2, "mixing_lags": 2},
    "seq2seq_lstm": SIZES | {"horizons": 4, "outputs": 2},
    "lstm_autoencoder": SIZES | {"horizons": 4, "code": 2},
    "spike_count_lstm": SIZES | {"outputs": 2},
    "tft": SIZES | {"heads": 2, "known": (1,), "static": (2,), "categories": ((1, 3),)},
    "neuron_tft": SIZES | {"outputs": 2, "heads": 2},
    "encoder_decoder": {"length": 8, "horizons": 8, "layers": 2, "filters": 3, "kernel": 4, "crop": (0, 0)}
    | {"encoder_activation": "prelu", "decoder_activation": "prelu"},
}


@functools.cache
def small(name):
    return build_model(MODELS[name](**MODEL_SIZES[name]), rngs=nnx.Rngs(0))


def random_weights(model, dtype):
    """Any bits, such as a file may hold, infinities and numbers that are none among them."""
    bits = np.random.default_rng(0)
    return {
        name: value
        if value.dtype == np.int64
        else np.frombuffer(bits.bytes(value.size * dtype.itemsize), dtype).reshape(value.shape)
        for name, value in to_torch(model).items()
    }


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].shape, a[name].tobytes()) == (b[name].dtype, b[name].shape, b[name].tobytes()), (
            name
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16], ids=["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_every_bit_returns(x64, tmp_path, name, dtype):
    model, weights = small(name), random_weights(small(name), np.dtype(dtype))
    save_state_dict(weights, tmp_path / "weights.pt")
    loaded = from_torch(model, load_state_dict(tmp_path / "weights.pt"))
    assert_same_bits(to_torch(loaded), weights)
    ours = jax.tree.leaves(nnx.state(loaded, nnx.Not(nnx.RngState)))
    assert {leaf.dtype for leaf in ours} == {np.dtype(dtype)}
    assert sum(leaf.size for leaf in ours) == sum(w.size for w in weights.values() if w.dtype == dtype)


def test_names_and_layouts_of_the_public_reference():
    model = small("cnn_lstm")
    weights = to_torch(model)
    expected = {f"cnn_features.{k}.{leaf}" for k in (0, 2, 4, 6) for leaf in ("weight", "bias")}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    expected |= {f"cnn_features.{k}.{leaf}" for k in (2, 6) for leaf in statistics}
    expected |= {f"lstm.{kind}_{part}_l{k}" for kind in ("weight", "bias") for part in ("ih", "hh") for k in (0, 1)}
    layers = ("layer_norm", "residual_projection", "output_layer")
    expected |= {f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}
    assert set(weights) == expected
    kernel = np.asarray(model.convolutions[1].kernel[...])
    assert weights["cnn_features.4.weight"].shape == (4, 4, 5)
    assert weights["cnn_features.4.weight"][3, 1, 2] == kernel[2, 1, 3]
    assert weights["lstm.weight_ih_l0"].shape == (16, 3)
    np.testing.assert_array_equal(weights["output_layer.weight"], np.asarray(model.head.output_layer.kernel[...]).T)


def test_all_that_is_wrong_is_said_at_once():
    model = small("lstm")
    weights = to_torch(model)
    before = to_torch(model)
    del weights["layer_norm.bias"]
    del weights["lstm.bias_ih_l1"]
    weights["extra"] = np.zeros((2, 3), np.float32)
    weights["output_layer.weight"] = np.zeros((4, 3), np.float32)
    weights["output_layer.bias"] = np.zeros(3, np.int32)
    weights["lstm.weight_hh_l0"] = weights["lstm.weight_hh_l0"].astype(np.float64)
    with pytest.raises(WeightsError) as caught:
        from_torch(model, weights)
    (said,) = caught.value.__notes__  # a line has no room for all
    assert said == (
        "the weights do not fit the PyTorch names of LSTMForecaster, so none was loaded; "
        "2 missing: layer_norm.bias [4], lstm.bias_ih_l1 [16]; 1 unknown: extra [2, 3]; "
        "1 of another shape: output_layer.weight is [4, 3], expected [3, 4]; "
        "1 not of floating point: output_layer.bias int32; "
        "1 in double precision, which needs `jax.enable_x64(True)` or a conversion to float32: lstm.weight_hh_l0; "
        "build the model with the configuration that the weights were made with"
    )
    assert len(str(caught.value)) <= 300
    assert str(caught.value).startswith(said[:100])
    assert str(caught.value).endswith(said[-70:])
    assert_same_bits(to_torch(model), before)


def test_a_layer_without_a_known_counterpart_is_refused():
    with pytest.raises(WeightsError, match="no PyTorch layer is known for LinearGeneral"):
        to_torch(nnx.LinearGeneral(2, (3, 4), rngs=nnx.Rngs(0)))


def test_no_memory_is_shared():
    model = small("lstm")
    tensors = {name: torch.from_numpy(value) for name, value in to_torch(model).items()}
    loaded = from_torch(model, tensors)
    before = to_torch(loaded)
    for tensor in tensors.values():
        tensor.zero_()
    assert_same_bits(to_torch(loaded), before)


def test_checkpoints_that_nest_the_state_dict(tmp_path):
    weights = {"a": torch.arange(3.0)}
    for key in ("state_dict", "model_state_dict"):
        torch.save({key: weights, "epoch": 7}, tmp_path / "nested.pt")
        assert list(load_state_dict(tmp_path / "nested.pt")) == ["a"]


def test_the_reference_trainer_s_checkpoints_hold_numbers_of_numpy_beside_the_weights(tmp_path):
    content = {"model_state_dict": {"a": torch.arange(3.0)}, "metrics": {"best_val_loss": np.mean([0.3, 0.2])}}
    torch.save(content | {"epoch": np.int64(7), "rates": [np.float32(0.1)]}, tmp_path / "best.pth")
    np.testing.assert_array_equal(load_state_dict(tmp_path / "best.pth")["a"], [0, 1, 2])


def test_flipped_bits_are_found_where_the_file_has_checksums(tmp_path):
    path, weights = tmp_path / "w.pt", {"a": torch.arange(3000.0), "b": torch.arange(3.0)}
    for checksums in (True, False):
        torch.serialization.set_crc32_options(checksums)
        torch.save(weights, path)
    torch.serialization.set_crc32_options(True)
    assert list(load_state_dict(path)) == ["a", "b"]
    torch.save(weights, path)
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(1500).tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        WeightsError, match=r"\(the checksum of its entry 'w/data/0' does not match; it is a ZIP archive"
    ):
        load_state_dict(path)


@pytest.mark.parametrize("prefix", ["model.", "module.", "_orig_mod.", "module._orig_mod."])
def test_what_all_names_begin_with_is_dropped(prefix):
    model = small("cnn_lstm")
    weights = to_torch(model)
    assert_same_bits(to_torch(from_torch(model, {prefix + name: w for name, w in weights.items()})), weights)
    mixed = {prefix + name: w for name, w in weights.items()} | {"other.weight": np.zeros(2, np.float32)}
    with pytest.raises(WeightsError, match=r"26 missing: .*29 unknown"):
        from_torch(model, mixed)


class Reference(torch.nn.Module):
    """The forecaster of the public reference where the inputs are as many as the hidden units."""

    def __init__(self, size):
        super().__init__()
        self.lstm = torch.nn.LSTM(size, size, 2, batch_first=True)
        self.layer_norm, self.output_layer = torch.nn.LayerNorm(size), torch.nn.Linear(size, size)

    def forward(self, x):
        return self.output_layer(self.layer_norm(self.lstm(x)[0][:, -1]) + x[:, -1])


def test_a_residual_without_a_projection():
    reference, inputs = Reference(4).double(), np.random.default_rng(0).normal(size=(3, 5, 4))
    sizes = {"features": 4, "length": 5, "hidden": 4, "dropout": 0}
    with pytest.raises(WeightsError, match=r"2 missing: residual_projection.*; .* set residual = identity$"):
        from_torch(build_model(MODELS["lstm"](**sizes), rngs=nnx.Rngs(0)), reference.float().state_dict())
    with jax.enable_x64(True):
        made = build_model(MODELS["lstm"](**sizes, residual="identity"), rngs=nnx.Rngs(0))
        model = from_torch(made, reference.double().state_dict())
        found = model(Batch(jnp.asarray(inputs), jnp.zeros((3, 1, 4))), train=False).mean[:, 0]
    np.testing.assert_allclose(found, reference(torch.tensor(inputs)).detach(), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="features = 3 and hidden = 4 must be equal; residual = true projects"):
        MODELS["lstm"](features=3, hidden=4, residual="identity")


class Malicious:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"not a file of PyTorch's", "is not a PyTorch file of plain tensors"),
        ([torch.zeros(2)], "holds no state_dict"),
        ({"epoch": 3}, "holds no state_dict"),
        (Malicious(), "is not a PyTorch file of plain tensors"),
        (
            torch.nn.Linear(2, 2),
            "is not a PyTorch file of plain tensors (it holds torch.nn.modules.linear.Linear); save the module's"
            " state_dict: torch.save(module.state_dict(), path)",
        ),
    ],
    ids=["missing", "garbage", "list", "numbers", "malicious", "module"],
)
def test_other_files_are_refused(tmp_path, capsys, content, message):
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(WeightsError) as caught:
        load_state_dict(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert str(caught.value).isprintable()
    assert capsys.readouterr().out == ""


def test_without_pytorch_the_remedy_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(WeightsError, match=r"pip install 'jneuro\[torch\]'"):
        load_state_dict(tmp_path / "w.pt")
