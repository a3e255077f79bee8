"""The section on what an autoencoder keeps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.data import ReportData, number
from jneuro.report.style import INK, panels

__all__ = ["draw_reconstruction", "say_reconstruction"]

_BLUE, _ORANGE = "#0072B2", "#D55E00"


def say_reconstruction(numbers: Mapping[str, Any]) -> list[str]:
    """The verdict against principal components, and how many dimensions the code uses."""
    model, linear = (numbers["r2"][name] for name in ("model", "components"))
    apart = number(model["r2"]) - number(linear["r2"])
    clear = abs(apart) > 2 * np.hypot(number(model["r2_se"]), number(linear["r2_se"]))
    relation = ("beats them" if apart > 0 else "falls short of them") if clear else "is not told apart from them"
    frames, columns = numbers["window"]
    seeds = numbers["seeds"]
    over = f" (mean of {len(seeds)} starts {numbers['seeds_mean']:.3f} ± {number(numbers['seeds_ci95']):.3f}, 95 %)"
    count = numbers["same_as_components"]
    same = f"{count} components do as well." if count else f"No {numbers['code']} components are needed to do as well."
    return [
        f"{numbers['model']} squeezes windows of {frames} frames × {columns} neurons through {numbers['code']} numbers "
        f"and explains {number(model['r2']):.1%} of their variance{over if len(seeds) > 1 else ''}; as many principal "
        f"components explain {number(linear['r2']):.1%}: it {relation}. {same if apart < 0 else ''}".rstrip(),
        f"The oldest frame is reconstructed with R² {numbers['oldest']['model']:.3f} (components "
        f"{numbers['oldest']['components']:.3f}), the newest with {numbers['newest']['model']:.3f} "
        f"({numbers['newest']['components']:.3f}).",
        f"The variance of the code is spread over {numbers['participation'][0]:.1f} dimensions (participation ratio); "
        f"{numbers['for_90'][0]} of {numbers['code']} hold 90 % of it.",
    ]


def draw_reconstruction(data: ReportData, arrays: Mapping[str, np.ndarray]) -> Figure:
    """R² by lag, and the variance of the code.

    Args:
        data: the report's.
        arrays: the analysis's.
    """
    figure, (left, right) = panels(2.9, columns=2)
    numbers = data.analyses["reconstruction"][0]
    for name, colour, label in (("model", _BLUE, numbers["model"]), ("components", _ORANGE, "components")):
        left.plot(arrays["lag"], arrays[f"r2.{name}"], color=colour, label=label)
    left.set_xlabel("frame, before the last [ms]")
    left.set_ylabel("R²")
    left.set_ylim(min(0.0, *left.get_ylim()), 1)
    left.legend(frameon=False, fontsize=8)
    for seed, spectrum in enumerate(arrays["spectrum"]):
        label = "variance of the code" if not seed else None
        right.plot(np.arange(1, len(spectrum) + 1), np.cumsum(spectrum), color=_BLUE, alpha=0.8, label=label)
    count = np.arange(1, len(arrays["growth"]) + 1)
    right.plot(count, arrays["growth"], color=_ORANGE, label="R² of components")
    right.axhline(
        number(numbers["r2"]["model"]["r2"]), color=INK, linewidth=0.8, linestyle=":", label="R² of the model"
    )
    right.set_xlabel("dimensions")
    right.set_ylabel("share")
    right.set_ylim(0, 1)
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
