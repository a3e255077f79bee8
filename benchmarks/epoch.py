"""A whole epoch of the CNN-LSTM: ours, and the reference pipeline of `torch_pipeline.py`, on the same voltages.

Both sides prepare the data (drop 800 ms, add measurement noise, z-scores, windows), take the same number of training
steps, validate, and compute R², RMSE and MAE of all validation windows. Ours is what the package offers: `window`,
`train`, `predict`, `forecast_scores`.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import harness  # noqa: F401, sets the allocator before the first array is made
import jax
import numpy as np
import torch
import torch_pipeline
from flax import nnx
from twins.forecaster import CNNLSTMTwin

from jneuro.datasets import WindowConfig, Windows, window
from jneuro.evaluation import forecast_scores, targets
from jneuro.models import CNNLSTM, CNNLSTMConfig
from jneuro.prng import trial_keys
from jneuro.recordings import Recording
from jneuro.simulators import Brunel, simulate
from jneuro.training import TrainConfig, predict, train

__all__ = ["facts", "our_epoch", "sides"]

RUNS, DURATION = 50, 1800.0
STUDY_WINDOWS = 30_657
RECIPE = TrainConfig(epochs=1)
KEY = jax.random.key(0)


def simulated() -> Recording:
    """The report's recording, but of fewer milliseconds."""

    @jax.jit
    @jax.vmap
    def run(key):
        network = Brunel.forecasting_report().connect(key)
        return simulate(network, duration=DURATION, key=key, record=["v"], record_every=10, throw=False)

    return jax.device_get(run(trial_keys(KEY, RUNS)))


def our_epoch(model: CNNLSTM, windows: Windows, config: TrainConfig, key: jax.Array) -> dict[str, float]:
    """Train for an epoch, validate, score.

    Args:
        model: where to start; not changed.
        windows: the data.
        config: the recipe, of one epoch.
        key: of order and dropout.

    Returns:
        Losses and metrics, as `torch_pipeline.fit` names them.
    """
    trained, history, *_ = train(model, windows, config, key=key)
    starts = windows.starts["validation"]
    predicted = predict(trained, windows, starts, batch_size=config.batch_size)
    runs = np.asarray(starts) // windows.frames_per_trial
    scores = forecast_scores(predicted, targets(windows, starts), np.asarray(windows.scaling.scale), runs)
    losses = {"train_loss": history[0].train_loss, "validation_loss": history[0].validation_loss}
    return losses | {"r2": scores["r2"], "rmse": scores["rmse_z"], "mae": scores["mae_z"]}


@functools.cache
def data() -> tuple[Windows, dict[str, torch_pipeline.WindowDataset], dict[str, float]]:
    """The windows of both sides, and the seconds that preparing them took, without compilation."""
    recording = simulated()
    windows, ours = prepared(lambda: jax.block_until_ready(window(recording, WindowConfig(), key=KEY)))
    runs = {split: windows.trials(split) for split in windows.starts}
    datasets, theirs = prepared(lambda: torch_pipeline.prepare(recording.values["v"], runs))
    return windows, datasets, {"jneuro": ours, "torch": theirs}


def prepared(call: Callable) -> tuple[Any, float]:
    """What a call returns, and the seconds that a second one takes."""
    result, began = call(), time.perf_counter()
    call()
    return result, time.perf_counter() - began


def sides(cores: int) -> dict[str, Callable[[], Callable]]:
    """The sides: with a second core, one where another process loads."""

    def ours():
        model, (windows, _, _) = CNNLSTM(CNNLSTMConfig(), rngs=nnx.Rngs(0)), data()
        return lambda: our_epoch(model, windows, RECIPE, KEY)

    def theirs(workers=0, compiled=False):
        twin = CNNLSTMTwin(CNNLSTMConfig())
        loaders = torch_pipeline.loaders(data()[1], RECIPE.batch_size, workers)
        model = torch.compile(twin) if compiled else twin
        return lambda: torch_pipeline.fit(model, loaders, RECIPE)

    found = {"jneuro": ours, "torch eager": theirs, "torch compile": functools.partial(theirs, compiled=True)}
    return found | ({"torch eager, a worker": functools.partial(theirs, workers=1)} if cores > 1 else {})


def facts() -> dict[str, Any]:
    """What the timings stand for."""
    windows, _, seconds = data()
    count = {split: windows.count(split) for split in windows.starts}
    return {
        "steps": count["train"] // RECIPE.batch_size,
        "validation_windows": count["validation"],
        "times_less_than_the_study": STUDY_WINDOWS / sum(count.values()),
        "prepare_s": seconds,
    }
