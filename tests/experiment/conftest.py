"""One small experiment, run once."""

from types import SimpleNamespace

import jax
import pytest

from jneuro.experiment import run
from jneuro.experiment.plan import load_plan

TINY = """\
name: tiny
seed: 3
simulation:
  simulator: {name: brunel, n_excitatory: 16, n_inhibitory: 4, rule: {name: bernoulli, p: 0.3}}
  runs: 5
  duration_ms: 400
  snapshot_every_ms: 50
windows:
  discard_ms: 50
  measurement_noise: 0.2
  length_ms: 20
  stride_ms: 5
  horizons_ms: [1, 5]
  fractions: {train: 0.6, validation: 0.2, test: 0.2}
models:
  compact: {model: {name: compact, lags: 4, hidden: 8, mixing_hidden: 4}, seeds: 2}
train: {batch_size: 32, epochs: 2, optimizer: {name: adam, learning_rate: 3e-3}, steps_per_call: 3}
evaluate:
  baselines: [persistence, {name: ar, order: 3}, {name: var, order: 2}, {name: lookup, bins: 10}]
  ceiling: {futures: 4, max_states: 6}
  leaky_twins: [compact]
  trace_ms: 50
  analyses:
    - {name: error_analysis, bins: 3, threshold: -50}
    - {name: interpretability, windows: 40, attributed: 40, steps: 2, draws: 20}
claims:
  - text: a compact model beats persistence
    quantity: test.compact.r2
    against: baselines.persistence.r2
  - text: it needs its own past
    quantity: analyses.interpretability.importance.compact.own past.comparison
  - {text: it is fast on a GPU, why: needs a GPU}
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The configuration's file, its run folder and its metrics."""
    home = tmp_path_factory.mktemp("runs")
    file = home / "tiny.yaml"
    file.write_text(TINY)
    with jax.numpy_rank_promotion("raise"):
        metrics = run(file, out=home / "whole")
    return SimpleNamespace(home=home, file=file, folder=home / "whole", metrics=metrics, plan=load_plan(file))
