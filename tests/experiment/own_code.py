"""A folder of one's own: cells, models, analyses and fits beside the YAML files that name them."""

NUMBERS = """
RESISTANCE = 10.0
"""

CELLS = '''
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jneuro.core.types import Array
from jneuro.simulators.base import POSITIVE, Param, param, state
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.solvers import Heun
from jneuro.simulators.stimuli import Stimulus


class Leaky(ODESimulator):
    """A passive membrane."""

    tau: Param = param(10.0, unit="ms", bounds=POSITIVE)
    input_unit = "nA"

    class State(NamedTuple):
        v: Array = state(-65.0, unit="mV")

    def vector_field(self, y, drive):
        return self.State((-65.0 - y.v + 10.0 * drive) / self.tau)


class Buzz(Stimulus):
    """A sine with a phase of its own in every run."""

    amplitude: Array
    phase: Array

    def __init__(self, amplitude, *, key):
        self.amplitude, self.phase = jnp.asarray(amplitude), jax.random.uniform(key, maxval=6.28)

    def __call__(self, t):
        return self.amplitude * (jnp.sin(0.2 * t + self.phase) + jnp.sin(0.07 * t * self.phase))

    def jumps(self):
        return jnp.zeros(0)


def halves():
    return Heun()
'''

MODELS = '''
import jax.numpy as jnp
import optax
from flax import nnx
from my_numbers import RESISTANCE


class Linear(nnx.Module):
    """One linear map."""

    def __init__(self, features, length, horizons, outputs, *, rngs, gain=1.0):
        self.shape, self.gain = (horizons, outputs), gain * RESISTANCE / 10
        self.map = nnx.Linear(length * features, horizons * outputs, rngs=rngs)

    def __call__(self, batch):
        return self.gain * self.map(batch.inputs.reshape(len(batch.inputs), -1)).reshape(-1, *self.shape)


def huber(prediction, batch, delta=1.0):
    return optax.huber_loss(prediction.mean, batch.targets, delta=delta).mean((1, 2))


def bias(prediction, batch):
    return (prediction.mean - batch.targets).mean((1, 2))


def halving(step):
    return 0.5 ** (step / 100)


class Bell:
    """Writes where it was."""

    def on_epoch(self, record):
        assert record.epoch >= 0


class Last:
    """The last value, again and again."""

    def fit(self, windows):
        own, count = jnp.asarray(windows.own_inputs), len(windows.horizons)
        return lambda batch: jnp.repeat(batch.inputs[:, -1:][..., own], count, axis=1)
'''

ANALYSES = '''
import numpy as np
from jneuro.evaluation.analysis import Analysis, Findings


class LargestError(Analysis):
    """The largest error of a model."""

    model: str

    def compute(self, study):
        error = np.abs(study.predictions[self.model])
        return Findings({"largest": float(error.max()), "of": {"windows": len(error)}})


class Broken(Analysis):
    """Fails."""

    def compute(self, study):
        return study.no_such_thing
'''

EXPERIMENT = """\
name: own
seed: 1
simulation:
  simulator: {name: "my_cells:Leaky", tau: 8}
  stimulus: {name: "my_cells:Buzz", amplitude: 2}
  solver: "my_cells:halves"
  runs: 5
  duration_ms: 80
  snapshot_every_ms: 40
windows:
  discard_ms: 0
  length_ms: 8
  stride_ms: 4
  horizons_ms: [1]
  measurement_noise: 0
  fractions: {train: 0.6, validation: 0.2, test: 0.2}
models:
  mine: {model: {name: "my_models:Linear", gain: 0.5}}
train:
  batch_size: 16
  epochs: 2
  warmup_epochs: 0
  plateau: null
  optimizer: {name: adam, learning_rate: 1e-3}
  loss: {name: "my_models:huber", delta: 0.5}
  metrics: ["my_models:bias"]
  schedule: "my_models:halving"
  callbacks: ["my_models:Bell"]
evaluate:
  ceiling: null
  trace_ms: 20
  baselines: [persistence, "my_models:Last"]
  analyses:
    - {name: "my_analyses:LargestError", model: mine}
    - {name: "my_analyses:Broken"}
"""

FITS = '''
import jax.numpy as jnp
from jneuro.fitting.solution import Solution


class Mean:
    """The error of the mean potential."""

    def __init__(self, sd=1.0):
        self.sd = sd

    def residuals(self, model, data, target):
        return (model.v.mean(1) - data.v.mean(1)) / self.sd


class Grid:
    """The best of some values around the simulator's own."""

    def __init__(self, points):
        self.points = points

    def solve(self, residuals, key, progress):
        first = residuals.problem.first
        q = first[None] + jnp.linspace(-0.5, 0.5, self.points)[:, None]
        cost = jnp.stack([residuals.cost(x) for x in q])
        return Solution(q, cost, cost[:, None], jnp.ones(len(q), bool), len(q))
'''

FIT = """\
name: own_fit
simulation:
  simulator: {name: "my_cells:Leaky", tau: 10}
  stimulus: {name: step, amplitude: 2, onset: 2}
  runs: 1
  duration_ms: 10
  snapshot_every_ms: 10
  record_every_ms: 0.5
  record: [v, current]
simulator: {name: "my_cells:Leaky", tau: 10}
fit:
  trainable: {tau: [2, 50]}
  solver: "my_cells:halves"
  objective: [voltage, {name: "my_fits:Mean", sd: 0.5}]
  method: {name: "my_fits:Grid", points: 5}
"""

OPTIMIZERS = """
import optax
from my_numbers import RESISTANCE


def make_optimizer(rate):
    return optax.chain(optax.clip_by_global_norm(RESISTANCE), optax.sgd(rate, momentum=0.9))
"""

READERS = """
import numpy as np

import jneuro as jn


def read_csv(path, time="t"):
    table = np.genfromtxt(path, delimiter=",", names=True)
    dt = float(np.diff(table[time])[0])
    columns = {name: table[name].reshape(5, -1)[..., None] for name in ("v", "current")}
    return jn.recordings.from_arrays(**columns, dt=dt)
"""

CSV = """\
name: own_csv
recording: {path: trace.csv, reader: {name: "my_readers:read_csv", time: t_ms}}
windows: {discard_ms: 0, length_ms: 8, stride_ms: 4, horizons_ms: [1], measurement_noise: 0, \
fractions: {train: 0.6, validation: 0.2, test: 0.2}}
models:
  mine: {model: {name: "my_models:Linear", gain: 0.5}}
train: {batch_size: 16, epochs: 1, optimizer: {name: "my_optimizers:make_optimizer", rate: 0.01}, \
loss: {name: "my_models:huber", delta: 0.5}}
evaluate: {ceiling: null, trace_ms: 20, baselines: [persistence]}
"""

RULES = """
import jax.numpy as jnp

import jneuro as jn
from my_distances import apart


class Ring(jn.Rule):
    k: int = 4

    def row(self, key, pre, n_post):
        return apart(jnp.arange(n_post), pre, n_post) <= self.k


def wide():
    return Ring(6)
"""

DISTANCES = """
import jax.numpy as jnp


def apart(a, b, n):
    return jnp.minimum(abs(a - b), n - abs(a - b))
"""

NETWORK = """\
name: own_rule
simulation:
  simulator: {name: brunel, n_excitatory: 16, n_inhibitory: 4, rule: {name: "my_rules:Ring", k: 4}}
  runs: 2
  duration_ms: 20
  snapshot_every_ms: 10
models: {compact: {model: {name: compact, lags: 2, mixing_lags: 2}}}
train: {batch_size: 4}
windows: {discard_ms: 0, length_ms: 2, stride_ms: 1, horizons_ms: [1], \
fractions: {train: 0.6, validation: 0.2, test: 0.2}, split: report}
evaluate: {ceiling: null, trace_ms: 5}
"""

SWEEP = """\
name: own_sweep
simulation: {simulator: {name: "my_cells:Leaky"}, duration_ms: 10}
sweep: {design: grid, axes: {tau: {low: 5, high: 20, points: 3}}}
measures: [v_min]
"""

TRACE = "\n".join(["t_ms,v,current", *(f"{t},{-65 + t % 7},{t % 5}" for t in range(400))])

FILES = {
    "my_numbers.py": NUMBERS,
    "my_cells.py": CELLS,
    "my_models.py": MODELS,
    "my_analyses.py": ANALYSES,
    "my_fits.py": FITS,
    "own.yaml": EXPERIMENT,
    "own_fit.yaml": FIT,
    "my_optimizers.py": OPTIMIZERS,
    "my_readers.py": READERS,
    "own_csv.yaml": CSV,
    "trace.csv": TRACE,
    "my_rules.py": RULES,
    "my_distances.py": DISTANCES,
    "own_rule.yaml": NETWORK,
    "own_sweep.yaml": SWEEP,
}


def write(folder):
    """Write the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder
