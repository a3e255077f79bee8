"""Background input: many independent sources, drawn cheaply.

One 32-bit word a neuron and step serves both draws. The count compares the whole word with the cumulative
distribution, over signed integers, which vectorise where unsigned ones do not. The normal deviate uses the lower 16
bits, which decide that comparison with a probability below 2⁻¹³ only.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import erfinv

from jneuro.core.random import key_words, threefry
from jneuro.core.types import Array, Float, Int, Key, Scalar

__all__ = ["binomial_counts", "binomial_thresholds", "normal_deviates", "step_words"]

# log2(1 + f) = f + f(1 - f) q(f), to 2e-6; and the normal quantile of (1 + x)/2 over x, a polynomial in
# -log2(1 - x^2) - 8, to 2e-6 on the 32,768 values that occur. Least maximal errors, fitted for this file.
_LOGARITHM = (0.44254493, -0.27560015, 0.18194832, -0.09595573, 0.02584113)
_QUANTILE = (
    *(3.1030446551890742, 0.20186046630516433, -0.004736523322021905, 0.00010313903997116229, 9.08676939140122e-06),
    *(-1.735693795179162e-06, 1.4928405130032805e-07, -2.700710609056171e-09, -7.134522881579187e-10),
    4.3494008492164254e-11,
)


def step_words(key: Key[Array, ""], step: Int[Array, ""], size: int) -> Int[Array, " neuron"]:
    """Draw the uniformly distributed signed words of one step.

    Args:
        key: the run's key.
        step: absolute index of the step, which has the same words in whatever run, cut or batch it is drawn.
        size: words in a step.

    Returns:
        One word for each neuron.
    """
    neuron = jnp.arange(size, dtype=jnp.uint32)
    counters = jnp.broadcast_arrays(jnp.asarray(step, jnp.int32).astype(jnp.uint32), neuron)
    return lax.bitcast_convert_type(threefry(key_words(key), *counters)[0], jnp.int32)


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
    """Convert the lower 16 bits of uniform words to standard normal deviates: 65,536 equiprobable values, |z| < 4.4.

    Double precision inverts the error function; single precision evaluates a polynomial that is as exact there, and
    three times as fast.

    Args:
        words: uniformly distributed.

    Returns:
        Deviates of the default floating-point type.
    """
    dtype = jnp.result_type(float)
    centred = ((words & 0xFFFF).astype(dtype) - 32767.5) / 32768.0
    if dtype != jnp.float32:
        return jnp.sqrt(2.0).astype(dtype) * erfinv(centred)
    bits = lax.bitcast_convert_type(1 - centred * centred, jnp.int32)
    exponent = ((bits >> 23) - 127).astype(dtype)
    fraction = lax.bitcast_convert_type((bits & 0x7FFFFF) | 0x3F800000, dtype) - 1
    logarithm = exponent + (fraction + fraction * (1 - fraction) * _polynomial(_LOGARITHM, fraction))
    return centred * _polynomial(_QUANTILE, -8 - logarithm)


def _polynomial(coefficients: tuple[float, ...], x: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """Evaluate by Horner's rule; the constant comes first."""
    value = jnp.full(x.shape, coefficients[-1], x.dtype)
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value
