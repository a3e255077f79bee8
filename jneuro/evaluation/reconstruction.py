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
from jneuro.evaluation.forecasts import forecast, observe, targets
from jneuro.evaluation.metrics import interval, ratio_error

__all__ = ["Reconstruction", "code_spectrum", "explained", "principal_axes"]


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

    def analyse(self, study: Study) -> Findings:
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
    _, cluster = np.unique(runs, return_inverse=True)
    a, b = (np.bincount(cluster, x.sum(1)) for x in (error, spread))
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
