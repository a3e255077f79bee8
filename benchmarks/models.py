"""Time the models beside PyTorch: `python benchmarks/models.py [CASE ...] [--cores 2] [--dtype bfloat16] [--quick]`.

Each model's forward pass and training step, the rollout, a whole epoch. Both sides run in one process, bound to the
same cores, with as many threads and the same settings of the allocator, on the same device (cpu, cuda, mps). `ratio` is
PyTorch's median time divided by ours, so above 1 ours is faster; `bar` is what ought to be reached. Ours is the library
as one uses it: a training step is one of those that `jneuro.train` compiles, the gathering of its batch included;
PyTorch's is given its batch. PyTorch runs the twins of the equivalence suite, eagerly and through `torch.compile`, with
what was found to serve it: fused Adam, `inference_mode`, denormal numbers flushed to zero as XLA does. `bfloat16` is
the operands' precision in matrix products on our side, and `torch.autocast` on the other. `--alone SIDE` measures the
most memory that a process of this side alone comes to hold beyond its imports, compilation included.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from harness import Call, arguments, compiled, count_costs, peak_mib, record, take_turns

from jneuro.datasets import Scaling, Windows
from jneuro.evaluation.rollouts import rollout
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
from jneuro.training.checkpoints import split_model
from jneuro.training.steps import Inputs, Placement, Program

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

    def make_twin(self) -> Any:
        """Build the model in PyTorch, on the device on which JAX computes."""
        module, _, name = self.twin.partition(".")
        return getattr(import_module(f"twins.{module}"), name)(self.config).to(torch_device())


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


def torch_device() -> str:
    """PyTorch's name of the device on which JAX computes."""
    return {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())


def settled(run: Callable[[], Any]) -> Callable[[], None]:
    """A call of PyTorch that ends when the device has."""
    import torch

    device = torch_device()
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device, lambda: None)

    def whole():
        run()
        wait()

    return whole


def lower_precision(dtype: str) -> Any:
    """PyTorch's way to compute matrix products in `bfloat16`."""
    import torch

    return torch.autocast(torch_device(), torch.bfloat16) if dtype == "bfloat16" else contextlib.nullcontext()


def tensors(batch):
    """Inputs, targets and what is known ahead, in PyTorch."""
    import torch

    return [None if x is None else torch.from_numpy(np.array(x)).to(torch_device()) for x in batch]


def our_forward(case, count):
    """A forward pass."""
    graph, variables = nnx.split(build_model(case.config, rngs=nnx.Rngs(0)))
    batch = random_windows(case).gather(jnp.arange(case.forward))

    def run(variables, batch):
        return nnx.merge(graph, variables, copy=True)(batch, train=False).mean

    return Call(*compiled(run, variables, batch, count=count))


def torch_forward(case, dtype, compile_it=False):
    """A forward pass."""
    import torch

    twin = case.make_twin().eval()
    run = torch.compile(twin) if compile_it else twin
    inputs, _, future = tensors(random_windows(case).gather(jnp.arange(case.forward)))

    def forward():
        with torch.inference_mode(), lower_precision(dtype):
            run(inputs, future)

    return Call(settled(forward))


def our_step(case, count, shared=False):
    """A training step, on one device or shared by all."""
    graph, weights, rngs = split_model(build_model(case.config, rngs=nnx.Rngs(0)))
    devices = tuple(jax.devices())
    placement = Placement("pmap", devices) if shared else Placement("single", devices[:1])
    program = Program(graph, case.recipe, placement)
    inputs, rate, one = placement.put(
        (Inputs(random_windows(case), rngs, jax.random.key(1)), np.float32(1e-3), np.int32(1))
    )
    state = program.begin(weights, inputs)._replace(learning_rate=rate)
    about = {}
    if count and not shared:
        about = count_costs(program.steps, state, inputs, one)

    def run():
        nonlocal state
        state = jax.block_until_ready(program.steps(state, inputs, one))

    return Call(run, about)


def torch_step(case, dtype, compile_it=False):
    """A training step."""
    import torch
    from equivalence import torch_loss

    twin, loss, adam = case.make_twin().train(), torch_loss(case), case.recipe.optimizer
    run = torch.compile(twin) if compile_it else twin
    optimizer = torch.optim.Adam(twin.parameters(), 1e-3, weight_decay=adam.weight_decay, fused=True)
    inputs, targets, future = tensors(random_windows(case).gather(jnp.arange(case.recipe.batch_size)))

    def step():
        optimizer.zero_grad()
        with lower_precision(dtype):
            value = loss(run(inputs, future), targets)
        value.backward()
        if adam.clip_norm:
            torch.nn.utils.clip_grad_norm_(twin.parameters(), adam.clip_norm)
        optimizer.step()
        value.item()

    return Call(settled(step))


CELLS, STEPS = 500, 400
ROLLOUT_SCALE = (1000 * 5000) / (CELLS * STEPS)
"""From what is timed to 1000 cells × 500 ms, in steps of 0.1 ms."""


def rollout_data():
    """First windows, and the currents after them."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(CELLS, 200, 10)).astype("f4"), rng.normal(size=(CELLS, STEPS, 1)).astype("f4")


def our_rollout(dtype):
    """Predictions fed back, in one program."""
    model = build_model(CASES["seq2seq_200"].config.model_copy(update={"precision": dtype}), rngs=nnx.Rngs(0))
    inputs, driving = map(jnp.asarray, rollout_data())
    how = {"horizons": range(1, 201), "target_columns": range(9), "known_columns": (9,), "batch_size": 64}
    return Call(lambda: jax.block_until_ready(rollout(model, inputs, driving, STEPS, **how)))


def torch_rolled_out(dtype, compile_it=False):
    """Predictions fed back."""
    import torch
    from twins.seq2seq import rollout as rolled_out

    twin = CASES["seq2seq_200"].make_twin().eval()
    inputs, driving = (torch.from_numpy(x).to(torch_device()) for x in rollout_data())
    run = torch.compile(twin) if compile_it else twin

    def whole():
        with torch.inference_mode(), lower_precision(dtype):
            rolled_out(run, inputs, driving, STEPS)

    return Call(settled(whole))


EAGER, COMPILED = "torch eager", "torch compile"


class Subject(NamedTuple):
    """Something that is timed.

    Attributes:
        sides: makes each side's call.
        bar: ratio of eager PyTorch to ours that is to be reached.
        rounds: least number of them.
        facts: what else is to be known of it.
    """

    sides: Mapping[str, Callable[[], Call]]
    bar: float | None
    rounds: int = 5
    facts: Mapping[str, Any] = MappingProxyType({})


def beside_torch(ours: Callable[[], Call], theirs: Callable[..., Call]) -> dict[str, Callable[[], Call]]:
    """The three sides."""
    return {"jneuro": ours, EAGER: theirs, COMPILED: partial(theirs, compile_it=True)}


def subjects(name: str, cores: int, dtype: str, quick: bool) -> dict[str, Subject]:
    """What is timed in a case."""
    if name == "epoch":
        import epoch

        return {"epoch": Subject(epoch.sides(cores), 1.05, 2, epoch.facts())}
    if name == "rollout":
        sides = beside_torch(partial(our_rollout, dtype), partial(torch_rolled_out, dtype))
        return {"rollout": Subject(sides, 1.05, 2, {"times_less_than_the_study": ROLLOUT_SCALE})}
    case, found = CASES[name], {}
    case = case._replace(config=case.config.model_copy(update={"precision": dtype}))
    for what, ours, theirs in (("forward", our_forward, torch_forward), ("training step", our_step, torch_step)):
        batch = case.forward if what == "forward" else case.recipe.batch_size
        sides = beside_torch(partial(ours, case, not quick), partial(theirs, case, dtype))
        if ours is our_step and len(jax.devices()) > 1:
            sides["jneuro, a device a core"] = partial(our_step, case, False, shared=True)
        found[what] = Subject(sides, case.bars.get(what), facts={"batch": batch})
    return found


def time_case(name: str, given: Any) -> None:
    """Record the rows of a case."""
    for what, subject in subjects(name, given.cores, given.dtype, given.quick).items():
        sides = {by: make for by, make in subject.sides.items() if not given.quick or by != COMPILED}
        limits = {COMPILED: COMPILE_LIMIT_S}
        rows = take_turns(sides, seconds=given.seconds, rounds=subject.rounds, limits=limits)
        common = {"case": name, "what": what, "dtype": given.dtype, "cores": given.cores} | subject.facts
        # What is to be reached is stated for single precision, and beside eager PyTorch.
        bar = {EAGER: {"bar": subject.bar}} if subject.bar and given.dtype == "float32" else {}
        record("models", [common | {"by": by} | row | bar.get(by, {}) for by, row in rows.items()])


def weigh_case(name: str, given: Any) -> None:
    """Record the memory that one side takes."""
    before = peak_mib()
    for what, subject in subjects(name, given.cores, given.dtype, quick=True).items():
        call = subject.sides[given.alone]()
        for _ in range(1 if name == "epoch" else 2):
            call.run()
        common = {"case": name, "what": f"{what}, memory", "dtype": given.dtype, "cores": given.cores}
        record("models", [common | subject.facts | {"by": given.alone, "peak_mib": round(peak_mib() - before)}])


def main() -> None:
    """Measure the cases that are asked for."""
    given = arguments(__doc__, (*CASES, "rollout", "epoch"))
    try:
        import torch
    except ImportError:
        pass  # its sides say so
    else:
        torch.set_num_threads(given.cores)
        torch.set_flush_denormal(True)
    for name in given.cases:
        (weigh_case if given.alone else time_case)(name, given)


if __name__ == "__main__":
    main()
