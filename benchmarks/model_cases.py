"""What `models.py` times: each model's forward pass and training step, the rollout, the epoch; ours and PyTorch's.

`python benchmarks/model_cases.py CASE CORES SECONDS [SIDE]` prints, as JSON lines, the rows of one case; with the side
"eager", those without PyTorch's compiler; with another side, the memory that this one takes. `models.py` starts it,
bound to its cores.
"""

import json
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

import epoch
import jax
import jax.numpy as jnp
import numpy as np
import torch
import twins.seq2seq
from equivalence import torch_loss
from flax import nnx

from jneuro.datasets import Scaling, Windows
from jneuro.evaluation.rollout import rollout
from jneuro.models import (
    CNNLSTMConfig,
    CompactForecasterConfig,
    EncoderDecoderConfig,
    LSTMAutoencoderConfig,
    LSTMForecasterConfig,
    ModelConfig,
    Seq2SeqLSTMConfig,
    SpikeCountLSTMConfig,
    TemporalFusionTransformerConfig,
    build_model,
)
from jneuro.training import Adam, TrainConfig
from jneuro.training.checkpoints import Weights
from jneuro.training.parallel import Placement
from jneuro.training.steps import Common, Own, Program, begin, run_steps

COMPILE_LIMIT_S = 120
"""`torch.compile` gets no longer."""


class Case(NamedTuple):
    """A model, and what is timed.

    Attributes:
        config: the model's configuration.
        twin: module and class of the model in PyTorch.
        ahead: how many frames after the last input frame each horizon lies.
        recipe: the training, of which a step is timed.
        forward: windows in a forward pass.
        known: columns known ahead.
        counts: whether the data are counts.
        bars: ratio to be reached, by what is timed.
    """

    config: ModelConfig
    twin: str
    ahead: tuple[int, ...] = (1,)
    recipe: TrainConfig = TrainConfig()
    forward: int = 32
    known: tuple[int, ...] = ()
    counts: bool = False
    bars: Mapping[str, float] = MappingProxyType({})

    def make_twin(self) -> torch.nn.Module:
        """Build the model in PyTorch."""
        module, _, name = self.twin.partition(".")
        return getattr(import_module(f"twins.{module}"), name)(self.config)


def seq2seq(length):
    """The CA1 network of one horizon."""
    config, recipe = Seq2SeqLSTMConfig(length=length, horizons=length), TrainConfig(optimizer=Adam(weight_decay=0))
    return Case(config, "seq2seq.Seq2SeqLSTMTwin", tuple(range(1, length + 1)), recipe, bars={"training step": 0.95})


CASES = {
    "lstm": Case(LSTMForecasterConfig(features=164), "forecaster.LSTMForecasterTwin", bars={"training step": 0.95}),
    "seq2seq_50": seq2seq(50),
    "seq2seq_200": seq2seq(200),
    "encoder_decoder": Case(
        EncoderDecoderConfig(),
        "encoder_decoder.EncoderDecoderTwin",
        tuple(range(-2303, -255)),
        TrainConfig(loss="mae", optimizer=Adam(learning_rate=2e-3, weight_decay=0, clip_norm=None)),
        forward=1,
        bars={"training step": 1.0, "forward": 1.5},
    ),
    "tft": Case(
        TemporalFusionTransformerConfig(features=6, outputs=1, length=100, horizons=10, known=(1, 2), static=(5,)),
        "tft.TemporalFusionTransformerTwin",
        tuple(range(1, 11)),
        TrainConfig(loss="pinball"),
        known=(1, 2),
    ),
    "lstm_autoencoder": Case(LSTMAutoencoderConfig(), "autoencoder.LSTMAutoencoderTwin", tuple(range(-19, 1))),
    "spike_count_lstm": Case(
        SpikeCountLSTMConfig(), "spike_count.SpikeCountLSTMTwin", recipe=TrainConfig(loss="poisson"), counts=True
    ),
    "compact": Case(CompactForecasterConfig(), "compact.CompactForecasterTwin"),
    "cnn_lstm": Case(CNNLSTMConfig(), "forecaster.CNNLSTMTwin"),
}
"""Of each, a forward pass and a training step."""


def random_windows(case):
    """Windows of random data, enough for many steps in an epoch."""
    config, rng = case.config, np.random.default_rng(0)
    frames = 4096 + config.length + max(*case.ahead, 0)
    shape = (frames, config.features)
    values = rng.poisson(0.5, shape) if case.counts else rng.normal(size=shape)
    return Windows(
        jnp.asarray(values, jnp.float32),
        {"train": jnp.arange(4096, dtype=jnp.int32)},
        Scaling(jnp.zeros(config.features), jnp.ones(config.features)),
        config.length,
        case.ahead,
        dt=1.0,
        frames_per_trial=frames,
        leaky=False,
        target_columns=tuple(range(config.targets)),
        known_columns=case.known,
    )


def tensors(batch):
    """Inputs, targets and what is known ahead, in PyTorch."""
    return [None if x is None else torch.from_numpy(np.array(x)) for x in batch]


def our_forward(case):
    """A forward pass."""
    graph, variables = nnx.split(build_model(case.config, rngs=nnx.Rngs(0)))
    batch = random_windows(case).gather(jnp.arange(case.forward))

    @jax.jit
    def run(variables, batch):
        return nnx.merge(graph, variables, copy=True)(batch, train=False).mean

    return lambda: jax.block_until_ready(run(variables, batch))


def torch_forward(case, compiled=False):
    """A forward pass."""
    twin = case.make_twin().eval()
    run = torch.compile(twin) if compiled else twin
    inputs, _, future = tensors(random_windows(case).gather(jnp.arange(case.forward)))
    return torch.inference_mode()(lambda: run(inputs, future))


def our_step(case):
    """A training step."""
    graph, params, rngs, rest = nnx.split(build_model(case.config, rngs=nnx.Rngs(0)), nnx.Param, nnx.RngState, ...)
    placement = Placement("single", tuple(jax.devices()[:1]))
    program = Program(graph, case.recipe, placement)
    own, common, rate, one = placement.put(
        (Own(jax.random.key(1), None), Common(random_windows(case), rngs), np.float32(1e-3), np.int32(1))
    )
    state = begin(Weights(params, rest), own, program)._replace(learning_rate=rate)

    def run():
        nonlocal state
        state = jax.block_until_ready(run_steps(state, own, one, common, program))

    return run


def torch_step(case, compiled=False):
    """A training step."""
    twin, loss, adam = case.make_twin().train(), torch_loss(case), case.recipe.optimizer
    run = torch.compile(twin) if compiled else twin
    optimizer = torch.optim.Adam(twin.parameters(), 1e-3, weight_decay=adam.weight_decay, fused=True)
    inputs, targets, future = tensors(random_windows(case).gather(jnp.arange(case.recipe.batch_size)))

    def step():
        optimizer.zero_grad()
        value = loss(run(inputs, future), targets)
        value.backward()
        if adam.clip_norm:
            torch.nn.utils.clip_grad_norm_(twin.parameters(), adam.clip_norm)
        optimizer.step()
        return value.item()

    return step


CELLS, STEPS = 500, 400
ROLLOUT_SCALE = (1000 * 5000) / (CELLS * STEPS)
"""From what is timed to 1000 cells × 500 ms, in steps of 0.1 ms."""


def rollout_data():
    """First windows, and the currents after them."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(CELLS, 200, 10)).astype("f4"), rng.normal(size=(CELLS, STEPS, 1)).astype("f4")


def our_rollout():
    """Predictions fed back, in one program."""
    model = build_model(CASES["seq2seq_200"].config, rngs=nnx.Rngs(0))
    inputs, driving = map(jnp.asarray, rollout_data())
    how = {"horizons": range(1, 201), "target_columns": range(9), "known_columns": (9,), "batch_size": 64}
    return lambda: jax.block_until_ready(rollout(model, inputs, driving, STEPS, **how))


def torch_rolled_out(compiled=False):
    """Predictions fed back."""
    twin, (inputs, driving) = CASES["seq2seq_200"].make_twin().eval(), map(torch.from_numpy, rollout_data())
    run = torch.compile(twin) if compiled else twin
    return torch.inference_mode()(lambda: twins.seq2seq.rollout(run, inputs, driving, STEPS))


EAGER, COMPILED = "torch eager", "torch compile"


class Subject(NamedTuple):
    """Something that is timed.

    Attributes:
        sides: makes each side's call.
        bar: ratio of eager PyTorch to ours that is to be reached.
        rounds: least number of them.
        facts: what else is to be known of it.
    """

    sides: dict[str, Callable[[], Callable]]
    bar: float | None
    rounds: int = 5
    facts: Mapping[str, Any] = MappingProxyType({})


def subjects(name: str, cores: int) -> dict[str, Subject]:
    """What is timed in a case."""
    if name == "epoch":
        return {"epoch": Subject(epoch.sides(cores), 1.05, 2, epoch.facts())}
    if name == "rollout":
        sides = {"jneuro": our_rollout, EAGER: torch_rolled_out, COMPILED: partial(torch_rolled_out, compiled=True)}
        return {"rollout": Subject(sides, 1.05, 2, {"times_less_than_the_study": ROLLOUT_SCALE})}
    case, found = CASES[name], {}
    for what, ours, theirs in (("forward", our_forward, torch_forward), ("training step", our_step, torch_step)):
        sides = {EAGER: partial(theirs, case), COMPILED: partial(theirs, case, compiled=True)}
        batch = case.forward if what == "forward" else case.recipe.batch_size
        found[what] = Subject({"jneuro": partial(ours, case)} | sides, case.bars.get(what), facts={"batch": batch})
    return found


class TookTooLong(BaseException):
    """A time limit has passed; not an `Exception`, which PyTorch's compiler would catch and go on."""


@contextmanager
def limited(seconds: int):
    """Raise `TookTooLong` if the body takes longer; 0 sets no limit."""

    def stop(*_):
        raise TookTooLong(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def timed(call: Callable) -> float:
    """Seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def take_turns(subject: Subject, seconds: float) -> dict[str, dict[str, Any]]:
    """Time all sides, round by round, for so long; without any seconds, one round.

    A side of PyTorch's compiler that fails, or compiles for too long, is absent, with the reason.
    """
    calls, first, rows = {}, {}, {}
    for by, make in subject.sides.items():
        try:
            with limited(COMPILE_LIMIT_S if by == COMPILED else 0):
                calls[by] = make()
                first[by] = timed(calls[by])
        except (Exception, TookTooLong) as error:
            if by != COMPILED:
                raise
            calls.pop(by, None)
            rows[by] = {"absent": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
    times, ends = {by: [] for by in calls}, time.perf_counter() + seconds
    rounds = 0
    while rounds < (subject.rounds if seconds else 1) or time.perf_counter() < ends:
        rounds += 1
        for by, call in calls.items():
            times[by].append(timed(call))
    for by, series in times.items():
        rows[by] = {"median_s": statistics.median(series), "min_s": min(series), "rounds": rounds}
        rows[by]["first_call_s"] = first[by]
    ours = rows["jneuro"]["min_s"]
    for by, row in rows.items():
        if by != "jneuro" and "min_s" in row:
            row["ratio"] = row["min_s"] / ours
    if subject.bar:
        rows[EAGER]["bar"] = subject.bar
    return rows


def peak_mib() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(name: str, cores: str, seconds: str, side: str | None = None) -> None:
    """Print the rows of one case, or the memory that one side takes."""
    torch.set_num_threads(int(cores))
    torch.set_flush_denormal(True)
    before = peak_mib()
    for what, subject in subjects(name, int(cores)).items():
        if side in (None, "eager"):
            timed_sides = {by: make for by, make in subject.sides.items() if side is None or by != COMPILED}
            rows = take_turns(subject._replace(sides=timed_sides), float(seconds))
            rows = [{"by": by, **row} for by, row in rows.items()]
        else:
            run = subject.sides[side]()
            run()
            if name != "epoch":
                run()
            rows = [{"by": side, "peak_mib": round(peak_mib() - before)}]
        for row in rows:
            print(json.dumps({"what": what} | row | ({} if side not in (None, "eager") else subject.facts)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
