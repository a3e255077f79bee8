"""One experiment, from its configuration to its report: simulate, window, train, evaluate, report."""

from jneuro.experiment.folder import RunFolder, versions
from jneuro.experiment.plan import Plan, Training, load_plan, reopen, resolve
from jneuro.experiment.reporting import report_stage
from jneuro.experiment.running import STAGES, Observer, Silent, require_trained, run, run_stages
from jneuro.experiment.scoring import evaluate_stage
from jneuro.experiment.simulation import Runs, build_runs, simulate_stage
from jneuro.experiment.training import cut_windows, load_model, train_stage

__all__ = [
    "STAGES",
    "Observer",
    "Plan",
    "RunFolder",
    "Runs",
    "Silent",
    "Training",
    "build_runs",
    "cut_windows",
    "evaluate_stage",
    "load_model",
    "load_plan",
    "reopen",
    "report_stage",
    "require_trained",
    "resolve",
    "run",
    "run_stages",
    "simulate_stage",
    "train_stage",
    "versions",
]
