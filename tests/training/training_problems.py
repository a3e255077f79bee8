"""Small models and windows that the training tests share."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jneuro.datasets.windows import Scaling, Windows, window_starts
from jneuro.models.base import Prediction
from jneuro.models.layers import BatchNorm, Dropout
from jneuro.training import Adam, TrainConfig

LENGTH, FEATURES = 6, 3


class Linear(nnx.Module):
    """One linear map from the whole window to the next frame."""

    def __init__(self, *, rngs, dtype=jnp.float32):
        self.map = nnx.Linear(LENGTH * FEATURES, FEATURES, param_dtype=dtype, rngs=rngs)

    def __call__(self, batch, *, train):
        return Prediction(self.map(batch.inputs.reshape(batch.inputs.shape[0], -1))[:, None])


class Noisy(nnx.Module):
    """A hidden layer with batch statistics and two dropouts, one on the stream `default`."""

    def __init__(self, *, rngs, hidden=16):
        self.inner = nnx.Linear(LENGTH * FEATURES, hidden, rngs=rngs)
        self.norm = nnx.BatchNorm(hidden, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.drop_too = nnx.Dropout(0.2, rngs=nnx.Rngs(7))
        self.outer = nnx.Linear(hidden, FEATURES, rngs=rngs)

    def __call__(self, batch, *, train):
        x = self.inner(batch.inputs.reshape(batch.inputs.shape[0], -1))
        x = self.norm(x, use_running_average=not train)
        x = self.drop(jax.nn.relu(x), deterministic=not train)
        return Prediction(self.outer(self.drop_too(x, deterministic=not train))[:, None])


class Layered(nnx.Module):
    """Batch statistics and both kinds of dropout, by the layers that know how devices share a batch."""

    def __init__(self, *, rngs, hidden=8, dropout=0.3, normalise=True, dtype=jnp.float32):
        self.norm = BatchNorm(FEATURES) if normalise else None
        self.channels = Dropout(dropout, rngs=rngs, whole_channels=True)
        self.inner = nnx.Linear(LENGTH * FEATURES, hidden, rngs=rngs)
        self.drop = Dropout(dropout, rngs=rngs)
        self.outer = nnx.Linear(hidden, FEATURES, rngs=rngs)
        learnt = nnx.state(self, (nnx.Param, nnx.BatchStat))
        nnx.update(self, jax.tree.map(lambda x: x.astype(dtype), learnt))

    def __call__(self, batch, *, train):
        x = batch.inputs if self.norm is None else self.norm(batch.inputs, train=train)
        x = self.channels(x, deterministic=not train)
        x = self.drop(jax.nn.relu(self.inner(x.reshape(len(x), -1))), deterministic=not train)
        return Prediction(self.outer(x)[:, None])


def windows(frames=120, trials=3, seed=0, dtype=np.float32):
    """A noisy, predictable recording; trial 0 trains, 1 validates, 2 tests."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames * trials)[:, None]
    values = np.sin(0.3 * time + np.arange(FEATURES)) + 0.1 * rng.normal(size=(frames * trials, FEATURES))
    starts = {
        split: jnp.asarray(window_starts([trial], frames, length=LENGTH, stride=1, reach=1))
        for trial, split in enumerate(("train", "validation", "test"))
    }
    scaling = Scaling(np.zeros(FEATURES, dtype), np.ones(FEATURES, dtype))
    return Windows(jnp.asarray(values, dtype), starts, scaling, LENGTH, (1,), 1.0, frames, False)


def config(**changes):
    """A short recipe: 120 − 6 = 114 windows, 14 steps of 8 in an epoch."""
    base = {
        "batch_size": 8,
        "epochs": 4,
        "warmup_epochs": 1,
        "steps_per_call": 5,
        "optimizer": Adam(learning_rate=1e-2),
    }
    return TrainConfig(**(base | changes))


def weights(model):
    """All of a model's parameters and statistics, on the host."""
    return {
        jax.tree_util.keystr(path, simple=True): np.array(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(nnx.state(model, nnx.Not(nnx.RngState)))
    }


def comparable(history):
    """Records without their wall-clock time."""
    return [record._replace(seconds=0.0) for record in history]


def curves(result):
    """Training loss, validation loss and learning rate of every epoch."""
    return np.array([[r.train_loss, r.validation_loss, r.learning_rate] for r in result.history])


def assert_same(a, b):
    """Two results are bit-identical but for their wall-clock times."""
    assert comparable(a.history) == comparable(b.history)
    assert (a.best_epoch, a.stopped) == (b.best_epoch, b.stopped)
    left, right = weights(a.model), weights(b.model)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
