"""Profiles and the posterior of a fit, as numbers for metrics.json and arrays for fit.zarr."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jneuro.core.config import ConfigError
from jneuro.core.progress import Progress
from jneuro.core.random import stream
from jneuro.core.types import Array, Key
from jneuro.fitting.config import UncertaintyOptions
from jneuro.fitting.fitter import Fit
from jneuro.fitting.keeping import Keep
from jneuro.fitting.posterior import Posterior, posterior
from jneuro.fitting.uncertainty import profiles

__all__ = ["uncertainties"]


def uncertainties(
    fit: Fit,
    options: UncertaintyOptions,
    truth: Mapping[str, float],
    key: Key[Array, ""],
    progress: Progress,
    keep: Keep,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compute what the configuration asks for; to be called under `double_precision`.

    Args:
        fit: the fit.
        options: what is wanted.
        truth: the values that are known.
        key: random key.
        progress: told how it goes on.
        keep: given what is finished.

    Returns:
        Metrics, and arrays with their dimensions.

    Raises:
        ConfigError: for a value that is not fitted, or a package that is not installed.
    """
    metrics: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    try:
        if options.profile:
            found = []
            with progress.begin("profiles", len(options.profile), "parameters") as task:
                for i, name in enumerate(options.profile):
                    task.update(i, text=name)
                    found += profiles(fit.problem, fit.q, [name], points=options.points)
            metrics["profiles"] = [
                {"name": p.name, "intervals": {k: list(v) for k, v in p.intervals.items()}, "truth": truth.get(p.name)}
                for p in found
            ]
            for i, p in enumerate(found):
                arrays[f"profile_{i}_value"] = ((f"profile_{i}",), p.value)
                arrays[f"profile_{i}_excess"] = ((f"profile_{i}",), p.excess)
        if options.posterior is not None:
            with progress.begin("uncertainty", 1.0) as task:
                how: dict[str, Any] = {"options": options.posterior, "progress": task, "keep": keep}
                drawn, ranks = posterior(fit.problem, fit.q, key=stream(key, "posterior"), **how)
            metrics["posterior"] = _summary(drawn) | {"truth": {name: truth.get(name) for name in drawn.names}}
            arrays["posterior"] = (("chain", "draw", "unknown"), drawn.draws)
            if ranks is not None:
                p_values = dict(zip(ranks.names, map(float, ranks.p_values), strict=True))
                metrics["calibration"] = {
                    "data_sets": len(ranks.ranks),
                    "draws": ranks.draws,
                    "p_values": p_values,
                    "divergences": ranks.divergences,
                    "gradients": ranks.leapfrogs,
                }
                arrays["ranks"] = (("data_set", "unknown"), np.asarray(ranks.ranks))
    except ValueError as error:
        raise ConfigError(f"fit.uncertainty: {error}") from error
    return metrics, arrays


def _summary(drawn: Posterior) -> dict[str, Any]:
    """What is kept of a posterior beside its draws."""
    return {
        "values": drawn.table(),
        "ok": drawn.ok,
        "divergences": drawn.divergences,
        "acceptance": drawn.acceptance,
        "gradients": drawn.leapfrogs,
        "chains": len(drawn.draws),
        "draws": drawn.draws.shape[1],
    }
