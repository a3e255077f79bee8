"""Networks of the CoNNear family as Keras 2 writes them, and what they answer; or what it answers for other files.

With one argument, write the reference there. With `--check FOLDER`, load every `NAME.json` and `NAME.h5` of the folder,
give it `NAME.npy`, and write the answer to `NAME.out.npy`.
"""

import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "TF_ENABLE_ONEDNN_OPTS": "0"}

import numpy as np
import tf_keras
from result import save
from tf_keras import layers as kl

__all__ = []


def hodgkin_huxley():
    """Encoder and decoder as two nested models; 1-d layers; skips before the activation; activations as arguments."""
    inputs = kl.Input((64, 1))
    x, skips = inputs, []
    for k in range(3):
        x = kl.Conv1D(6, 16, 2, "same", name=f"down_{k}")(x)
        skips.append(x)
        x = kl.Activation("tanh")(x)
    encoder = tf_keras.Model(inputs, [x, *skips[:-1]], name="encoder")
    coded = [kl.Input(t.shape[1:]) for t in encoder.outputs]
    y = kl.Conv1DTranspose(6, 16, 2, "same", activation="sigmoid")(coded[0])
    y = kl.Concatenate()([y, coded[2]])
    y = kl.Conv1DTranspose(6, 16, 2, "same", activation="sigmoid")(y)
    y = kl.Concatenate()([y, coded[1]])
    y = kl.Conv1DTranspose(1, 16, 2, "same")(y)
    decoder = tf_keras.Model(coded, kl.Cropping1D((8, 4))(y), name="decoder")
    outer = kl.Input((64, 1))
    return tf_keras.Model(outer, decoder(encoder(outer)))


def nerve():
    """One network for each of three channels: 2-d layers, PReLU, no bias, any length; partly frozen, nested once."""
    inputs = kl.Input((None, 3))
    x, skips = kl.Reshape((-1, 3, 1))(inputs), []
    for filters in (4, 5, 6):
        x = kl.Conv2D(filters, (8, 1), (2, 1), "same", use_bias=False, name=f"down_{filters}")(x)
        skips.append(x)
        x = kl.PReLU(shared_axes=[1, 2])(x)
    for filters in (5, 4):
        x = kl.PReLU(shared_axes=[1, 2])(kl.Conv2DTranspose(filters, (8, 1), (2, 1), "same", use_bias=False)(x))
        x = kl.Concatenate(axis=-1)([x, skips[filters - 4]])
    x = kl.PReLU(shared_axes=[1, 2])(kl.Conv2DTranspose(1, (8, 1), (2, 1), "same", use_bias=False)(x))
    x = kl.Reshape((-1, 3))(kl.Cropping2D(((4, 4), (0, 0)))(x))
    inner = tf_keras.Model(inputs, x)
    inner.get_layer("down_4").trainable = False
    outer = kl.Input((None, 3))
    return tf_keras.Model(outer, inner(outer))


def cochlea():
    """1-d encoder and, between reshapes, 2-d decoder; several outputs; no bias; activation at the end."""
    inputs = kl.Input((None, 1))
    x, skips = inputs, []
    for _ in range(2):
        x = kl.Conv1D(4, 8, 2, "same", use_bias=False)(x)
        skips.append(x)
        x = kl.Activation("tanh")(x)
    for k, filters in enumerate((4, 5)):
        x = kl.Reshape((-1, 1, x.shape[-1]))(x)
        x = kl.Conv2DTranspose(filters, (8, 1), (2, 1), "same", use_bias=False)(x)
        x = kl.Activation("tanh")(kl.Reshape((-1, filters))(x))
        x = kl.Concatenate()([x, skips[0]]) if k == 0 else x
    inner = tf_keras.Model(inputs, kl.Cropping1D((4, 4))(x))
    outer = kl.Input((None, 1))
    return tf_keras.Model(outer, inner(outer))


def uneven():
    """Not nested; filters, kernels and strides that differ; skips after the activation; sigmoid, swish and relu."""
    inputs = x = kl.Input((48, 2))
    skips = []
    for filters, kernel, stride in ((3, 7, 3), (4, 5, 4), (5, 2, 2)):
        x = kl.Conv1D(filters, kernel, stride, "same", activation="sigmoid")(x)
        skips.append(x)
    for k, (filters, kernel, stride) in enumerate(((4, 2, 2), (3, 5, 4), (3, 7, 3))):
        activation = "relu" if k == 2 else "swish"
        x = kl.Conv1DTranspose(filters, kernel, stride, "same", activation=activation)(x)
        x = kl.Concatenate()([x, skips[1 - k]]) if k < 2 else x
    return tf_keras.Model(inputs, x)


CASES = {
    "hodgkin_huxley": (hodgkin_huxley, (2, 64, 1)),
    "nerve": (nerve, (2, 32, 3)),
    "cochlea": (cochlea, (2, 32, 1)),
    "uneven": (uneven, (2, 48, 2)),
}


def main():
    """JSON and HDF5 of every network as bytes, its inputs and outputs; of `uneven` the whole model in one file too."""
    rng = np.random.default_rng(1)
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (build, shape) in CASES.items():
            tf_keras.backend.clear_session()
            model = build()
            # Of order one, slopes and biases too; kernels by their inputs.
            model.set_weights([rng.normal(size=w.shape) / np.sqrt(np.prod(w.shape[:-1])) for w in model.get_weights()])
            inputs = rng.normal(size=shape).astype(np.float32)
            weights = Path(folder) / f"{name}.h5"
            model.save_weights(weights)
            arrays |= {
                f"{name}_json": np.frombuffer(model.to_json().encode(), np.uint8),
                f"{name}_weights": np.frombuffer(weights.read_bytes(), np.uint8),
                f"{name}_inputs": inputs,
                f"{name}_outputs": model(inputs).numpy(),
            }
        model.save(weights)
        arrays[f"{name}_whole"] = np.frombuffer(weights.read_bytes(), np.uint8)
    save({"cases": list(CASES)}, ["tensorflow", "tf_keras", "h5py"], **arrays)


def check(folder):
    """Load what another program saved, and write down what it answers."""
    for path in sorted(folder.glob("*.json")):
        model = tf_keras.models.model_from_json(path.read_text())
        model.load_weights(path.with_suffix(".h5"))
        np.save(path.with_suffix(".out.npy"), model(np.load(path.with_suffix(".npy"))).numpy())


if __name__ == "__main__":
    check(Path(sys.argv[2])) if sys.argv[1] == "--check" else main()
