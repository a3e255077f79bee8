"""The posterior of a fit by NUTS, and whether the sampler can be trusted: ranks of simulation-based calibration."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field
from scipy.special import chdtrc

from jneuro.core.config import Config
from jneuro.core.progress import SILENT, Task
from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Array, Float, Int, Key
from jneuro.fitting.keeping import Keep, anew, named
from jneuro.fitting.nuts import Chain, Drawn, Ranked, Warm, blackjax_package, draw_chains, ranks_of, warm_chains
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.problem import Problem

__all__ = ["Calibration", "Posterior", "PosteriorOptions", "Prior", "calibrate", "posterior", "sample", "uniformity"]

_TOGETHER = 50
"""Draws of each chain in one program."""
_DATA_SETS = 20
"""Data sets in one program."""
_CHAINS = 0.3
"""Share of the chains in the work where there is a calibration, roughly."""
_SEEN = ("diverged", "acceptance", "leapfrogs")
"""What is kept of each draw beside its values."""

Residuals = Callable[[Float[Array, " unknown"]], Float[Array, " residual"]]


class PosteriorOptions(Config):
    """How to sample.

    Attributes:
        chains: independent chains, in one program.
        warmup: steps in which each chain leaves its start and finds its step size.
        draws: of each chain, after that.
        spread: standard deviation of the prior of a logarithm where a parameter has one bound, and of a start state.
        calibration: simulated data sets for the ranks of calibration; none by default.
        calibration_draws: posterior draws of each of them.
        thin: steps between two of those draws.
    """

    chains: int = Field(default=4, ge=2)
    warmup: int = Field(default=300, ge=20)
    draws: int = Field(default=500, ge=10)
    spread: float = Field(default=1.0, gt=0)
    calibration: int = Field(default=0, ge=0)
    calibration_draws: int = Field(default=99, ge=9)
    thin: int = Field(default=1, ge=1)


class Prior(eqx.Module):
    r"""Independent priors of unconstrained numbers.

    A parameter between two bounds is uniform between them, on the scale on which it moves (the logarithm, if both are
    positive): its unconstrained number is logistic. All others are normal around a centre, on a logarithmic scale.

    Attributes:
        centre: of the normal ones.
        spread: their standard deviation.
        bounded: which are uniform between bounds.
    """

    centre: Float[Array, " unknown"]
    spread: float = eqx.field(static=True)
    bounded: tuple[bool, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, trainable: Trainable, centre: Float[Array, " unknown"], spread: float = 1.0) -> "Prior":
        """The prior of a fit, whose vector begins with the trainable parameters; the simulator's values are centres."""
        bounded = [bool(np.isfinite(pair).all()) for pair in trainable.bounds]
        return cls(centre, spread, tuple(bounded + [False] * (len(centre) - len(bounded))))

    def log_density(self, q: Float[Array, " unknown"]) -> Float[Array, ""]:
        """The logarithm of the density of `q`, the transform's Jacobian included, up to a constant."""
        uniform = jax.nn.log_sigmoid(q) + jax.nn.log_sigmoid(-q)
        normal = -0.5 * jnp.square((q - self.centre) / self.spread)
        return jnp.sum(jnp.where(jnp.asarray(self.bounded), uniform, normal))

    def draw(self, key: Key[Array, ""]) -> Float[Array, " unknown"]:
        """Draw a vector."""
        normal = self.centre + self.spread * jax.random.normal(stream(key, "normal"), self.centre.shape)
        uniform = jax.random.logistic(stream(key, "uniform"), self.centre.shape)
        return jnp.where(jnp.asarray(self.bounded), uniform, normal)

    @property
    def precision(self) -> Float[Array, " unknown"]:
        """One over the variance of each."""
        return jnp.where(jnp.asarray(self.bounded), 3 / jnp.pi**2, 1 / self.spread**2)


class Posterior(NamedTuple):
    """Draws, and what they say about the sampler.

    Attributes:
        names: of the values.
        draws: in the parameters' units.
        r_hat: of every value; near 1 if the chains agree.
        ess: effective number of independent draws of every value.
        divergences: draws whose trajectory went astray.
        acceptance: mean acceptance probability.
        leapfrogs: gradients of all draws together, warm-up aside.
    """

    names: tuple[str, ...]
    draws: Float[np.ndarray, "chain draw unknown"]
    r_hat: Float[np.ndarray, " unknown"]
    ess: Float[np.ndarray, " unknown"]
    divergences: int
    acceptance: float
    leapfrogs: int

    @property
    def ok(self) -> bool:
        """Whether the chains agree to 1 %, hardly any draw diverged, and each value has 100 effective draws."""
        few = self.divergences <= 0.01 * self.draws[..., 0].size
        return bool(few and np.all(self.r_hat < 1.01) and np.all(self.ess > 100))

    def table(self) -> dict[str, dict[str, float]]:
        """Mean, standard deviation, quantiles and the two diagnostics of every value."""
        flat = self.draws.reshape(-1, len(self.names))
        low, middle, high = np.quantile(flat, [0.025, 0.5, 0.975], axis=0)
        columns = {"mean": flat.mean(0), "sd": flat.std(0, ddof=1), "low": low, "median": middle, "high": high}
        columns |= {"r_hat": self.r_hat, "ess": self.ess}
        return {name: {c: float(x[i]) for c, x in columns.items()} for i, name in enumerate(self.names)}


class Calibration(NamedTuple):
    """Ranks of the true values among posterior draws; uniform if sampler and likelihood are right.

    Attributes:
        names: of the values.
        ranks: of each simulated data set, from 0 to `draws`.
        draws: posterior draws of each data set.
        p_values: of the chi-squared test of uniformity.
        divergences: diverged draws, all data sets together.
        leapfrogs: gradients of all draws together, warm-up aside.
    """

    names: tuple[str, ...]
    ranks: Int[np.ndarray, "data unknown"]
    draws: int
    p_values: Float[np.ndarray, " unknown"]
    divergences: int
    leapfrogs: int


def posterior(
    problem: Problem,
    q: Float[Array, " unknown"],
    *,
    key: Key[Array, ""],
    options: PosteriorOptions | None = None,
    progress: Task = SILENT,
    keep: Keep = anew,
) -> tuple[Posterior, Calibration | None]:
    """Sample the posterior of a fit, and check the sampler on simulated data if that is wanted.

    Args:
        problem: the fit.
        q: the fitted vector, around which the chains start.
        key: random key.
        options: how.
        progress: told how it goes on, from 0 to 1.
        keep: given what is finished.

    Returns:
        The draws, and the ranks.
    """
    options = options or PosteriorOptions()
    prior = Prior.of(problem.trainable, problem.first, options.spread)
    part = progress.part("posterior", 0.0, _CHAINS if options.calibration else 1.0)
    how: dict[str, Any] = {"key": stream(key, "chains"), "options": options}
    how |= {"progress": part, "keep": named(keep, "posterior")}
    found = sample(problem.names, problem.residuals, problem.values, prior, q, **how)
    if not options.calibration:
        return found, None
    how |= {"key": stream(key, "calibration"), "progress": progress.part("calibration", _CHAINS, 1.0)}
    how |= {"keep": named(keep, "calibration")}
    return found, calibrate(problem.names, problem.residuals, prior, **how)


def sample(
    names: tuple[str, ...],
    residuals: Residuals,
    values: Callable[[Float[Array, " unknown"]], Float[Array, " unknown"]],
    prior: Prior,
    q: Float[Array, " unknown"],
    *,
    key: Key[Array, ""],
    options: PosteriorOptions,
    progress: Task = SILENT,
    keep: Keep = anew,
) -> Posterior:
    r"""Sample \(\exp(-\frac12 |r(q)|^2)\) times the prior, in coordinates in which it is nearly a normal distribution.

    Args:
        names: of the values.
        residuals: function of the vector, in units of the noise.
        values: function from the vector to the values.
        prior: the prior.
        q: a vector where the density is high. The chains start around it, twice as wide as its curvature suggests.
        key: random key.
        options: how many chains and draws.
        progress: told how it goes on, from 0 to 1.
        keep: given what is finished.

    Returns:
        The draws.
    """
    blackjax = blackjax_package()
    keys, size = trial_keys(key, options.chains), min(options.draws, _TOGETHER)
    warm = keep("warm-up", Warm, lambda: warm_chains(residuals, prior, q, keys, options.warmup))
    chains, count = Chain(*warm[1:]), -(-options.draws // size)
    each = jax.vmap(lambda key: trial_keys(stream(key, "draws"), count * size))(keys)
    pieces: list[Drawn] = []
    for i in range(count):
        progress.update(i / count, text=f"{i * size} of {options.draws} draws")
        some = each[:, i * size : (i + 1) * size]
        make = functools.partial(draw_chains, residuals, values, prior, q, warm.root, chains, some)
        pieces.append(keep(f"draws {i}", Drawn, make))
        chains = Chain(*pieces[-1][1:5])
    joined = {name: [np.asarray(getattr(p, name)) for p in pieces] for name in ("values", *_SEEN)}
    draws, *seen = (np.concatenate(parts, 1)[:, : options.draws] for parts in joined.values())
    return Posterior(
        tuple(names),
        draws,
        np.atleast_1d(blackjax.diagnostics.potential_scale_reduction(draws)),
        np.atleast_1d(blackjax.diagnostics.effective_sample_size(draws)),
        int(seen[0].sum()),
        float(seen[1].mean()),
        int(seen[2].sum()),
    )


def calibrate(
    names: tuple[str, ...],
    residuals: Residuals,
    prior: Prior,
    *,
    key: Key[Array, ""],
    options: PosteriorOptions,
    progress: Task = SILENT,
    keep: Keep = anew,
) -> Calibration:
    """Draw vectors from the prior, simulate data for each, sample their posteriors, and rank the truths among them.

    Noise is added to the model's own prediction, so the recording plays no part. Each chain starts around its truth,
    twice as wide as the curvature there suggests, and goes through a warm-up, as in `sample`.

    Args:
        names: of the values.
        residuals: function of the vector, in units of the noise.
        prior: the prior.
        key: random key.
        options: how many data sets and draws.
        progress: told how it goes on, from 0 to 1.
        keep: given what is finished.

    Returns:
        The ranks, and their test.
    """
    blackjax_package()
    wanted, count = options.calibration, options.calibration_draws
    size = min(wanted, _DATA_SETS)
    keys = trial_keys(key, -(-wanted // size) * size)
    pieces: list[Ranked] = []
    for i in range(0, wanted, size):
        progress.update(i / wanted, text=f"{i} of {wanted} data sets")
        some = functools.partial(ranks_of, residuals, prior, keys[i : i + size], options.warmup, count, options.thin)
        pieces.append(keep(f"data sets {i}", Ranked, some))
    ranks, diverged, leapfrogs = (np.concatenate(x)[:wanted] for x in zip(*pieces, strict=True))
    p_values = np.asarray([uniformity(column, count) for column in ranks.T])
    return Calibration(tuple(names), ranks, count, p_values, int(diverged.sum()), int(leapfrogs.sum()))


def uniformity(ranks: Int[np.ndarray, " data"], draws: int) -> float:
    """The p-value of a chi-squared test that ranks from 0 to `draws` are uniform.

    Args:
        ranks: the ranks.
        draws: the highest possible rank.

    Returns:
        The p-value; there are at most 20 bins, and in the mean five ranks in each.
    """
    bins = int(np.clip(len(ranks) // 5, 2, 20))
    edges = np.linspace(0, draws + 1, bins + 1)
    # A bin holds whole ranks, not all bins equally many.
    expected = np.diff(np.ceil(edges)) * len(ranks) / (draws + 1)
    seen = np.histogram(ranks, np.ceil(edges) - 0.5)[0]
    return float(chdtrc(bins - 1, np.sum(np.square(seen - expected) / expected)))
