"""Models, a loss, a metric, a schedule, a callback and a baseline of one's own: plain Flax and plain functions.

In Python:

    trained = jn.train(Linear, windows, loss=huber, optimizer=optax.adam(1e-3), metrics=[bias], epochs=20, key=key)
    scores = jn.evaluate({"linear": trained.model}, windows, baselines=["persistence", Seasonal(period=20)])

In a YAML file beside this one:

    models: {linear: {model: {name: "own_model:Linear"}}}
    train: {loss: "own_model:huber", optimizer: {name: "optax:adam", learning_rate: 1e-3}, metrics: ["own_model:bias"]}
    evaluate: {baselines: [persistence, {name: "own_model:Seasonal", period: 20}]}
"""

import jax.numpy as jnp
import optax
from flax import nnx


class Linear(nnx.Module):
    """One linear map from the whole window to all horizons.

    The sizes are those of the data; whichever the constructor names, it is given.
    """

    def __init__(self, features, length, horizons, outputs, *, rngs, dropout=0.0):
        self.shape = (horizons, outputs)
        self.drop = nnx.Dropout(dropout, rngs=rngs)
        self.map = nnx.Linear(length * features, horizons * outputs, rngs=rngs)

    def __call__(self, batch):
        """Predict `[batch, horizon, target]` from `batch.inputs [batch, time, feature]`."""
        past = self.drop(batch.inputs.reshape(len(batch.inputs), -1))
        return self.map(past).reshape(-1, *self.shape)


class Convolutional(nnx.Module):
    """A convolution over time, pooled, and a linear map to all horizons."""

    def __init__(self, features, horizons, outputs, *, channels=8, width=5, rngs):
        self.shape = (horizons, outputs)
        self.convolution = nnx.Conv(features, channels, (width,), rngs=rngs)
        self.map = nnx.Linear(channels + features, horizons * outputs, rngs=rngs)

    def __call__(self, batch, *, train=False):
        """Predict the change from the newest frame and the mean of what the convolution sees."""
        seen = nnx.gelu(self.convolution(batch.inputs)).mean(1)
        return self.map(jnp.concatenate([seen, batch.inputs[:, -1]], 1)).reshape(-1, *self.shape)


def huber(prediction, batch, *, delta=1.0):
    """Huber's loss, one value for each window."""
    return optax.huber_loss(prediction.mean, batch.targets, delta=delta).mean((1, 2))


def bias(prediction, batch):
    """By how much the prediction is too high."""
    return (prediction.mean - batch.targets).mean((1, 2))


def halved(step, *, total_steps):
    """A factor of the learning rate: halved for the second half of the training."""
    return jnp.where(step < total_steps // 2, 1.0, 0.5)


class Lowest:
    """A callback that keeps the lowest validation loss; any of the hooks may be left out."""

    def __init__(self, file="lowest.txt"):
        self.file, self.lowest = file, float("inf")

    def on_epoch(self, record):
        """Called after every epoch."""
        self.lowest = min(self.lowest, record.validation_loss)

    def on_end(self, result):
        """Called at the end."""
        with open(self.file, "w", encoding="utf-8") as file:
            file.write(f"{self.lowest:.6g}\n")


class Seasonal:
    """What was, one period before; the period is a number of frames within the window."""

    def __init__(self, period):
        self.period = period

    def fit(self, windows):
        """Return what is called like a model; there is nothing to learn."""
        if windows.own_inputs is None or self.period > windows.length:
            raise ValueError(
                f"Seasonal needs the targets among the inputs, and windows of {self.period} frames or more"
            )
        # The last frame of the window is number `length - 1`, and a horizon of 1 is the frame after it.
        frames = [windows.length - 1 + h - self.period * -(-h // self.period) for h in windows.horizons]
        own = jnp.asarray(windows.own_inputs)
        return lambda batch: batch.inputs[:, jnp.asarray(frames)][..., own]
