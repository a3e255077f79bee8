"""The CNN-LSTM's training as one writes it in PyTorch: the reference pipeline that an epoch of ours is timed against.

Written for this project after the published description, with ordinary PyTorch practice: a `Dataset` over the scaled
recording, a shuffling `DataLoader`, a loop of training steps, a validation pass whose forecasts also give the metrics.

What was tuned here, so that the comparison is fair: windows are views of one tensor, never copies of the whole data
set; Adam is the fused one; denormal numbers are flushed to zero, as XLA does; gradients are set to None, not to zeros;
the validation loss and the metrics come from one pass, without autograd. Nothing was tuned in ours for this comparison:
it is what `jneuro run` does.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from jneuro.training import TrainConfig

__all__ = ["WindowDataset", "fit", "loaders", "prepare"]


class WindowDataset(Dataset):
    """Windows of a scaled recording, and the sample after each.

    Args:
        values: frames `[frame, feature]`, runs end to end.
        starts: first frame of every window.
        length: frames in a window.
    """

    def __init__(self, values: torch.Tensor, starts: np.ndarray, length: int):
        self.values, self.starts, self.length = values, starts.tolist(), length

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        end = self.starts[index] + self.length
        return self.values[self.starts[index] : end], self.values[end]


def prepare(
    voltage: np.ndarray,
    runs: dict[str, np.ndarray],
    *,
    discard: int = 800,
    noise: float = 0.2,
    length: int = 150,
    stride: int = 15,
    seed: int = 0,
) -> dict[str, WindowDataset]:
    """Cut voltages into windows.

    Args:
        voltage: `[run, frame, neuron]`, a frame each millisecond [mV].
        runs: the runs of each split; z-scores are fitted on those of `train`.
        discard: frames dropped from the beginning of every run.
        noise: SD of the measurement noise [mV].
        length: frames in a window.
        stride: frames from one window to the next.
        seed: of the noise.

    Returns:
        A data set for each split.
    """
    values = torch.from_numpy(voltage[:, discard:].astype(np.float32))
    values += noise * torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
    seen = values[runs["train"]].flatten(0, 1)
    values = ((values - seen.mean(0)) / seen.std(0, correction=0)).flatten(0, 1)
    frames = voltage.shape[1] - discard
    first = np.arange(0, frames - length, stride)
    return {
        split: WindowDataset(values, (index[:, None] * frames + first).reshape(-1), length)
        for split, index in runs.items()
    }


def loaders(data: dict[str, WindowDataset], batch_size: int, workers: int = 0) -> dict[str, DataLoader]:
    """Make the loaders: training windows are shuffled and an incomplete last batch is dropped, validation is in order.

    Args:
        data: the data sets.
        batch_size: windows in a batch.
        workers: processes that load, kept from epoch to epoch; 0 loads in the training process.

    Returns:
        The loaders of `train` and `validation`.
    """
    how = {"batch_size": batch_size, "num_workers": workers, "persistent_workers": workers > 0}
    return {
        "train": DataLoader(data["train"], shuffle=True, drop_last=True, **how),
        "validation": DataLoader(data["validation"], **how),
    }


def fit(
    model: nn.Module, batches: dict[str, Iterable[tuple[torch.Tensor, torch.Tensor]]], config: TrainConfig
) -> list[dict[str, Any]]:
    """Train: Adam with coupled L2, clipped gradients, warm-up, then a lower learning rate at plateaus.

    Args:
        model: changed in place.
        batches: what `loaders` returns, or any other source of inputs and targets.
        config: the recipe, of which this reads the fields of the published study.

    Returns:
        Losses, metrics, learning rate and seconds of every epoch.
    """
    adam, plateau = config.optimizer, config.plateau
    optimizer = torch.optim.Adam(
        model.parameters(), adam.learning_rate, adam.betas, adam.eps, adam.weight_decay, fused=True
    )
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=plateau.factor, patience=plateau.patience, min_lr=plateau.min_lr
    )
    history = []
    for epoch in range(config.epochs):
        began = time.perf_counter()
        if epoch <= config.warmup_epochs:
            share = epoch / config.warmup_epochs if config.warmup_epochs else 1
            rate = config.warmup_from + (adam.learning_rate - config.warmup_from) * share
            optimizer.param_groups[0]["lr"] = rate
        train_loss = _train(model, batches["train"], optimizer, adam.clip_norm)
        scores = _validate(model, batches["validation"])
        history.append({"train_loss": train_loss, **scores, "learning_rate": optimizer.param_groups[0]["lr"]})
        if epoch >= config.warmup_epochs:
            scheduler.step(scores["validation_loss"])
        history[-1]["seconds"] = time.perf_counter() - began
    return history


def _placed(model: nn.Module, batches: Iterable) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches, on the model's device."""
    device = next(model.parameters()).device
    for inputs, targets in batches:
        yield inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def _train(model: nn.Module, batches: Iterable, optimizer: torch.optim.Optimizer, clip_norm: float) -> float:
    model.train()
    losses = []
    for inputs, targets in _placed(model, batches):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs)[:, 0], targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.inference_mode()
def _validate(model: nn.Module, batches: Iterable) -> dict[str, float]:
    model.eval()
    pairs = [(model(inputs)[:, 0], targets) for inputs, targets in _placed(model, batches)]
    # Metal has no double precision.
    predicted, target = (torch.cat(tensors).cpu().double() for tensors in zip(*pairs, strict=True))
    error = predicted - target
    mse = error.square().mean().item()
    return {
        "validation_loss": mse,
        "r2": 1 - mse / (target - target.mean(0)).square().mean().item(),
        "rmse": mse**0.5,
        "mae": error.abs().mean().item(),
    }
