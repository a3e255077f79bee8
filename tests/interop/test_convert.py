"""`jneuro convert` and the weights folder."""

import json
import os
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import jneuro.cli
from jneuro.datasets.windows import Scaling
from jneuro.experiment import RunFolder
from jneuro.experiment.conversion import convert
from jneuro.experiment.plan import load_plan
from jneuro.interop import WeightsError, load_scaling, load_weights, save_weights, to_torch
from jneuro.models import (
    CNNLSTM,
    CNNLSTMConfig,
    CompactForecaster,
    CompactForecasterConfig,
    EncoderDecoderConfig,
    build_model,
)
from jneuro.training import load_best

CONFIG = CNNLSTMConfig(features=3, length=4, hidden=4)
EXPERIMENT = """\
name: tiny
simulation: {simulator: {name: brunel, n_excitatory: 16, n_inhibitory: 4}, runs: 5, duration_ms: 400}
windows: {discard_ms: 50, length_ms: 20, stride_ms: 5, fractions: {train: 0.6, validation: 0.2, test: 0.2}}
models: {small: {model: {name: compact, lags: 4, hidden: 3}}}
train: {batch_size: 8}
evaluate: {ceiling: null, baselines: [persistence, {name: ar, order: 3}, {name: var, order: 2}, lookup]}
"""


@pytest.fixture(scope="module")
def model():
    """A model whose batch statistics are not those it starts with."""
    model = CNNLSTM(CONFIG, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)
    nnx.update(
        model, jax.tree.map(lambda x: x + draw.uniform(1, 2, x.shape).astype(x.dtype), nnx.state(model, nnx.BatchStat))
    )
    return model


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_same(a, b):
    a, b = to_torch(a), to_torch(b)
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].tobytes()) == (b[name].dtype, b[name].tobytes()), name


def test_a_weights_folder_needs_nothing_else(here, model):
    save_weights(model, "w")
    assert sorted(os.listdir(here)) == ["w"]
    loaded = load_weights("w")
    assert loaded.config == CONFIG
    assert_same(loaded, model)
    assert_same(load_best(CNNLSTM(CONFIG, rngs=nnx.Rngs(7)), "w/checkpoints"), model)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"name": "subprocess:check_output", "args": ["touch", "executed"]},
            "is code, which no weights folder may name",
        ),
        ({"name": "evil:Model"}, "is code, which no weights folder may name; build the model and read its weights by"),
        ({"hidden": 40}, "of another shape: .*; build the model with the configuration that the weights were"),
        ({"hidden": 10**9}, "1000000000 is no size of a model whose weights are 511 numbers; build the model with"),
        ({"hidden": None}, "model.json: hidden: "),
        ([[]], "model.json: .* name must be|model.json: "),
    ],
)
def test_a_weights_folder_can_name_no_code_and_no_other_size(here, model, changed, said):
    save_weights(model, "w")
    (here / "evil.py").write_text("open('executed', 'w')\n")
    config = here / "w" / "model.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | changed if isinstance(changed, dict) else changed))
    with pytest.raises(WeightsError, match=said) as caught:
        load_weights("w")
    assert len(str(caught.value)) <= 300
    assert str(caught.value).isprintable()
    assert not (here / "executed").exists()


def test_a_weights_folder_may_know_its_scaling(here, model):
    rows = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32) ** 2
    save_weights(model, "w", scaling=Scaling(*map(jnp.asarray, rows)))
    scaling = load_scaling("w")
    np.testing.assert_array_equal([scaling.mean, scaling.scale], rows)
    assert_same(load_weights("w"), model)
    save_weights(model, "v")
    with pytest.raises(
        WeightsError, match=r"v: scaling\.json cannot be read .*; save it by save_weights\(model, path, sc"
    ):
        load_scaling("v")


def test_there_and_back(here, model):
    save_weights(model, "w")
    convert(here / "w", here / "deep" / "w.pt")
    content = torch.load("deep/w.pt", weights_only=True)
    assert {name: tuple(t.shape) for name, t in content.items()} == {n: a.shape for n, a in to_torch(model).items()}
    convert(here / "deep" / "w.pt", here / "again", model="w/model.json")
    assert_same(load_weights("again"), model)


def test_double_precision_is_kept(here, model):
    weights = {name: torch.from_numpy(a).double() + 1e-12 for name, a in to_torch(model).items()}
    torch.save({"state_dict": weights}, "w.ckpt")
    (here / "model.json").write_text(json.dumps(CONFIG.model_dump(mode="json")))
    convert(here / "w.ckpt", here / "w", model="model.json")
    convert(here / "w", here / "w.pt")
    content = torch.load("w.pt", weights_only=True)
    assert all(torch.equal(content[name], t) for name, t in weights.items() if "num_batches" not in name)
    with pytest.raises(WeightsError, match=r"in double precision, which needs `jax\.enable_x64"):
        load_weights("w")


def test_a_run_s_model(here):
    (here / "tiny.yaml").write_text(EXPERIMENT)
    plan = load_plan(here / "tiny.yaml")
    folder, trained = RunFolder.prepare(plan, here / "run"), here / "run" / "models" / "small"
    model = build_model(plan.config.models["small"].model, rngs=nnx.Rngs(5))
    save_weights(model, "w")
    with folder.stage(plan.trainings[0].stage):
        trained.mkdir(parents=True)
        shutil.move("w/checkpoints", trained / "checkpoints")
    convert(trained, here / "w.pt")
    convert(here / "w.pt", here / "again", model="tiny.yaml:small")
    loaded = load_weights("again")
    assert isinstance(loaded, CompactForecaster)
    assert (loaded.config.features, loaded.config.length) == (20, 20)
    assert_same(loaded, model)


def test_keras_files(here):
    config = EncoderDecoderConfig(length=8, horizons=6, layers=2, filters=3, kernel=4, crop=(1, 1), formulation="lax")
    model = build_model(config, rngs=nnx.Rngs(0))
    save_weights(model, "w")
    convert(here / "w", here / "k.json")
    assert (here / "k.h5").exists()
    convert(here / "k.json", here / "again", model="w/model.json")
    assert load_weights("again").config == config
    assert_same(load_weights("again"), model)


def test_a_keras_file_that_leaves_the_length_open(here, monkeypatch, capsys):
    config = EncoderDecoderConfig(length=8, horizons=6, layers=2, filters=3, kernel=4, crop=(1, 1))
    model = build_model(config, rngs=nnx.Rngs(0))
    save_weights(model, "w")
    convert(here / "w", here / "k.json")
    (here / "k.json").write_text((here / "k.json").read_text().replace("[null, 8, 1]", "[null, null, 1]"))
    code, _, said = call(monkeypatch, capsys, "k.json", "v")
    assert code == 2
    assert "give `length` (--length)" in said
    assert call(monkeypatch, capsys, "k.json", "v", "--length", "16")[0] == 0
    loaded = load_weights("v")
    assert (loaded.config.length, loaded.config.horizons) == (16, 14)
    assert_same(loaded, model)


def test_a_target_is_replaced_whole_and_only_on_request(here, model):
    save_weights(model, "w")
    other = CompactForecaster(CompactForecasterConfig(features=2, length=3, lags=2, mixing_lags=2), rngs=nnx.Rngs(0))
    with pytest.raises(WeightsError, match="exists already"):
        save_weights(other, "w")
    assert_same(load_weights("w"), model)
    save_weights(other, "w", overwrite=True)
    assert_same(load_weights("w"), other)
    assert os.listdir(here) == ["w"]


def test_nothing_is_left_of_a_write_that_fails(here, model, monkeypatch):
    save_weights(model, "w")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jneuro.training.checkpoints.CheckpointStore.save", fail)
    with pytest.raises(OSError, match="No space"):
        save_weights(model, "w", overwrite=True)
    with pytest.raises(OSError, match="No space"):
        save_weights(model, "v")
    assert os.listdir(here) == ["w"]
    assert_same(load_weights("w"), model)


def call(monkeypatch, capsys, *arguments):
    """Run the command; its exit code, and what it says on both channels."""
    monkeypatch.setattr(jneuro.cli, "keep_freed_memory", lambda: False)
    monkeypatch.setattr(jneuro.cli, "heed_signals", lambda: None)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "argv", ["jneuro", "convert", *arguments])
    with pytest.raises(SystemExit) as caught:
        jneuro.cli.main()
    return caught.value.code or 0, *capsys.readouterr()


def test_the_command(here, model, monkeypatch, capsys):
    save_weights(model, "w")
    assert call(monkeypatch, capsys, "w", "w.pt") == (0, "CNNLSTM in w.pt\n", "")
    assert call(monkeypatch, capsys, "w.pt", "v", "--model", "w/model.json") == (0, "CNNLSTM in v\n", "")
    assert_same(load_weights("v"), model)


MISTAKES = {
    "no source": (["x", "y"], "x: not a weights folder, model.json cannot be read"),
    "no file": (["x.pt", "y"], "x.pt: cannot be read (No such file or directory)"),
    "no model": (["w.pt", "y"], "w.pt: a state_dict does not say which model it is of; give --model FILE"),
    "no such model file": (["w.pt", "y", "--model", "z.yaml"], "z.yaml: cannot be read"),
    "unknown key": (["w.pt", "y", "--model", "typo.yaml"], "unknown key 'hiden'; did you mean 'hidden'?"),
    "unknown model": (["w.pt", "y", "--model", "name.yaml"], "name.yaml: "),
    "an experiment": (["w.pt", "y", "--model", "e.yaml"], "e.yaml: is an experiment; name one of its models, such as"),
    "no such name": (["w.pt", "y", "--model", "e.yaml:smal"], "unknown model 'smal'; did you mean 'small'?"),
    "other sizes": (
        ["w.pt", "y", "--model", "other.yaml"],
        "of another shape: output_layer.bias is [3], expected [5]",
    ),
    "needless model": (["w", "y", "--model", "other.yaml"], "w has its own configuration, leave it out"),
    "needless length": (["w", "y", "--length", "3"], "--length is for Keras files without --model"),
    "taken": (["w", "taken.pt"], "taken.pt: exists already; choose another target, or replace it with --overwrite"),
    "a foreign folder": (["w", "folder", "--overwrite"], "folder: is a folder of something else"),
    "not for Keras": (["w", "y.json"], "only encoder_decoder models go into Keras files"),
    "not pytorch-forecasting's": (["w", "y.pt", "--columns", "a,b"], "must be a tft with compat: pytorch_forecasting"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message_and_writes_nothing(here, model, monkeypatch, capsys, case):
    save_weights(model, "w")
    torch.save({n: torch.from_numpy(a) for n, a in to_torch(model).items()}, "w.pt")
    shutil.copy("w.pt", "taken.pt")
    (here / "folder").mkdir()
    (here / "e.yaml").write_text(EXPERIMENT)
    (here / "typo.yaml").write_text("{name: cnn_lstm, hiden: 4}")
    (here / "name.yaml").write_text("{name: cnn_lstn}")
    (here / "other.yaml").write_text("{name: cnn_lstm, features: 5, length: 4, hidden: 4}")
    before = sorted(os.listdir(here))
    arguments, expected = MISTAKES[case]
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert expected in err
    assert sorted(os.listdir(here)) == before


def test_a_model_without_a_configuration_cannot_be_rebuilt(tmp_path):
    with pytest.raises(
        WeightsError, match=r"Linear has no configuration to be rebuilt from; .* jneuro\.training\.load_best"
    ):
        save_weights(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), tmp_path / "w")
    assert not (tmp_path / "w").exists()
