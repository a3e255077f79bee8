"""What an autoencoder keeps: reconstruction by lag, the variance of its code, and principal components beside it."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from jneuro.core.random import stream
from jneuro.core.types import Float, Int
from jneuro.datasets.windows import Windows
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.comparison import compare_ratios
from jneuro.evaluation.forecasts import forecast, observe, targets
from jneuro.evaluation.metrics import interval, ratio_error, sums_by_run
from jneuro.report.components import Plot, Section
from jneuro.report.style import COLOURS, INK, panels

__all__ = ["Reconstruction", "code_spectrum", "explained", "principal_axes"]

_TEXT = """
{{ model }} squeezes windows of {{ window[0] }} frames × {{ window[1] }} neurons through {{ code }} numbers and explains
{{ r2.model.r2 | percent(1) }} of their variance
{%- if seeds | length > 1 %}
 (mean of {{ seeds | length }} starts {{ seeds_mean | estimate(seeds_ci95, 3) }}, 95 %)
{%- endif %}
; as many principal components explain {{ r2.components.r2 | percent(1) }}: it is {{ comparison.verdict }}
{%- if comparison.verdict != "not told apart" %} than they are{% else %} from them{% endif %}
, a difference of {{ comparison | bounds(4) }} (95 %, by run).
{% if comparison.difference < 0 %}
{% if same_as_components %}
{{ same_as_components }} components do as well.
{% else %}
No {{ code }} components are needed to do as well.
{% endif %}
{% endif %}

The oldest frame is reconstructed with R² {{ oldest.model | fixed(3) }} (components {{ oldest.components | fixed(3) }}),
the newest with {{ newest.model | fixed(3) }} ({{ newest.components | fixed(3) }}).

The variance of the code is spread over {{ participation[0] | fixed(1) }} dimensions (participation ratio);
{{ for_90[0] }} of {{ code }} hold 90 % of it.
"""


class Reconstruction(Analysis):
    """R² of every reconstructed frame, beside that of as many principal components of the whole window as the code has.

    Attributes:
        model: an autoencoder.
        fitted: training windows of which the components are computed, at most.
        rounds: of the power iteration that finds them.
    """

    name: Literal["reconstruction"] = "reconstruction"
    model: str
    fitted: int = Field(default=10_000, ge=10)
    rounds: int = Field(default=3, ge=1)

    def check(self, windows, models) -> None:
        """Needs its model."""
        if self.model not in models:
            raise ValueError(f"reconstruction: model = {self.model!r} is none of the models {', '.join(models)}")

    def compute(self, study: Study) -> Findings:
        """Reconstruct the test windows, by every seed and by components."""
        windows, models = study.windows_of[self.model], study.models[self.model]
        starts = np.asarray(windows.starts["test"])
        truth = targets(windows, starts).astype(np.float64)
        runs = starts // windows.frames_per_trial
        mean, axes = self._components(study, windows, int(models[0].config.code))  # pyright: ignore
        flat = truth.reshape(len(truth), -1) - mean
        parts = flat @ axes.T
        linear = (parts @ axes + mean).reshape(truth.shape)
        by_lag: dict[str, Any] = {"components": explained(linear, truth, runs)}
        seeds = [study.predictions[self.model], *(forecast(m, windows, starts) for m in models[1:])]
        totals = [explained(p, truth, runs)["r2"] for p in seeds]
        by_lag["model"] = explained(seeds[0], truth, runs)
        codes = [observe(m, windows, starts, lambda p: p.diagnostics["code"]) for m in models]
        spectra = [code_spectrum(code) for code in codes]
        # What is left of the squared error after each further component, over the same mean as `explained` takes.
        spread = np.square(truth - truth.mean(0)).sum()
        growth = 1 - (np.square(flat).sum() - np.cumsum(np.square(parts).sum(0))) / spread
        enough = np.flatnonzero(growth >= totals[0])
        numbers = {
            "model": self.model,
            "code": len(spectra[0]),
            "window": list(truth.shape[1:]),
            "r2": {name: {k: v for k, v in found.items() if k != "lags"} for name, found in by_lag.items()},
            "seeds": totals,
            "seeds_mean": float(np.mean(totals)),
            "seeds_ci95": interval(totals),
            "comparison": compare_ratios(*_gain(seeds[0], linear, truth, runs)),
            "oldest": {name: found["lags"][0] for name, found in by_lag.items()},
            "newest": {name: found["lags"][-1] for name, found in by_lag.items()},
            "participation": [float(1 / np.square(s).sum()) for s in spectra],
            "for_90": [int(np.searchsorted(np.cumsum(s), 0.9) + 1) for s in spectra],
            "same_as_components": int(enough[0] + 1) if len(enough) else None,
        }
        arrays = {
            "lag": (("lag",), np.asarray(windows.horizons) * windows.dt),
            **{f"r2.{name}": (("lag",), np.asarray(found["lags"])) for name, found in by_lag.items()},
            "spectrum": (("seed", "component"), np.stack(spectra)),
            "growth": (("count",), growth),
        }
        return Findings(numbers, arrays)

    def section(self, findings: Findings) -> Section:
        """The verdict against principal components, R² by lag, and how many dimensions the code uses."""
        plot = Plot(
            "reconstruction",
            "Reconstruction by lag, and the variance of the code",
            "R² of each reconstructed frame of the autoencoder and of principal components, and the cumulative "
            "variance of the code beside the R² of ever more components.",
            "Where the dotted line crosses the orange curve, so many components do as well as the autoencoder.",
            _draw(findings),
        )
        return Section("What the code keeps", _TEXT, (plot,))

    def _components(self, study: Study, windows: Windows, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and principal axes of training windows."""
        starts = np.asarray(windows.starts["train"])
        kept = starts[np.unique(np.linspace(0, len(starts) - 1, self.fitted).round().astype(int))]
        study.tell("principal components")
        values = targets(windows, kept).reshape(len(kept), -1)
        key = stream(study.key, "components")
        return values.mean(0, dtype=np.float64), principal_axes(values, count, rounds=self.rounds, key=key)


def principal_axes(
    values: Float[np.ndarray, "window value"], count: int, *, rounds: int, key
) -> Float[np.ndarray, "component value"]:
    """The first principal axes, by power iteration of a random subspace.

    Args:
        values: the windows.
        count: of the axes; at most as many as there are windows or values.

    Other Args:
        rounds: of the iteration.
        key: draws the subspace.

    Returns:
        Orthonormal axes, by descending variance.

    References:
        Halko, Martinsson & Tropp, SIAM Review 53 (2011) 217, algorithm 4.4.
    """
    x = jnp.asarray(values) - jnp.asarray(values.mean(0))[None]
    wide = min(count + 20, *x.shape)
    basis = jax.random.normal(key, (x.shape[1], wide), x.dtype)
    for _ in range(rounds):
        basis = jnp.linalg.qr(x.T @ (x @ basis))[0]
    _, _, axes = jnp.linalg.svd(x @ basis, full_matrices=False)
    return np.asarray(axes[:count] @ basis.T, np.float64)


def explained(
    predicted: Float[np.ndarray, "window lag target"],
    truth: Float[np.ndarray, "window lag target"],
    runs: Int[np.ndarray, " window"],
) -> dict[str, Any]:
    """R² of a reconstruction.

    Args:
        predicted: the reconstruction.
        truth: the windows.
        runs: the run of each, the independent clusters of the standard error.

    Returns:
        `r2` and `r2_se` of whole windows, and `lags`, the R² of each frame.
    """
    error, spread = np.square(predicted - truth).sum(2), np.square(truth - truth.mean(0)).sum(2)
    a, b = sums_by_run(runs, error, spread)
    return {
        "r2": float(1 - a.sum() / b.sum()),
        "r2_se": ratio_error(a, b),
        "lags": (1 - error.sum(0) / spread.sum(0)).tolist(),
    }


def code_spectrum(code: Float[np.ndarray, "window code"]) -> Float[np.ndarray, " component"]:
    """Shares of a code's variance along its own principal axes, descending.

    Args:
        code: of each window.

    Returns:
        The shares, which sum to one.
    """
    values = np.linalg.eigvalsh(np.cov(code.astype(np.float64), rowvar=False))[::-1]
    return np.maximum(values, 0) / values.sum()


def _gain(model: np.ndarray, other: np.ndarray, truth: np.ndarray, runs: np.ndarray) -> list[np.ndarray]:
    """Squared error that a model removes of another's, and the squared deviation of what came, by run."""
    gained = np.square(other - truth) - np.square(model - truth)
    return sums_by_run(runs, gained, np.square(truth - truth.mean(0)))


def _draw(findings: Findings):
    """R² by lag, and the variance of the code."""
    numbers, arrays = findings.numbers, {name: values for name, (_, values) in findings.arrays.items()}
    figure, (left, right) = panels(2.9, columns=2)
    for name, colour, label in (("model", COLOURS[0], numbers["model"]), ("components", "#D55E00", "components")):
        left.plot(arrays["lag"], arrays[f"r2.{name}"], color=colour, label=label)
    left.set_xlabel("frame, before the last [ms]")
    left.set_ylabel("R²")
    left.set_ylim(min(0.0, *left.get_ylim()), 1)
    left.legend(frameon=False, fontsize=8)
    for seed, spectrum in enumerate(arrays["spectrum"]):
        label = "variance of the code" if not seed else None
        right.plot(np.arange(1, len(spectrum) + 1), np.cumsum(spectrum), color=COLOURS[0], alpha=0.8, label=label)
    count = np.arange(1, len(arrays["growth"]) + 1)
    right.plot(count, arrays["growth"], color="#D55E00", label="R² of components")
    right.axhline(numbers["r2"]["model"]["r2"], color=INK, linewidth=0.8, linestyle=":", label="R² of the model")
    right.set_xlabel("dimensions")
    right.set_ylabel("share")
    right.set_ylim(0, 1)
    right.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
