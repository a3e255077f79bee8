"""The posterior of a fit by NUTS, and whether the sampler can be trusted: ranks of simulation-based calibration."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import Field
from scipy.special import chdtrc

from jneuro._types import Array, Config, Float, Int, Key
from jneuro.fitting.least_squares import with_columns
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.problem import Problem
from jneuro.prng import stream, trial_keys

__all__ = ["Calibration", "Posterior", "PosteriorOptions", "Prior", "calibrate", "posterior", "sample", "uniformity"]

_DEEPEST = 6
"""Most doublings of a trajectory: 63 steps."""

Residuals = Callable[[Float[Array, " unknown"]], Float[Array, " residual"]]


class PosteriorOptions(Config):
    """How to sample.

    Attributes:
        chains: independent chains, in one program.
        warmup: steps in which each chain finds its step size and its scales.
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
    """

    names: tuple[str, ...]
    ranks: Int[np.ndarray, "data unknown"]
    draws: int
    p_values: Float[np.ndarray, " unknown"]
    divergences: int


def posterior(
    problem: Problem, q: Float[Array, " unknown"], *, key: Key[Array, ""], options: PosteriorOptions | None = None
) -> tuple[Posterior, Calibration | None]:
    """Sample the posterior of a fit, and check the sampler on simulated data if that is wanted.

    Args:
        problem: the fit.
        q: the fitted vector, around which the chains start.
        key: random key.
        options: how.

    Returns:
        The draws, and the ranks.
    """
    options = options or PosteriorOptions()
    prior = Prior.of(problem.trainable, problem.first, options.spread)
    found = sample(
        problem.names, problem.residuals, problem.values, prior, q, key=stream(key, "chains"), options=options
    )
    if not options.calibration:
        return found, None
    ranks = calibrate(problem.names, problem.residuals, prior, key=stream(key, "calibration"), options=options)
    return found, ranks


def sample(
    names: tuple[str, ...],
    residuals: Residuals,
    values: Callable[[Float[Array, " unknown"]], Float[Array, " unknown"]],
    prior: Prior,
    q: Float[Array, " unknown"],
    *,
    key: Key[Array, ""],
    options: PosteriorOptions,
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

    Returns:
        The draws.
    """
    blackjax = _blackjax()
    draws, info = _chains(residuals, values, prior, q, key, options.chains, options.warmup, options.draws)
    draws, info = jax.tree.map(np.asarray, (draws, info))
    return Posterior(
        tuple(names),
        draws,
        np.atleast_1d(blackjax.diagnostics.potential_scale_reduction(draws)),
        np.atleast_1d(blackjax.diagnostics.effective_sample_size(draws)),
        int(info["diverged"].sum()),
        float(info["acceptance"].mean()),
        int(info["leapfrogs"].sum()),
    )


def calibrate(
    names: tuple[str, ...], residuals: Residuals, prior: Prior, *, key: Key[Array, ""], options: PosteriorOptions
) -> Calibration:
    """Draw vectors from the prior, simulate data for each, sample their posteriors, and rank the truths among them.

    All data sets are one program. Noise is added to the model's own prediction, so the recording plays no part. Each
    chain starts at its truth, which is itself a draw from the posterior, and moves on through its warm-up.

    Args:
        names: of the values.
        residuals: function of the vector, in units of the noise.
        prior: the prior.
        key: random key.
        options: how many data sets and draws.

    Returns:
        The ranks, and their test.
    """
    _blackjax()
    keys = trial_keys(key, options.calibration)
    count = options.calibration_draws
    ranks, diverged = _ranks(residuals, prior, keys, options.warmup, count, options.thin)
    ranks = np.asarray(ranks)
    p_values = np.asarray([uniformity(column, count) for column in ranks.T])
    return Calibration(tuple(names), ranks, count, p_values, int(diverged.sum()))


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


def _blackjax() -> Any:
    try:
        import blackjax
    except ImportError as error:
        raise ValueError("a posterior needs the package blackjax; pip install 'jneuro[fit]'") from error
    return blackjax


def _density(residuals, prior):
    """The logarithm of the posterior; its gradient takes one column of the Jacobian for each unknown."""

    def log_density(q):
        return prior.log_density(q) - 0.5 * jnp.sum(jnp.square(with_columns(q, residuals=residuals)))

    return log_density


def _whitener(residuals, prior, q):
    """A square root of the covariance that curvature and prior suggest."""
    jacobian = jax.jacfwd(residuals)(q)
    factor = jnp.linalg.cholesky(jacobian.T @ jacobian + jnp.diag(prior.precision))
    return jax.scipy.linalg.solve_triangular(factor, jnp.eye(q.size), lower=True).T


def _nuts(log_density, start, key, warmup: int, draws: int, thin: int = 1):
    """One chain."""
    blackjax = _blackjax()
    adaptation = blackjax.window_adaptation(
        blackjax.nuts,
        log_density,
        adaptation_info_fn=lambda *_: None,
        initial_step_size=0.5,
        max_num_doublings=_DEEPEST,
    )
    (state, parameters), _ = adaptation.run(stream(key, "warmup"), start, warmup)
    kernel = blackjax.nuts(log_density, **parameters)

    def step(state, key):
        state, info = kernel.step(key, state)
        seen = {
            "diverged": info.is_divergent,
            "acceptance": info.acceptance_rate,
            "leapfrogs": info.num_integration_steps,
        }
        return state, (state.position, seen)

    keys = trial_keys(stream(key, "draws"), draws * thin)
    _, (positions, seen) = lax.scan(step, state, keys)
    return positions[thin - 1 :: thin], seen


@eqx.filter_jit
def _chains(residuals, values, prior, q, key, chains: int, warmup: int, draws: int):
    """All chains: values, and what happened."""
    root = _whitener(residuals, prior, q)
    log_density = _density(residuals, prior)

    def one(key):
        start = 2 * jax.random.normal(stream(key, "start"), q.shape)
        z, seen = _nuts(lambda z: log_density(q + root @ z), start, key, warmup, draws)
        return jax.vmap(lambda z: values(q + root @ z))(z), seen

    return jax.vmap(one)(trial_keys(key, chains))


@eqx.filter_jit
def _ranks(residuals, prior, keys, warmup: int, draws: int, thin: int):
    """The rank of each true vector among the draws of the posterior of its own data, and the diverged draws."""

    def one(key):
        truth = prior.draw(stream(key, "truth"))
        made = residuals(truth)
        data = made + jax.random.normal(stream(key, "noise"), made.shape)

        def against(q):
            return residuals(q) - data

        root = _whitener(against, prior, truth)
        log_density = _density(against, prior)
        z, seen = _nuts(lambda z: log_density(truth + root @ z), jnp.zeros_like(truth), key, warmup, draws, thin)
        # Values grow with their unconstrained numbers: the ranks are the same.
        return jnp.sum(z @ root.T < 0, 0), seen["diverged"].sum()

    return jax.vmap(one)(keys)
