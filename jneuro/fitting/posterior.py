"""The posterior of a fit by NUTS, and whether the sampler can be trusted: ranks of simulation-based calibration."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from pydantic import Field
from scipy.special import chdtrc

from jneuro.core.config import Config
from jneuro.core.progress import SILENT, Task
from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Array, Float, Int, Key
from jneuro.fitting.methods.levenberg_marquardt import with_columns
from jneuro.fitting.parameters import Trainable
from jneuro.fitting.problem import CellProblem
from jneuro.fitting.solution import Keep, anew, faults, named
from jneuro.fitting.uncertainty import Likelihood

__all__ = ["Calibration", "Posterior", "PosteriorOptions", "Prior", "calibrate", "posterior", "sample", "uniformity"]

_TOGETHER = 50
"""Draws of each chain in one program."""
_DATA_SETS = 20
"""Data sets in one program."""
_CHAINS = 0.3
"""Share of the chains in the work where there is a calibration, roughly."""
_DEEPEST, _SHALLOW = 6, 3
"""Most doublings of a trajectory: 63 steps; and 7 in the warm-up, whose first step sizes may be far too small."""
_ACCEPTANCE = 0.8
"""Mean acceptance at which the warm-up aims."""
_SEEN = ("diverged", "acceptance", "leapfrogs")
"""What is kept of each draw beside its values."""


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
    def reason(self) -> str:
        """Why the draws should not be used; empty if the chains agree and enough draws are independent."""
        diverged = self.divergences / self.draws[..., 0].size
        r_hat, ess = float(np.max(self.r_hat)), float(np.min(self.ess))
        return "; ".join(faults(chains=(r_hat, ess, diverged)))

    @property
    def ok(self) -> bool:
        """Whether the chains agree to 1 %, hardly any draw diverged, and each value has 100 effective draws."""
        return not self.reason

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
    problem: CellProblem,
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
    found = sample(problem, prior, q, **how)
    if not options.calibration:
        return found, None
    how |= {"key": stream(key, "calibration"), "progress": progress.part("calibration", _CHAINS, 1.0)}
    how |= {"keep": named(keep, "calibration")}
    return found, calibrate(problem, prior, **how)


def sample(
    problem: Likelihood,
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
        problem: the fit, or another least-squares problem.
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
    warm = keep("warm-up", Warm, lambda: warm_chains(problem.residuals, prior, q, keys, options.warmup))
    chains, count = Chain(*warm[1:]), -(-options.draws // size)
    each = jax.vmap(lambda key: trial_keys(stream(key, "draws"), count * size))(keys)
    pieces: list[Drawn] = []
    for i in range(count):
        progress.update(i / count, text=f"{i * size} of {options.draws} draws")
        some = each[:, i * size : (i + 1) * size]
        about = (problem.residuals, problem.values, prior, q, warm.root)
        make = functools.partial(draw_chains, *about, chains, some)
        pieces.append(keep(f"draws {i}", Drawn, make))
        chains = Chain(*pieces[-1][1:5])
    joined = {name: [np.asarray(getattr(p, name)) for p in pieces] for name in ("values", *_SEEN)}
    draws, *seen = (np.concatenate(parts, 1)[:, : options.draws] for parts in joined.values())
    return Posterior(
        tuple(problem.names),
        draws,
        np.atleast_1d(blackjax.diagnostics.potential_scale_reduction(draws)),
        np.atleast_1d(blackjax.diagnostics.effective_sample_size(draws)),
        int(seen[0].sum()),
        float(seen[1].mean()),
        int(seen[2].sum()),
    )


def calibrate(
    problem: Likelihood,
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
        problem: the fit, or another least-squares problem.
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
        some = keys[i : i + size], options.warmup, count, options.thin
        make = functools.partial(ranks_of, problem.residuals, prior, *some)
        pieces.append(keep(f"data sets {i}", Ranked, make))
    ranks, diverged, leapfrogs = (np.concatenate(x)[:wanted] for x in zip(*pieces, strict=True))
    p_values = np.asarray([uniformity(column, count) for column in ranks.T])
    return Calibration(tuple(problem.names), ranks, count, p_values, int(diverged.sum()), int(leapfrogs.sum()))


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


# NUTS in whitened coordinates: programs that warm chains up, go on with them, and rank truths ------------------------


def blackjax_package() -> Any:
    """The package blackjax.

    Raises:
        ValueError: without it.
    """
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


class Chain(NamedTuple):
    """Where a chain stands: position, log-density and its slope, and the step size."""

    position: Array
    density: Array
    slope: Array
    size: Array


class Warm(NamedTuple):
    """All chains after their warm-up, and the square root of the covariance by which they are whitened."""

    root: Array
    position: Array
    density: Array
    slope: Array
    size: Array


class Drawn(NamedTuple):
    """Draws in a row, where they ended, and what happened on the way."""

    values: Array
    position: Array
    density: Array
    slope: Array
    size: Array
    diverged: Array
    acceptance: Array
    leapfrogs: Array


class Ranked(NamedTuple):
    """Ranks of some data sets; diverged draws and leapfrogs of each."""

    ranks: Array
    diverged: Array
    leapfrogs: Array


def _step(log_density, chain: Chain, key, deepest: int):
    """One transition of NUTS, with momenta of unit mass: positions are whitened."""
    blackjax, (position, density, slope, size) = blackjax_package(), chain
    state, mass = blackjax.mcmc.hmc.HMCState(position, density, slope), jnp.ones_like(position)
    (position, density, slope), info = blackjax.nuts.build_kernel()(key, state, log_density, size, mass, deepest)
    return Chain(position, density, slope, size), info


def _warmed(log_density, start, key, steps: int) -> Chain:
    """A chain away from its start, with a step size of its own. Short trajectories are enough for both."""
    adaptation = blackjax_package().adaptation.step_size.dual_averaging_adaptation(target=_ACCEPTANCE)
    begin, update, end = adaptation
    density, slope = jax.value_and_grad(log_density)(start)

    def step(carry, key):
        chain, rule = carry
        chain, info = _step(log_density, chain._replace(size=jnp.exp(rule.log_step_size)), key, _SHALLOW)
        return (chain, update(rule, info.acceptance_rate)), None

    # The rule looks around ten times the first size; in whitened coordinates the best one is about 1.
    first = Chain(start, density, slope, jnp.asarray(0.1, start.dtype))
    (chain, rule), _ = lax.scan(step, (first, begin(first.size)), trial_keys(stream(key, "warmup"), steps))
    return chain._replace(size=end(rule))


def _drawn(log_density, chain: Chain, keys):
    """Draws of a chain, one for each key."""

    def step(chain, key):
        chain, info = _step(log_density, chain, key, _DEEPEST)
        return chain, (chain.position, info.is_divergent, info.acceptance_rate, info.num_integration_steps)

    return lax.scan(step, chain, keys)


@eqx.filter_jit
def warm_chains(residuals, prior, q, keys, warmup: int) -> Warm:
    """Warm all chains up, in one program.

    Args:
        residuals: function of the vector, in units of the noise.
        prior: of the vector.
        q: a vector where the density is high.
        keys: one for each chain.
        warmup: transitions.

    Returns:
        The chains.
    """
    root, log_density = _whitener(residuals, prior, q), _density(residuals, prior)

    def one(key):
        start = 2 * jax.random.normal(stream(key, "start"), q.shape)
        return _warmed(lambda z: log_density(q + root @ z), start, key, warmup)

    return Warm(root, *jax.vmap(one)(keys))


@eqx.filter_jit
def draw_chains(residuals, values, prior, q, root, chains: Chain, keys) -> Drawn:
    """Go on with all chains, in one program.

    Args:
        residuals: function of the vector, in units of the noise.
        values: function from the vector to the values.
        prior: of the vector.
        q: the vector at which positions are 0.
        root: the square root of the covariance.
        chains: where they stand.
        keys: one for each chain and draw.

    Returns:
        The draws, and where the chains stand now.
    """
    log_density = _density(residuals, prior)

    def one(chain, keys):
        chain, (z, *seen) = _drawn(lambda z: log_density(q + root @ z), chain, keys)
        return Drawn(jax.vmap(lambda z: values(q + root @ z))(z), *chain, *seen)

    return jax.vmap(one)(chains, keys)


@eqx.filter_jit
def ranks_of(residuals, prior, keys, warmup: int, draws: int, thin: int) -> Ranked:
    """Rank true vectors, drawn from the prior, among the draws of the posteriors of their own data.

    Args:
        residuals: function of the vector, in units of the noise.
        prior: of the vector.
        keys: one for each data set.
        warmup: transitions before the draws.
        draws: how many.
        thin: transitions between two of them.

    Returns:
        The ranks.
    """

    def one(key):
        truth = prior.draw(stream(key, "truth"))
        made = residuals(truth)
        data = made + jax.random.normal(stream(key, "noise"), made.shape)

        def against(q):
            return residuals(q) - data

        root, density = _whitener(against, prior, truth), _density(against, prior)

        def log_density(z):
            return density(truth + root @ z)

        start = 2 * jax.random.normal(stream(key, "start"), truth.shape)
        chain = _warmed(log_density, start, key, warmup)
        _, (z, diverged, _, leapfrogs) = _drawn(log_density, chain, trial_keys(stream(key, "draws"), draws * thin))
        # Values grow with their unconstrained numbers: the ranks are the same.
        return Ranked(jnp.sum(z[thin - 1 :: thin] @ root.T < 0, 0), diverged.sum(), leapfrogs.sum())

    return jax.vmap(one)(keys)
