"""NUTS in whitened coordinates: programs that warm chains up, go on with them, and rank truths among their draws."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.random import stream, trial_keys
from jneuro.core.types import Array
from jneuro.fitting.least_squares import with_columns

__all__ = ["Chain", "Drawn", "Ranked", "Warm", "blackjax_package", "draw_chains", "ranks_of", "warm_chains"]

_DEEPEST, _SHALLOW = 6, 3
"""Most doublings of a trajectory: 63 steps; and 7 in the warm-up, whose first step sizes may be far too small."""
_ACCEPTANCE = 0.8
"""Mean acceptance at which the warm-up aims."""


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
