"""Windows over recordings: inputs, targets and splits, without copies."""

from jneuro.datasets.scaling import Scaling, fit_scaling
from jneuro.datasets.splits import SPLITS, Fractions, split_indices
from jneuro.datasets.tasks import HorizonRange, Horizons, Scale, WindowConfig, window
from jneuro.datasets.variables import FROM_SPIKES, columns_of, needed
from jneuro.datasets.windows import Batch, Windows, window_starts

__all__ = [
    "FROM_SPIKES",
    "SPLITS",
    "Batch",
    "Fractions",
    "HorizonRange",
    "Horizons",
    "Scale",
    "Scaling",
    "WindowConfig",
    "Windows",
    "columns_of",
    "fit_scaling",
    "needed",
    "split_indices",
    "window",
    "window_starts",
]
