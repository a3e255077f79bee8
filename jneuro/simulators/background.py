"""Background input: many independent sources, drawn cheaply.

One 32-bit word a neuron and step serves both draws. The count compares the whole word with the cumulative
distribution, over signed integers, which vectorise where unsigned ones do not. The normal deviate uses the lower 16
bits, which decide that comparison with a probability below 2⁻¹³ only.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import erfinv

from jneuro._types import Array, Float, Int, Key, Scalar

__all__ = ["binomial_counts", "binomial_thresholds", "normal_deviates", "step_words"]


def step_words(key: Key[Array, ""], first_step: Int[Array, ""], steps: int, size: int) -> Int[Array, "step neuron"]:
    """Draw uniformly distributed signed words.

    Args:
        key: the run's key.
        first_step: absolute index of the first step; a step has the same words in whatever block it is drawn.
        steps: how many.
        size: words in a step.

    Returns:
        One word for each step and neuron.
    """
    keys = jax.vmap(lambda s: jax.random.fold_in(key, s))(first_step + jnp.arange(steps, dtype=jnp.int32))
    words = jax.vmap(lambda k: jax.random.bits(k, (size,), jnp.uint32))(keys)
    return lax.bitcast_convert_type(words, jnp.int32)


def binomial_thresholds(sources: int, probability: Scalar, count: int) -> Int[Array, " threshold"]:
    """Where the cumulative binomial distribution cuts the range of a signed 32-bit word.

    Args:
        sources: number of independent sources.
        probability: that one of them fires.
        count: the largest number to be drawn; what lies beyond is drawn as this number.

    Returns:
        `count` thresholds; the number of them that a uniform word exceeds is binomially distributed.
    """
    odds = probability / (1 - probability)
    k = jnp.arange(1, sources + 1)
    # Relative to the most probable number: the probability of none underflows where the mean is large.
    logarithm = jnp.concatenate([jnp.zeros_like(odds)[None], jnp.cumsum(jnp.log((sources - k + 1) / k * odds))])
    mass = jax.nn.softmax(logarithm)
    # Each tail is measured from its own end: float32 does not resolve the distance of a probability from 1.
    below, above = jnp.cumsum(mass)[:count], jnp.cumsum(mass[::-1])[::-1][1 : count + 1]
    # 2147483520, the largest float32 below 2³¹, keeps the conversion in range.
    from_bottom = (jnp.minimum(below, 0.5) - 0.5) * 2.0**32
    from_top = jnp.minimum(above * 2.0**32, 2147483520.0)
    return jnp.where(below < 0.5, from_bottom.astype(jnp.int32), 2147483647 - from_top.astype(jnp.int32))


def binomial_counts(words: Int[Array, "*any"], thresholds: Int[Array, " threshold"]) -> Float[Array, "*any"]:
    """Convert uniform words to counts, by inversion of the cumulative distribution.

    Args:
        words: uniformly distributed.
        thresholds: of the distribution.

    Returns:
        Whole numbers, as floats.
    """
    total = sum((words > thresholds[k]).astype(jnp.int32) for k in range(thresholds.shape[0]))
    return jnp.asarray(total).astype(jnp.result_type(float))


def normal_deviates(words: Int[Array, "*any"]) -> Float[Array, "*any"]:
    """Convert the lower 16 bits of uniform words to standard normal deviates: 65,536 equiprobable values, |z| < 4.4."""
    centred = ((words & 0xFFFF).astype(jnp.result_type(float)) - 32767.5) / 32768.0
    return jnp.sqrt(2.0).astype(centred.dtype) * erfinv(centred)
