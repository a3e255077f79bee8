"""The two pipelines whose epochs the benchmarks compare do the same."""

from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from torch.utils.data import DataLoader, Subset

from jneuro.datasets import WindowConfig, window
from jneuro.interop import to_torch
from jneuro.models import CNNLSTM, CNNLSTMConfig
from jneuro.prng import stream
from jneuro.recordings import Recording
from jneuro.training import TrainConfig

ROOT = Path(__file__).parents[1]
KEY = jax.random.key(0)
RUNS, FRAMES, NEURONS, LENGTH = 10, 110, 6, 12


@pytest.fixture
def pipelines(monkeypatch):
    """The modules of our pipeline and of PyTorch's."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(ROOT / "tests" / "torch_equivalence")
    import epoch
    import torch_pipeline

    return epoch, torch_pipeline


def test_an_epoch_is_the_same_in_both_pipelines(pipelines):
    ours, theirs = pipelines
    noise = np.random.default_rng(0).normal(size=(RUNS, FRAMES, NEURONS)).astype(np.float32)
    voltage = np.cumsum(noise, 1) - 60
    recording = Recording({"v": voltage}, np.bool_(True), np.int32(0), None, 0.1, 10, FRAMES, (("v", "mV"),))
    how = {"discard_ms": 10.0, "measurement_noise": 0.0, "length_ms": LENGTH, "stride_ms": 5.0}
    windows = window(recording, WindowConfig(**how), key=KEY)
    runs = {split: windows.trials(split) for split in windows.starts}
    data = theirs.prepare(voltage, runs, discard=10, noise=0.0, length=LENGTH, stride=5)
    for split, starts in windows.starts.items():
        np.testing.assert_array_equal(data[split].starts, starts)
    np.testing.assert_allclose(data["train"].values, windows.values, 1e-4, 1e-5)

    config = CNNLSTMConfig(features=NEURONS, length=LENGTH, hidden=8, dropout=0, channel_dropout=0)
    model, recipe = CNNLSTM(config, rngs=nnx.Rngs(0)), TrainConfig(epochs=1, batch_size=8, warmup_epochs=0)
    twin = ours.CNNLSTMTwin(config)
    twin.load_state_dict({name: torch.from_numpy(value) for name, value in to_torch(model).items()})
    # The order of the windows is the one thing that is not the same: here theirs are drawn as ours.
    order = jax.random.permutation(jax.random.fold_in(stream(KEY, "order"), 0), windows.count("train"))
    shuffled = DataLoader(Subset(data["train"], np.asarray(order).tolist()), batch_size=8, drop_last=True)
    batches = theirs.loaders(data, 8) | {"train": shuffled}
    expected, found = theirs.fit(twin, batches, recipe)[0], ours.our_epoch(model, windows, recipe, KEY)
    for name, value in found.items():
        assert value == pytest.approx(expected[name], 1e-4), name
