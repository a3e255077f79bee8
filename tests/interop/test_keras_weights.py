"""Networks that Keras 2 wrote, in tests/reference/keras.npz, and files that Keras 2 is to read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest
from flax import nnx

from jneuro.datasets.windows import Batch
from jneuro.interop import WeightsError, load_keras, save_keras
from jneuro.models import EncoderDecoder, EncoderDecoderConfig

ROOT = Path(__file__).parents[2]
REFERENCE = np.load(ROOT / "tests" / "reference" / "keras.npz")
SETTINGS = json.loads(str(REFERENCE["settings"]))
KERAS = ROOT / ".peers" / "keras"

# What the JSON of each network says; the first differs from the published surrogate in its sizes alone.
COMMON = {"layers": 3, "skip": "before_activation", "input_scale": 1.0, "output_scale": 1.0}
CONFIGS = {
    "hodgkin_huxley": EncoderDecoderConfig(**COMMON, outputs=1, length=64, horizons=52, filters=6, crop=(8, 4)),
    "nerve": EncoderDecoderConfig(
        **COMMON,
        **{f"{part}_activation": "prelu" for part in ("encoder", "decoder", "output")},
        outputs=1,
        length=32,
        horizons=24,
        filters=(4, 5, 6),
        kernel=8,
        bias=False,
        crop=(4, 4),
    ),
    "cochlea": EncoderDecoderConfig(
        **COMMON | {"layers": 2},
        **{f"{part}_activation": "tanh" for part in ("encoder", "decoder", "output")},
        outputs=5,
        length=32,
        horizons=24,
        filters=4,
        kernel=8,
        bias=False,
        crop=(4, 4),
    ),
    "uneven": EncoderDecoderConfig(
        **COMMON | {"skip": "after_activation"},
        features=2,
        outputs=3,
        length=48,
        horizons=48,
        filters=(3, 4, 5),
        kernel=(7, 5, 2),
        stride=(3, 4, 2),
        encoder_activation="sigmoid",
        decoder_activation="silu",
        output_activation="relu",
        crop=(0, 0),
    ),
}
# Their JSON leaves the length of the window open.
LENGTH = {"nerve": 32, "cochlea": 32}
all_cases = pytest.mark.parametrize("name", CONFIGS)


def test_every_network_of_the_reference_is_tested():
    assert SETTINGS["cases"] == list(CONFIGS)


@pytest.fixture
def files(tmp_path):
    """Write the files of a network; return their paths."""

    def write(name):
        paths = tmp_path / f"{name}.json", tmp_path / f"{name}.h5"
        for path, kind in zip(paths, ("json", "weights"), strict=True):
            path.write_bytes(REFERENCE[f"{name}_{kind}"].tobytes())
        return paths

    return write


def parameters(model):
    return {path: np.asarray(value[...]) for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def assert_same(model, other):
    ours, theirs = parameters(model), parameters(other)
    assert model.config == other.config
    assert ours.keys() == theirs.keys()
    for path, value in ours.items():
        assert np.array_equal(value, theirs[path]), path


def answer(model, inputs):
    """What a model says of inputs `[batch, time, channel]`; one of a single channel is asked for each."""
    wide = inputs.shape[2] if model.config.features == 1 else 1
    folded = inputs.swapaxes(1, 2).reshape(-1, inputs.shape[1], 1) if wide > 1 else inputs
    mean = jax.jit(lambda x: model(Batch(x, None, None), train=False).mean)(folded)
    return np.asarray(mean).reshape(len(inputs), wide, -1).swapaxes(1, 2) if wide > 1 else np.asarray(mean)


@all_cases
def test_outputs_are_those_of_keras(files, name):
    model = load_keras(*files(name), length=LENGTH.get(name))
    assert model.config == CONFIGS[name]
    outputs = REFERENCE[f"{name}_outputs"]
    assert outputs.std() > 0.1
    np.testing.assert_allclose(answer(model, REFERENCE[f"{name}_inputs"]), outputs, rtol=1e-5, atol=1e-5)


def test_scales_are_the_callers(files):
    inputs, outputs = (REFERENCE[f"cochlea_{kind}"] for kind in ("inputs", "outputs"))
    model = load_keras(*files("cochlea"), length=32, input_scale=1e-3, output_scale=1e-2)
    np.testing.assert_allclose(answer(model, inputs * 1e3), outputs * 1e2, rtol=1e-4, atol=1e-3)


@all_cases
@pytest.mark.parametrize("keep", [False, True], ids=["own layout", "the file's layout"])
def test_saved_and_loaded_again_nothing_changes(files, tmp_path, name, keep):
    json_path, weights_path = files(name)
    model = load_keras(json_path, weights_path, length=LENGTH.get(name), input_scale=2.0)
    saved = tmp_path / "saved.json", tmp_path / "saved.h5"
    save_keras(model, *saved, like=json_path if keep else None)
    assert_same(model, load_keras(*saved, length=model.config.length, input_scale=2.0))
    if keep:
        assert saved[0].read_bytes() == json_path.read_bytes()
        theirs, ours = ({n: v[()] for n, v in datasets(path).items()} for path in (weights_path, saved[1]))
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert np.array_equal(ours[key], value), key


def datasets(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def test_a_whole_model_in_one_file(files, tmp_path):
    whole = tmp_path / "whole.h5"
    whole.write_bytes(REFERENCE["uneven_whole"].tobytes())
    json_path, weights_path = files("uneven")
    model = load_keras(json_path, weights_path)
    assert_same(load_keras(whole), model)
    assert_same(load_keras(json_path, whole), model)
    with pytest.raises(WeightsError, match=r"uneven\.h5: holds weights alone; name the JSON"):
        load_keras(weights_path)


def test_layers_are_found_by_position_whatever_their_names(files):
    # Keras counts layers anew in every session; one of this network's is frozen, and so comes last.
    json_path, weights_path = files("nerve")
    model = load_keras(json_path, weights_path, length=32)
    with h5py.File(weights_path, "r+") as file:
        group = file["model"]
        names = list(group.attrs["weight_names"])
        renamed = [f"another_{len(names) - k}/{name.rpartition('/')[2]}" for k, name in enumerate(names)]
        for name, new in zip(names, renamed, strict=True):
            group.move(name, new)
        group.attrs["weight_names"] = renamed
    assert_same(load_keras(json_path, weights_path, length=32), model)


@pytest.mark.parametrize(
    "config",
    [
        EncoderDecoderConfig(layers=1, length=8, horizons=8, filters=3, crop=(0, 0), decoder_activation="none"),
        EncoderDecoderConfig(
            layers=2, length=16, horizons=12, features=2, crop=(1, 3), filters=(2, 3), encoder_activation="silu",
            decoder_activation="prelu", output_activation="sigmoid", skip="after_activation", bias=False,
        ),
        # Nothing tells after from before an activation that is none.
        EncoderDecoderConfig(
            layers=3, length=8, horizons=8, filters=2, crop=(0, 0), encoder_activation="none", skip="after_activation"
        ),
    ],
)  # fmt: skip
def test_models_of_our_own(config, tmp_path):
    model = EncoderDecoder(config, rngs=nnx.Rngs(3))
    saved = tmp_path / "model.json", tmp_path / "model.h5"
    save_keras(model, *saved)
    loaded = load_keras(*saved, input_scale=config.input_scale, output_scale=config.output_scale)
    skip = "before_activation" if config.encoder_activation == "none" else config.skip
    assert loaded.config == config.model_copy(update={"outputs": config.targets, "skip": skip})
    ours, theirs = parameters(model), parameters(loaded)
    assert all(np.array_equal(ours[path], theirs[path]) for path in ours | theirs)
    with pytest.raises(WeightsError, match="exists already"):
        save_keras(model, *saved)


def test_keras_reads_our_files(files, tmp_path):
    python = KERAS / "bin" / "python"
    if not python.exists():
        pytest.skip("tf_keras is not installed: make peers")
    folder = tmp_path / "ours"
    folder.mkdir()
    expected = {}
    for name in CONFIGS:
        json_path, weights_path = files(name)
        model = load_keras(json_path, weights_path, length=LENGTH.get(name))
        for layout, like in (("kept", json_path), ("own", None)):
            path = folder / f"{name}_{layout}"
            save_keras(model, path.with_suffix(".json"), path.with_suffix(".h5"), like=like)
            inputs = REFERENCE[f"{name}_inputs"]
            np.save(path.with_suffix(".npy"), inputs if like else inputs[..., : model.config.features])
            expected[path] = REFERENCE[f"{name}_outputs"][..., : None if like else model.config.targets]
    program = ROOT / "benchmarks" / "peers" / "keras_reference.py"
    done = subprocess.run(
        [python, program, "--check", folder],
        capture_output=True,
        text=True,
        timeout=180,
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
    )
    assert done.returncode == 0, done.stderr
    for path, outputs in expected.items():
        answered = np.load(path.with_suffix(".out.npy"))
        np.testing.assert_allclose(answered, outputs, rtol=1e-5, atol=1e-5, err_msg=path.name)


# Errors: (network, layer, options of it to change, what is said).
LAYERS = [
    ("hodgkin_huxley", "down_1", {"padding": "valid"}, "'encoder/down_1' (Conv1D) has padding = 'valid'; supported is"),
    ("hodgkin_huxley", "down_1", {"dilation_rate": [2]}, "has dilation_rate = [2]"),
    ("hodgkin_huxley", "down_1", {"activation": "selu"}, "has activation 'selu'; supported are linear, tanh"),
    ("hodgkin_huxley", "down_1", {"strides": [4]}, "(Conv1DTranspose) has filters, kernel, stride (6, 16, 2)"),
    ("hodgkin_huxley", "down_1", {"use_bias": False}, "'encoder/down_1' (Conv1D) has the bias False, others True"),
    ("hodgkin_huxley", "activation_1", {"activation": "relu"}, "has the activation 'relu', others 'tanh'"),
    ("hodgkin_huxley", "concatenate", {"axis": 1}, "along axis 1; supported are the channels"),
    ("nerve", "down_5", {"kernel_size": [8, 3]}, "has kernel_size = [8, 3]; supported is [n, 1]"),
    ("nerve", "p_re_lu", {"shared_axes": [1]}, "has shared_axes = [1]; supported is [1, 2]"),
    ("nerve", "cropping2d", {"cropping": [[4, 4], [1, 0]]}, "supported are samples of time"),
    ("nerve", "reshape", {"target_shape": [-1, 1, 2]}, "'model/reshape' (Reshape) turns [None, 3] into [-1, 1, 2]"),
    ("cochlea", "input_2", {"batch_input_shape": [None, None, None]}, "(InputLayer) has shape [None, None]"),
]  # fmt: skip


def specs(model):
    """Every layer's description, those of nested models too."""
    for spec in model["config"]["layers"]:
        yield spec
        yield from specs(spec) if spec["class_name"] == "Functional" else ()


def edit(path, change):
    """Change the layers of a JSON file, by name."""
    model = json.loads(path.read_text())
    change({spec["name"]: spec for spec in specs(model)}, model)
    path.write_text(json.dumps(model))


@pytest.mark.parametrize(("name", "layer", "options", "said"), LAYERS)
def test_options_that_are_not_supported(files, name, layer, options, said):
    paths = files(name)
    edit(paths[0], lambda layers, _: layers[layer]["config"].update(options))
    with pytest.raises(WeightsError) as error:
        load_keras(*paths, length=LENGTH.get(name))
    assert said in str(error.value)
    assert str(paths[0]) in str(error.value)


def lead(target, *sources):
    """Give a layer other inputs."""
    return lambda layers, _: layers[target].update(inbound_nodes=[[[source, 0, 0, {}] for source in sources]])


def spare(layers, model):
    """Add a layer that nothing reads."""
    model["config"]["layers"].append(layers["conv1d"] | {"name": "spare"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda layers, _: layers["conv1d_1"].update(class_name="LSTM"), "layer 'conv1d_1' (LSTM) is of a class that"),
        (lambda _, model: model.update(class_name="Sequential"), "is of class 'Sequential'"),
        (lambda _, model: model.update(keras_version="3.5.0"), "was written by Keras 3.5.0; supported is Keras 2"),
        (lambda _, model: model["config"].pop("layers"), "is not the JSON of a functional Keras 2 model"),
        (lead("concatenate", "conv1d_1", "conv1d_transpose"), "'conv1d_transpose_1' (Conv1DTranspose) has a skip"),
        (lead("concatenate_1", "conv1d_transpose_1", "conv1d_transpose_1"), "supported is one from 'conv1d'"),
        (lead("concatenate_1", "conv1d_transpose_1"), "has 1 inputs; supported are 2"),
        (lead("conv1d_transpose_2", "conv1d_transpose_1"), "'conv1d_transpose_2' (Conv1DTranspose) has a skip conn"),
        (lead("conv1d_transpose", "conv1d_1"), "leads through 'conv1d' (Conv1D), 'conv1d_1' (Conv1D), 'conv1d_tr"),
        (spare, "layer 'spare' (Conv1D) does not lead to the output"),
        (lead("conv1d", "conv1d_2"), "nothing leads to the layers ['conv1d'"),
        (lambda layers, _: layers["conv1d"]["inbound_nodes"].append([["conv1d_1", 0, 0, {}]]), "is used 2 times"),
        (lambda _, model: model["config"]["output_layers"].append(["conv1d", 0, 0]), "has several inputs or outputs"),
    ],
)  # fmt: skip
def test_architectures_that_are_not_supported(files, change, said):
    paths = files("uneven")
    edit(paths[0], change)
    with pytest.raises(WeightsError) as error:
        load_keras(*paths)
    assert said in str(error.value)


def test_the_length_of_the_window(files):
    paths = files("cochlea")
    with pytest.raises(WeightsError, match="is of any length; give `length`"):
        load_keras(*paths)
    with pytest.raises(WeightsError, match="length must be divisible by 4"):
        load_keras(*paths, length=30)
    with pytest.raises(WeightsError, match="has 48 samples, but `length` is 32"):
        load_keras(*files("uneven"), length=32)


def test_files_that_are_something_else(files, tmp_path):
    json_path, weights_path = files("uneven")
    with pytest.raises(WeightsError, match="cannot be read as an HDF5 file"):
        load_keras(json_path, json_path)
    with pytest.raises(WeightsError, match=r"absent\.h5: cannot be read"):
        load_keras(json_path, tmp_path / "absent.h5")
    with pytest.raises(WeightsError, match="cannot be read as the JSON"):
        load_keras(weights_path, weights_path)
    json_path.write_text("layers: 3")
    with pytest.raises(WeightsError, match=r"uneven\.json: is not JSON"):
        load_keras(json_path, weights_path)


def test_every_wrong_array_is_named(files):
    json_path, weights_path = files("hodgkin_huxley")
    with h5py.File(weights_path, "r+") as file:
        del file["encoder/down_1/bias:0"]
        for name, shape in (("encoder/down_2/kernel:0", (16, 6, 5)), ("decoder/conv1d_transpose/bias:0", (7,))):
            del file[name]
            file[name] = np.zeros(shape, np.float32)
        file["encoder"].attrs["weight_names"] = [*file["encoder"].attrs["weight_names"], "surplus/kernel:0"]
        file["encoder/surplus/kernel:0"] = np.zeros((2, 3), np.float32)
    with pytest.raises(WeightsError) as error:
        load_keras(json_path, weights_path)
    for said in (
        "1 missing: encoder/down_1/bias:0 [6]",
        "1 unknown: encoder/surplus/kernel:0 [2, 3]",
        "encoder/down_2/kernel:0 is [16, 6, 5], expected [16, 6, 6]",
        "decoder/conv1d_transpose/bias:0 is [7], expected [6]",
        "none was loaded",
    ):
        assert said in error.value.__notes__[0]
    assert len(str(error.value)) <= 300


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.attrs.update(backend="theano"), "the backend 'theano'; supported is 'tensorflow'"),
        (lambda file: file.attrs.pop("layer_names"), "/ has no attribute 'layer_names'"),
        (lambda file: file["conv1d"].attrs.pop("weight_names"), "/conv1d has no attribute 'weight_names'"),
        (
            lambda file: file.pop("conv1d_2"),
            "2 missing: conv1d_2/conv1d_2/kernel:0 [2, 4, 5], conv1d_2/conv1d_2/bias:0 [5];",
        ),
    ],
)
def test_weights_that_keras_2_did_not_write(files, change, said):
    json_path, weights_path = files("uneven")
    with h5py.File(weights_path, "r+") as file:
        change(file)
    with pytest.raises(WeightsError) as error:
        load_keras(json_path, weights_path)
    assert said in str(error.value)


def test_an_architecture_to_keep_must_be_the_models(files, tmp_path):
    model = load_keras(*files("cochlea"), length=32)
    with pytest.raises(WeightsError, match=r"is another architecture: targets is 1, the model's 5; encoder_activation"):
        save_keras(model, tmp_path / "a.json", tmp_path / "a.h5", like=files("nerve")[0])
    assert not (tmp_path / "a.json").exists()


def test_without_h5py(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(WeightsError, match=r"pip install 'jneuro\[keras\]'"):
        load_keras(*files("uneven"))
