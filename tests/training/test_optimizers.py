"""Whole trainings against PyTorch's, in double precision: clip, weight decay, moments, warm-up and plateau together."""

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from training_problems import FEATURES, LENGTH, Linear, config, windows

from jneuro.training import Adam, AdamW, Plateau, train

EPOCHS, WARMUP = 50, 5


def torch_training(settings, data, weight, bias):
    """The same training by PyTorch, one full batch in each epoch."""
    model = torch.nn.Linear(LENGTH * FEATURES, FEATURES, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(weight.T))
        model.bias.copy_(torch.tensor(bias))
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    optimizer = kind(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.7, patience=1, min_lr=1e-5)

    def loss(split):
        batch = data.gather(data.starts[split])
        x = torch.tensor(np.array(batch.inputs)).reshape(-1, LENGTH * FEATURES)
        return torch.nn.functional.mse_loss(model(x), torch.tensor(np.array(batch.targets[:, 0])))

    history, norms = [], []
    for epoch in range(EPOCHS):
        if epoch <= WARMUP:
            optimizer.param_groups[0]["lr"] = 5e-6 + (settings.learning_rate - 5e-6) * epoch / WARMUP
        optimizer.zero_grad()
        value = loss("train")
        value.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm or np.inf).item())
        optimizer.step()
        rate = optimizer.param_groups[0]["lr"]
        with torch.no_grad():
            history.append((value.item(), loss("validation").item(), rate))
        if epoch >= WARMUP:
            scheduler.step(history[-1][1])
    return np.array(history), np.array(norms)


@pytest.mark.parametrize(("kind", "clip_norm"), [(Adam, 0.05), (Adam, None), (AdamW, 0.05)])
def test_trajectory_is_torchs(x64, kind, clip_norm):
    settings = kind(learning_rate=0.1, weight_decay=0.05, clip_norm=clip_norm)
    data = windows(dtype=np.float64)
    count = data.count("train")
    recipe = config(
        batch_size=count,
        epochs=EPOCHS,
        warmup_epochs=WARMUP,
        warmup_from=5e-6,
        plateau=Plateau(patience=1),
        early_stopping=None,
        optimizer=settings,
    )
    model = Linear(rngs=nnx.Rngs(0), dtype=np.float64)
    start = np.array(model.map.kernel), np.array(model.map.bias)
    ours = train(model, data, recipe, key=jax.random.key(0)).history
    theirs, norms = torch_training(settings, data, *start)
    ours = np.array([(r.train_loss, r.validation_loss, r.learning_rate) for r in ours])
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert len(np.unique(theirs[WARMUP:, 2])) > 3, "the plateau must have acted"
    if clip_norm:
        assert (norms > clip_norm).mean() > 0.5
        assert (norms < clip_norm).any()
