"""Run a model and its PyTorch twin side by side, from the same weights and on the same batches.

Ours takes its steps in the program that trains, `Program.steps`; PyTorch in the loop that everyone writes, with its own
optimiser, clipping and schedulers. Dropout is off.

An error is relative: the largest difference within a tensor, divided by the tensor's largest entry. A tensor whose
entries are zero but for rounding, such as a gradient that vanishes by symmetry, has no scale of its own, so no scale is
taken below `FLOOR` times the largest entry of all tensors compared: there the bound of single precision, 1e-4, is a
rounding error of that largest entry.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch.nn import functional as F
from torch.optim import lr_scheduler

from jneuro.core.random import stream
from jneuro.datasets.windows import Batch, Scaling, Windows
from jneuro.interop import to_torch
from jneuro.models import ModelConfig, build_model
from jneuro.training import Adam, Plateau, TrainConfig
from jneuro.training.checkpoints import split_model
from jneuro.training.kinds import LOSSES
from jneuro.training.recipe import learning_rate
from jneuro.training.steps import Inputs, Placement, Program

__all__ = ["BOUNDS", "WHAT", "Case", "compare", "recipe"]

BOUNDS = {np.float64: 1e-9, np.float32: 1e-4}
FLOOR = float(np.finfo(np.float32).eps) / BOUNDS[np.float32]
EPOCHS, STEPS, BATCH = 5, 10, 4
WHAT = ("forward", "loss", "gradients", "1 step", "50 steps", "batch statistics", "losses", "learning rates")
# Made up: the plateau acts before the last epoch, since the epochs after the warm-up bring nothing.
VALIDATION = (1.0, 0.9, 0.9, 0.9, 0.9)


def recipe(**changes):
    """The training of the CNN-LSTM study in 50 steps: two epochs of warm-up, a plateau that acts after the fourth."""
    base = {
        "batch_size": BATCH,
        "epochs": EPOCHS,
        "optimizer": Adam(learning_rate=3e-3, weight_decay=0.01, clip_norm=0.5),
        "warmup_epochs": 2,
        "warmup_from": 1e-3,
        "plateau": Plateau(patience=0),
    }
    return TrainConfig(**(base | changes))


class Case(NamedTuple):
    """A model, its twin, and what they are trained on.

    Attributes:
        config: the model's configuration.
        twin: its twin, made from the same configuration.
        ahead: how many frames after the last input frame each horizon lies.
        recipe: the training.
        known: the columns known ahead.
        counts: the columns that hold small whole numbers; the others are normal.
    """

    config: ModelConfig
    twin: type[torch.nn.Module]
    ahead: tuple[int, ...] = (1, 2)
    recipe: TrainConfig = recipe()
    known: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()


def random_windows(case, dtype):
    """Windows of random data, as many as one epoch takes."""
    config, rng = case.config, np.random.default_rng(1)
    count, columns = STEPS * BATCH, config.features
    frames = count + config.length + max(case.ahead)
    values = rng.normal(size=(frames, columns))
    values[:, case.counts] = rng.integers(0, 3, (frames, len(case.counts)))
    return Windows(
        jnp.asarray(values, dtype),
        {"train": jnp.arange(count, dtype=jnp.int32)},
        Scaling(np.zeros(columns, dtype), np.ones(columns, dtype)),
        config.length,
        case.ahead,
        1.0,
        frames,
        False,
        target_columns=tuple(range(config.targets)),
        known_columns=case.known,
    )


def drawn(case, dtype):
    """A model with random variables, none of them zero; variances are positive."""
    abstract = nnx.eval_shape(lambda: build_model(case.config, rngs=nnx.Rngs(0)))
    graph, params, rngs, rest = nnx.split(abstract, nnx.Param, nnx.RngState, ...)
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda p: jnp.asarray(rng.uniform(-0.5, 0.5, p.shape), dtype), params)
    rest = jax.tree.map(lambda s: jnp.asarray(rng.uniform(0.5, 1.5, s.shape), dtype), rest)
    # Nothing is dropped, so any key does.
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    rngs = jax.tree.map(lambda x: jax.random.key(0) if is_key(x) else jnp.zeros(x.shape, x.dtype), rngs)
    return nnx.merge(graph, params, rngs, rest)


def twin_of(case, model):
    """The twin, with the model's weights."""
    twin = case.twin(case.config)
    weights = {name: torch.from_numpy(value) for name, value in to_torch(model).items()}
    twin = twin.to(next(iter(weights.values())).dtype)
    twin.load_state_dict(weights, strict=True)
    return twin


@jax.jit
def epoch_order(starts, key, epoch):
    """The order in which `Program.steps` draws an epoch's windows."""
    return jax.random.permutation(jax.random.fold_in(stream(key, "order"), epoch), starts)


def epoch_batches(windows, key, epoch):
    """The batches of an epoch, on the host."""
    values, order = np.asarray(windows.values), np.asarray(epoch_order(windows.starts["train"], key, epoch))
    inputs = values[order[:, None] + np.arange(windows.length)]
    ahead = values[order[:, None] + windows.length - 1 + np.array(windows.horizons)]
    future = ahead[..., windows.known_columns] if windows.known_columns else None
    whole = Batch(inputs, ahead[..., windows.target_columns], future)
    return [jax.tree.map(lambda x, k=k: x[k * BATCH : (k + 1) * BATCH], whole) for k in range(STEPS)]


def tensors(batch):
    """Inputs, targets and what is known ahead."""
    return [None if x is None else torch.from_numpy(x) for x in batch]


def torch_loss(case):
    """The loss of outputs and targets, by PyTorch."""

    def pinball(outputs, targets):
        errors = (targets[..., None] - outputs).unbind(-1)
        return sum(torch.maximum(q * e, (q - 1) * e).mean() for q, e in zip(case.config.quantiles, errors, strict=True))

    return {
        "mse": F.mse_loss,
        "mae": F.l1_loss,
        "pinball": pinball,
        "poisson": partial(F.poisson_nll_loss, log_input=False, full=False),
    }[case.recipe.loss.name]


def error(ours, theirs):
    """The largest relative error of some arrays by name."""
    assert ours.keys() == theirs.keys(), set(ours) ^ set(theirs)
    theirs = {name: value.detach().numpy() for name, value in theirs.items()}
    floor = FLOOR * max(np.abs(value).max() for value in theirs.values())
    assert np.isfinite(floor)
    assert floor > 0
    return max(
        float(np.abs(np.asarray(ours[name]) - value).max() / max(np.abs(value).max(), floor))
        for name, value in theirs.items()
    )


def learnt(variables, running):
    """Either the running statistics of batches, or the parameters, among a state_dict's tensors."""
    return {
        name: value
        for name, value in variables.items()
        if ("running_" in name) == running and not name.endswith("num_batches_tracked")
    }


def compare_gradients(case, model, batch):
    """Errors of the forecast, of the loss and of all gradients; where batch statistics differ, also in evaluation."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    loss, twin, statistics = case.recipe.loss.name, twin_of(case, model), nnx.state(model, nnx.BatchStat)

    def objective(params, train):
        prediction = nnx.merge(graph, params, rest, copy=True)(batch, train=train)
        return LOSSES[loss](prediction, batch).mean(), prediction.quantiles if loss == "pinball" else prediction.mean

    @jax.jit
    def run(params):
        (value, trained), gradients = jax.value_and_grad(objective, has_aux=True)(params, True)
        evaluated = {"eval": objective(params, False)[1]} if statistics else {}
        return value, gradients, {"train": trained} | evaluated

    value, gradients, outputs = run(params)
    inputs, targets, future = tensors(batch)
    expected = {"eval": twin.eval()(inputs, future)} if statistics else {}
    expected["train"] = twin.train()(inputs, future)
    expected_value = torch_loss(case)(expected["train"], targets)
    expected_value.backward()
    ours = learnt(to_torch(nnx.merge(graph, gradients, rest)), running=False)
    theirs = {name: p.grad for name, p in twin.named_parameters()}
    return {
        "forward": error(outputs, expected),
        "loss": error({"loss": value}, {"loss": expected_value}),
        "gradients": error(ours, theirs),
    }


class Training(NamedTuple):
    """One side's training.

    Attributes:
        first: parameters and statistics after one step, by PyTorch's names.
        last: the same after all steps.
        losses: sum of the losses of each epoch.
        rates: learning rate at the end of each epoch.
        norms: norm of the gradient in every step, before clipping.
    """

    first: dict
    last: dict
    losses: list
    rates: list
    norms: list


def train_ours(case, model, windows, key):
    """Train in the compiled program, one step, then to the end of each epoch."""
    graph, weights, rngs = split_model(model)
    program = Program(graph, case.recipe, Placement("single", tuple(jax.devices()[:1])))
    inputs = Inputs(windows, rngs, key)
    state, losses, rates = program.begin(weights, inputs), [], []
    snapshot = lambda s: to_torch(nnx.merge(graph, s.params, rngs, s.rest))  # noqa: E731
    first = None
    for epoch in range(EPOCHS):
        rate = learning_rate(case.recipe, VALIDATION[:epoch])
        rate = program.placement.put(np.asarray(rate, state.learning_rate.dtype))
        state = state._replace(learning_rate=rate)
        for count in (1, STEPS - 1) if epoch == 0 else (STEPS,):
            state = program.steps(state, inputs, jnp.int32(count))
            first = first or snapshot(state)
        losses.append(float(state.metrics.loss_sum))
        rates.append(float(state.metrics.learning_rate))
    return Training(first, snapshot(state), losses, rates, [])


def train_torch(case, twin, windows, key):
    """The same training as one would write it in PyTorch."""
    r, o = case.recipe, case.recipe.optimizer
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[o.name]
    optimizer = kind(twin.parameters(), o.learning_rate, betas=o.betas, eps=o.eps, weight_decay=o.weight_decay)
    plateau = r.plateau and lr_scheduler.ReduceLROnPlateau(optimizer, **r.plateau.model_dump())
    warmup = r.warmup_epochs and lr_scheduler.LinearLR(optimizer, r.warmup_from / o.learning_rate, 1, r.warmup_epochs)
    first, cosine, losses, rates, norms = None, None, [], [], []
    for epoch in range(EPOCHS):
        if r.schedule.name == "cosine" and epoch == r.warmup_epochs:
            cosine = lr_scheduler.CosineAnnealingLR(optimizer, (EPOCHS - epoch) * STEPS)
        losses.append(0.0)
        for batch in epoch_batches(windows, key, epoch):
            inputs, targets, future = tensors(batch)
            optimizer.zero_grad()
            loss = torch_loss(case)(twin(inputs, future), targets)
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(twin.parameters(), o.clip_norm or np.inf).item())
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            first = first or {name: value.clone() for name, value in twin.state_dict().items()}
            losses[-1] += loss.item()
            if cosine:
                cosine.step()
        if epoch < r.warmup_epochs:
            warmup.step()
        elif plateau:
            plateau.step(VALIDATION[epoch])
    return Training(first, twin.state_dict(), losses, rates[STEPS - 1 :: STEPS], norms)


def compare(case, dtype):
    """Compare a model with its twin, within `jax.enable_x64(True)`.

    Args:
        case: the model, and how it is trained.
        dtype: the precision of weights, data and computation.

    Returns:
        The largest relative error by what was compared, and PyTorch's training.
    """
    model, windows, key = drawn(case, dtype), random_windows(case, dtype), jax.random.key(3)
    errors = compare_gradients(case, model, epoch_batches(windows, key, 0)[0])
    ours = train_ours(case, model, windows, key)
    theirs = train_torch(case, twin_of(case, model), windows, key)
    for what, a, b in (("1 step", ours.first, theirs.first), ("50 steps", ours.last, theirs.last)):
        errors[what] = error(learnt(a, running=False), learnt(b, running=False))
    if statistics := learnt(theirs.last, running=True):
        errors["batch statistics"] = error(learnt(ours.last, running=True), statistics)
    for what, a, b in (("losses", ours.losses, theirs.losses), ("learning rates", ours.rates, theirs.rates)):
        errors[what] = float(np.abs(np.divide(a, b) - 1).max())
    return errors, theirs
