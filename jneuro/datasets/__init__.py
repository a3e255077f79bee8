"""Windows over recordings: inputs, targets and splits, without copies."""

from jneuro.datasets.scaling import Scaling, fit_scaling
from jneuro.datasets.splits import SPLITS, Fractions, split_indices
from jneuro.datasets.tasks import WindowConfig, window
from jneuro.datasets.windows import Batch, Windows, window_starts

__all__ = [
    "SPLITS",
    "Batch",
    "Fractions",
    "Scaling",
    "WindowConfig",
    "Windows",
    "fit_scaling",
    "split_indices",
    "window",
    "window_starts",
]
