"""A model, a loss, a metric and a baseline of one's own: plain Flax and plain functions.

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


def huber(prediction, batch, *, delta=1.0):
    """Huber's loss, one value for each window."""
    return optax.huber_loss(prediction.mean, batch.targets, delta=delta).mean((1, 2))


def bias(prediction, batch):
    """By how much the prediction is too high."""
    return (prediction.mean - batch.targets).mean((1, 2))


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
