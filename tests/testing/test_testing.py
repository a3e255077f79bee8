"""What is promised of each kind: ours keep it, and objects that break a promise are caught by its name."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jneuro.models.base import Prediction
from jneuro.simulators.base import POSITIVE, param, state
from jneuro.simulators.brunel import Brunel
from jneuro.simulators.cells import CA1Pyramidal, HodgkinHuxley, Izhikevich, Pospischil
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.reservoir import IzhikevichReservoir
from jneuro.simulators.ring import RingNetwork
from jneuro.simulators.stepped import SteppedSimulator
from jneuro.simulators.stimuli import (
    Chirp,
    Constant,
    OrnsteinUhlenbeck,
    PulseTrain,
    Ramp,
    Sampled,
    Sine,
    Step,
    Stimulus,
    WhiteNoise,
)
from jneuro.sweeps.measures import measure
from jneuro.testing import ContractError, check_measure, check_model, check_simulator, check_stimulus

KEY = jax.random.key(0)

# Objects that break one promise each.


class Own(Stimulus):
    amplitude: jax.Array = eqx.field(converter=jnp.asarray, default=2.0)
    onset: jax.Array = eqx.field(converter=jnp.asarray, default=10.0)

    def __call__(self, t):
        return self.amplitude * jnp.sin(t - self.onset)


class Number(Own):
    def __call__(self, t):
        return 2.0


class Branching(Own):
    def __call__(self, t):
        return self.amplitude if t > self.onset else 0 * self.amplitude


class Drawing(Own):
    def __call__(self, t):
        return self.amplitude + np.random.normal()  # noqa: NPY002


class NotFinite(Own):
    def __call__(self, t):
        return self.amplitude * jnp.sqrt(t - self.onset)


class Half(Own):
    def __call__(self, t):
        return (self.amplitude * jnp.sin(t)).astype(jnp.float16)


class Unlisted(Own):
    def __call__(self, t):
        return jnp.where(t > self.onset, self.amplitude, 0.0)


@jax.custom_jvp
def wrong(x):
    """A square with the derivative of something else."""
    return x**2


wrong.defjvp(lambda primals, tangents: (wrong(primals[0]), 3 * primals[0] * tangents[0]))


class WrongSlope(Own):
    def __call__(self, t):
        return wrong(self.amplitude) * jnp.sin(t)


class NoLeaf(Own):
    amplitude: float = 2.0

    def __call__(self, t):
        return self.amplitude * jnp.sin(t)


STIMULI = [
    ("kind", lambda t: 2.0 * jnp.sin(t)),
    ("value", Number()),
    ("traceable", Branching()),
    ("pure", Drawing()),
    ("finite", NotFinite()),
    ("dtype", Half()),
    ("jumps", Unlisted()),
    ("gradient", WrongSlope()),
    ("serialisation", NoLeaf()),
]


def lacking(recording):
    return recording.values["w"].max()


MEASURES = [
    ("needs", measure(unit="mV", needs=("v",))(lambda r: r.values["v"].mean() * r.values["spikes"].mean())),
    ("needs", lacking),
    ("value", lambda recording: "bursting"),
    ("traceable", lambda recording: recording.values["v"][recording.values["spikes"]].mean()),
    ("pure", lambda recording: recording.values["v"].mean() + np.random.normal()),  # noqa: NPY002
    ("time", measure(unit="ms", needs=("spikes",))(lambda r: jnp.argmax(r.values["spikes"].any(1)))),
    ("vmapped", lambda recording: jax.pure_callback(
        lambda x: np.float32(np.mean(x)), jax.ShapeDtypeStruct((), jnp.float32), recording.values["v"],
        vmap_method="expand_dims")),
]  # fmt: skip


class Linear(nnx.Module):
    """A model that keeps its promises."""

    def __init__(self, features, length, horizons, outputs, *, rngs):
        self.shape, self.map = (horizons, outputs), nnx.Linear(length * features, horizons * outputs, rngs=rngs)

    def forecast(self, batch):
        return self.map(batch.inputs.reshape(len(batch.inputs), -1)).reshape(-1, *self.shape)

    def __call__(self, batch, *, train=False):
        return self.forecast(batch)


class NoModule:
    def __init__(self, features, *, rngs): ...


class Flat(Linear):
    def __call__(self, batch, *, train=False):
        return self.map(batch.inputs.reshape(len(batch.inputs), -1))


class ValueBranch(Linear):
    def __call__(self, batch, *, train=False):
        return self.forecast(batch) if batch.inputs.mean() > 0 else 2 * self.forecast(batch)


class Lowered(Linear):
    def __call__(self, batch, *, train=False):
        return self.forecast(batch).astype(jnp.bfloat16)


class Logarithm(Linear):
    def __call__(self, batch, *, train=False):
        return jnp.log(self.forecast(batch))


class Unseeded(Linear):
    def __init__(self, features, length, horizons, outputs, *, rngs):
        super().__init__(features, length, horizons, outputs, rngs=rngs)
        self.scale = np.random.normal()  # noqa: NPY002

    def __call__(self, batch, *, train=False):
        return self.scale * self.forecast(batch)


class AlwaysDropping(Linear):
    def __init__(self, features, length, horizons, outputs, *, rngs):
        super().__init__(features, length, horizons, outputs, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, batch, *, train=False):
        return self.dropout(self.forecast(batch), deterministic=False)


class OverTheBatch(Linear):
    def __call__(self, batch, *, train=False):
        return self.forecast(batch._replace(inputs=batch.inputs - batch.inputs.mean(0, keepdims=True)))


class Peeking(Linear):
    def __call__(self, batch, *, train=False):
        return self.forecast(batch) + batch.targets


class NoLevels(Linear):
    def __call__(self, batch, *, train=False):
        mean = self.forecast(batch)
        return Prediction(mean, jnp.stack([mean, mean], -1))


class WrongGradient(Linear):
    def __call__(self, batch, *, train=False):
        return wrong(self.forecast(batch))


class Growing(Linear):
    def __call__(self, batch, *, train=False):
        if train:
            self.seen = nnx.BatchStat(batch.inputs.mean())
        return self.forecast(batch)


MODELS = [
    ("kind", NoModule),
    ("traceable", ValueBranch),
    ("prediction", Flat),
    ("dtype", Lowered),
    ("finite", Logarithm),
    ("seeded", Unseeded),
    ("pure", AlwaysDropping),
    ("batch", OverTheBatch),
    ("blind", Peeking),
    ("quantiles", NoLevels),
    ("gradient", WrongGradient),
    ("training", Growing),
]


class Cell(ODESimulator):
    """A cell that keeps its promises: FitzHugh–Nagumo's, whose spike resets nothing."""

    a: jax.Array = param(0.7)
    tau: jax.Array = param(12.5, unit="ms", bounds=POSITIVE)

    class State(NamedTuple):
        v: jax.Array = state(-1.2)
        w: jax.Array = state(-0.6)

    def field(self, y, drive):
        return self.State(y.v - y.v**3 / 3 - y.w + drive, (y.v + self.a - 0.8 * y.w) / self.tau)

    def vector_field(self, y, drive):
        return self.field(y, drive)


class NoState(Cell):
    def vector_field(self, y, drive):
        return self.field(y, drive)[0]


class DrawnStart(Cell):
    def init(self, key):
        return self.State(jnp.asarray(np.random.normal()), jnp.zeros(()))  # noqa: NPY002


class Two(Cell):
    def relaxation(self, y, drive):
        return self.State(y.v + 1.0, y.w), self.State(jnp.ones_like(y.v), jnp.ones_like(y.w))


class Blown(Cell):
    def observables(self, y, drive):
        return {"odd": jnp.sqrt(y.v)}


class Undeclared(Cell):
    b: float = 0.8

    def vector_field(self, y, drive):
        return self.field(y, self.b * drive)


class Noisy(Cell):
    def vector_field(self, y, drive):
        return self.field(y, drive + np.random.normal())  # noqa: NPY002


class Coupled(Cell):
    def vector_field(self, y, drive):
        return self.field(y, drive + jnp.mean(y.v))


class StillAbove(Cell):
    def threshold(self, y):
        return y.v - 1.0

    def reset(self, y):
        return y._replace(v=jnp.ones_like(y.v) * 2.0)


class Single(Cell):
    def vector_field(self, y, drive):
        dv, dw = self.field(y, drive)
        return self.State(dv.astype(jnp.float32), dw)


class WrongField(Cell):
    def vector_field(self, y, drive):
        return self.field(y, drive + wrong(y.w))


class Map(SteppedSimulator):
    """A stepped simulator that keeps its promises."""

    decay: jax.Array = param(0.9)
    n: int = param(4, static=True)
    dt: float = param(1.0, unit="ms", static=True)

    class State(NamedTuple):
        x: jax.Array

    def connect(self, key):
        return self

    def init(self, key):
        return self.State(jax.random.uniform(key, (self.n,)))

    def draw(self, key, step):
        return 0.1 * jax.random.normal(jax.random.fold_in(key, step), (self.n,))

    def step(self, y, drive, noise):
        return self.State(self.decay * y.x + drive + noise), {}


class SameNoise(Map):
    def draw(self, key, step):
        return 0.1 * jax.random.normal(key, (self.n,))


class OtherAdvance(Map):
    @property
    def block(self):
        return 4

    def advance(self, y, drive, noise, steps):
        x = self.decay**steps * y.x + noise.sum(0)
        return self.State(x), {"x": jnp.broadcast_to(x, (steps, self.n))}


class DrawnNetwork(Map):
    def connect(self, key):
        return eqx.tree_at(lambda s: s.decay, self, jnp.asarray(np.random.uniform(), jnp.float32))  # noqa: NPY002


# Of those that need no run, only what they break is asked, so that this stays quick.
RUNS = ("recordables", "cut and continued", "vmapped")

SIMULATORS = [
    ("kind", Cell, ()),
    ("state", DrawnStart(), ()),
    ("equations", NoState(), ()),
    ("one equation", Two(), ()),
    ("recordables", Blown(), ()),
    ("parameters", Undeclared(), RUNS),
    ("pure", Noisy(), RUNS),
    ("cells apart", Coupled(), RUNS),
    ("reset", StillAbove(), RUNS),
    ("dtype", Single(), RUNS),
    ("gradient", WrongField(), RUNS),
    ("noise", SameNoise(), RUNS),
    ("advance", OtherAdvance(), RUNS),
    ("connect", DrawnNetwork(), RUNS),
]

BROKEN = [
    *((check_stimulus, promise, thing, {}) for promise, thing in STIMULI),
    *((check_measure, promise, thing, {}) for promise, thing in MEASURES),
    *((check_model, promise, thing, {}) for promise, thing in MODELS),
    *((check_simulator, promise, thing, {"skip": skip}) for promise, thing, skip in SIMULATORS),
]


@pytest.mark.parametrize(
    ("check", "promise", "thing", "options"), BROKEN, ids=[f"{c.__name__}-{p}" for c, p, *_ in BROKEN]
)
def test_a_broken_promise_is_caught_by_its_name(check, promise, thing, options):
    with pytest.raises(ContractError) as caught:
        check(thing, **options)
    assert promise in caught.value.promises
    kind = check.__name__.removeprefix("check_")
    assert f"of a {kind}" in str(caught.value)
    assert f"  {promise}: " in str(caught.value)
    assert str(caught.value).count("Remedy: ") == len(caught.value.promises)


def test_all_that_fails_is_listed_and_what_is_skipped_is_not_asked():
    class Both(Own):
        def __call__(self, t):
            return jnp.where(t > self.onset, jnp.nan, self.amplitude).astype(jnp.float16)

    with pytest.raises(ContractError, match="Both breaks 3 promises of a stimulus:") as caught:
        check_stimulus(Both())
    assert set(caught.value.promises) == {"finite", "dtype", "gradient"}
    check_stimulus(Both(), skip=("finite", "dtype", "gradient"))
    with pytest.raises(ValueError, match="a stimulus has no promise 'colour'; it has kind, value"):
        check_stimulus(Own(), skip=("colour",))


@pytest.mark.parametrize(
    "stimulus",
    [
        Constant(1.0), Step(2.0, 10.0, 50.0), PulseTrain(1.0, 50.0, 2.0, 3, 5.0), Ramp(2.0, 80.0, 10.0),
        Sine(1.0, 20.0), Chirp(1.0, 5.0, 60.0, 90.0, 3.0), Sampled(jnp.sin(jnp.arange(50.0)), 2.0, 0.0, True),
        Sampled(jnp.sin(jnp.arange(50.0)), 2.0, 0.0, False), WhiteNoise(KEY, 1.0, 0.5, 100.0),
        OrnsteinUhlenbeck(mean=0.0, sd=1.0, tau=5.0, duration=100.0, dt=0.5, key=KEY),
        Constant(1.0) + Step(jnp.ones(3), 3.0), Own(),
    ],
    ids=lambda s: type(s).__name__,
)  # fmt: skip
def test_our_stimuli_keep_their_promises(stimulus):
    check_stimulus(stimulus)


@pytest.mark.parametrize("name", [
    "spike_count", "rate", "population_rates", "isi_cv", "synchrony", "network_state", "first_spike", "regime",
    "v_mean", "v_sd", "v_min", "v_max",
])  # fmt: skip
def test_our_measures_keep_their_promises(name):
    check_measure(name)
    check_measure(name, neurons=None, skip=("vmapped",))


SIZES = {"features": 3, "length": 5, "horizons": 2}


@pytest.mark.parametrize(
    "model",
    [
        {"name": "lstm", "hidden": 4, "layers": 1},
        pytest.param({"name": "cnn_lstm", "hidden": 4, "layers": 1}, marks=pytest.mark.slow),
        pytest.param({"name": "compact", "lags": 3, "hidden": 4}, marks=pytest.mark.slow),
        {"name": "spike_count_lstm", "hidden": 4},
        pytest.param({"name": "neuron_tft", "hidden": 4, "heads": 2}, marks=pytest.mark.slow),
        Linear,
    ],
    ids=lambda m: m["name"] if isinstance(m, dict) else m.__name__,
)
def test_our_models_keep_their_promises(model):
    check_model(model, **SIZES, outputs=3)


@pytest.mark.parametrize(
    ("simulator", "amplitude"),
    [
        *((Cell(), 0.5), (HodgkinHuxley(), 10.0), (Izhikevich(), 10.0), (Map(), 0.0), (RingNetwork(positions=8), 0.0)),
        *(pytest.param(cell, 1.0, marks=pytest.mark.slow) for cell in (Pospischil(), CA1Pyramidal())),
        # Without a background: the gradient of its counts, whole numbers, is that of their mean.
        (Brunel(n_excitatory=8, n_inhibitory=2, rate_external=0.0), 1.0),
        pytest.param(
            IzhikevichReservoir(n_excitatory=8, n_inhibitory=2, update_interval=24.0), 1.0, marks=pytest.mark.slow
        ),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, float) else "",
)
def test_our_simulators_keep_their_promises(simulator, amplitude):
    check_simulator(simulator, stimulus=Constant(amplitude))
