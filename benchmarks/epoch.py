"""A whole epoch of the CNN-LSTM: ours, and the reference pipeline of `torch_pipeline.py`, on the same voltages.

Both sides prepare the data (drop 800 ms, add measurement noise, z-scores, windows), take the same number of training
steps, validate, and compute R², RMSE and MAE of all validation windows. Ours is what the package offers: `window`
and `train`.
"""

import contextlib
import functools
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from harness import Call

from jneuro.core.random import trial_keys
from jneuro.datasets import WindowConfig, Windows, window
from jneuro.models import CNNLSTM, CNNLSTMConfig
from jneuro.recordings import Recording
from jneuro.simulators import Brunel, simulate
from jneuro.training import TrainConfig, train

__all__ = ["facts", "our_epoch", "sides"]

RUNS, DURATION = 50, 1800.0
STUDY_WINDOWS = 30_657
RECIPE = TrainConfig(epochs=1)


@functools.cache
def simulated() -> Recording:
    """The report's recording, but of fewer milliseconds."""

    @jax.jit
    @jax.vmap
    def run(key):
        network = Brunel.forecasting_report().connect(key)
        return simulate(network, duration=DURATION, key=key, record=["v"], record_every=1.0, throw=False)

    return jax.device_get(run(trial_keys(jax.random.key(0), RUNS)))


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
    (record,) = train(model, windows, config, key=key).history
    losses = {"train_loss": record.train_loss, "validation_loss": record.validation_loss}
    return losses | {"r2": record.validation_r2, "rmse": record.validation_rmse, "mae": record.validation_mae}


@functools.cache
def our_data() -> tuple[Windows, float]:
    """Our windows, and the seconds that preparing them took, without compilation."""
    return prepared(lambda: jax.block_until_ready(window(simulated(), WindowConfig(), key=jax.random.key(0))))


@functools.cache
def their_data() -> tuple[dict[str, Any], float]:
    """PyTorch's data sets of the same runs, and the seconds that preparing them took."""
    import torch_pipeline

    windows = our_data()[0]
    runs = {split: windows.trials(split) for split in windows.starts}
    return prepared(lambda: torch_pipeline.prepare(simulated().values["v"], runs))


def prepared(call: Callable) -> tuple[Any, float]:
    """What a call returns, and the seconds that a second one takes."""
    result, began = call(), time.perf_counter()
    call()
    return result, time.perf_counter() - began


def sides(cores: int) -> dict[str, Callable[[], Call]]:
    """The sides: with a second core, one where another process loads, and one of ours with a device for each core."""

    def ours(shared=False):
        model, windows = CNNLSTM(CNNLSTMConfig(), rngs=nnx.Rngs(0)), our_data()[0]
        recipe = RECIPE.model_copy(update={"parallel": "pmap" if shared else "auto"})

        def run():
            with contextlib.nullcontext() if shared else jax.default_device(jax.devices()[0]):
                our_epoch(model, windows, recipe, jax.random.key(0))

        return Call(run)

    def theirs(workers=0, compile_it=False):
        import torch
        import torch_pipeline
        from twins.forecaster import CNNLSTMTwin

        device = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        twin = CNNLSTMTwin(CNNLSTMConfig()).to(device)
        loaders = torch_pipeline.loaders(their_data()[0], RECIPE.batch_size, workers)
        model = torch.compile(twin) if compile_it else twin
        return Call(lambda: torch_pipeline.fit(model, loaders, RECIPE))

    found = {"jneuro": ours, "torch eager": theirs, "torch compile": functools.partial(theirs, compile_it=True)}
    more = {
        "torch eager, a worker": functools.partial(theirs, workers=1),
        "jneuro, a device a core": functools.partial(ours, shared=True),
    }
    return found | (more if cores > 1 else {})


def facts() -> dict[str, Any]:
    """What the timings stand for."""
    windows, seconds = our_data()
    count = {split: windows.count(split) for split in windows.starts}
    theirs = {"torch": their_data()[1]} if importlib.util.find_spec("torch") else {}
    return {
        "batch": RECIPE.batch_size,
        "steps": count["train"] // RECIPE.batch_size,
        "validation_windows": count["validation"],
        "times_less_than_the_study": STUDY_WINDOWS / sum(count.values()),
        "prepare_s": {"jneuro": seconds} | theirs,
    }
