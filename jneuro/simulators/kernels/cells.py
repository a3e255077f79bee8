"""Single cells: few exponentials serve all rates, and few divisions all quotients."""

import math
from typing import Any

import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Float

__all__ = ["ca1_field", "ca1_relaxation", "exponentials", "hodgkin_huxley", "linoid", "pospischil"]


_FAR = {2: (-100.0, 100.0), 4: (-170.0, 200.0), 8: (-1400.0, 1600.0)}
"""Between which potentials [mV] exponentials follow, by the bytes of a number."""

_SLOWEST = 1e-3
"""Rate [1/ms] of a membrane without any conductance, which has no steady potential: it is chosen to fit its slope."""


def _steady(total: Any, inward: Any, v: Any, capacitance: Any) -> tuple[Any, Any]:
    """Steady potential and rate of a membrane, from its conductance and the current at 0 mV."""
    least = jnp.where(total == 0, _SLOWEST * capacitance, 0.0)
    total = total + least
    return (inward + least * v) / total, total / capacitance


def exponentials(v: Float[Array, "*neuron"], *slopes: float) -> tuple[Float[Array, "*neuron"], ...]:
    r"""Compute \(e^{sv}\) for several slopes, once: a barrier keeps XLA from repeating them for every use.

    Args:
        v: potential [mV], of one cell or of a population.
        slopes: the slopes [1/mV].

    Returns:
        One array a slope.
    """
    # Far from physiology: squares of quotients that derivatives have stay finite.
    v = jnp.clip(v, *_FAR[jnp.dtype(jnp.result_type(v)).itemsize])
    if jnp.ndim(v) == 0:
        return lax.optimization_barrier(tuple(jnp.exp(s * v) for s in slopes))
    scale = jnp.asarray(slopes, v.dtype)[:, None]
    return tuple(lax.optimization_barrier(jnp.exp(scale * v[None])))


def linoid(x: Float[Array, "*any"], exponential: Float[Array, "*any"] | None = None) -> Float[Array, "*any"]:
    r"""Compute \(x / (1 - e^{-x})\), smooth through \(x = 0\), where value and derivatives are those of the limit.

    Args:
        x: the argument.
        exponential: \(e^{-x}\), where the caller has it already.

    Returns:
        The value, 1 at `x = 0`.
    """
    # Near zero the quotient loses digits; the series' first omitted term is x⁸/1209600.
    near = jnp.abs(x) < 0.1
    square = x * x
    exponential = jnp.exp(-x) if exponential is None else exponential
    series = 1 + 0.5 * x + square * (1 / 12 - square * (1 / 720 - square * (1 / 30240)))
    return jnp.where(near, series, x / jnp.where(near, 1.0, 1 - exponential))


def hodgkin_huxley(cell: Any, y: Any, drive: Float[Array, "*neuron"] | float) -> tuple[Any, Any]:
    """`HodgkinHuxley.relaxation`, with two exponentials.

    Args:
        cell: the membrane.
        y: its state.
        drive: the current density [µA/cm²].

    Returns:
        Steady values and rates [1/ms].
    """
    kind = type(y)
    v, m, h, n = y
    # Two exponentials serve all six rates.
    a, b = exponentials(v, -1 / 80, -1 / 18)
    a4 = jnp.square(jnp.square(a))
    a8 = a4 * a4
    alpha_m = linoid(0.1 * (v + 40), a8 * math.exp(-4.0))
    beta_m = 4 * math.exp(-65 / 18) * b
    alpha_h = 0.07 * math.exp(-65 / 20) * a4
    beta_h = 1 / (1 + math.exp(-3.5) * a8)
    alpha_n = 0.1 * linoid(0.1 * (v + 55), a8 * math.exp(-5.5))
    beta_n = 0.125 * math.exp(-65 / 80) * a
    g_na, g_k = cell.g_na * m * m * m * h, cell.g_k * jnp.square(n * n)
    inward = g_na * cell.e_na + g_k * cell.e_k + cell.g_l * cell.e_l + drive
    steady, rate = _steady(g_na + g_k + cell.g_l, inward, v, cell.c_m)
    sums = alpha_m + beta_m, alpha_h + beta_h, alpha_n + beta_n
    return (
        kind(steady, alpha_m / sums[0], alpha_h / sums[1], alpha_n / sums[2]),
        kind(rate, *(cell.phi * s for s in sums)),
    )


def pospischil(cell: Any, y: Any, drive: Float[Array, "*neuron"] | float) -> tuple[Any, Any]:
    """`Pospischil.relaxation`, with two exponentials.

    Args:
        cell: the cell.
        y: its state.
        drive: the current [pA].

    Returns:
        Steady values and rates [1/ms].
    """
    kind = type(y)
    v, m, h, n, p = y
    x = v - cell.v_t
    # Two exponentials serve all seven rates.
    a, b = exponentials(x, -1 / 40, -1 / 18)
    a2 = a * a
    a8 = jnp.square(a2 * a2)
    alpha_m = 1.28 * linoid((x - 13) / 4, a8 * a2 * math.exp(13 / 4))
    beta_m = 1.4 * linoid((40 - x) / 5, math.exp(-8.0) / a8)
    alpha_h = 0.128 * math.exp(17 / 18) * b
    beta_h = 4 / (1 + math.exp(8.0) * a8)
    alpha_n = 0.16 * linoid((x - 15) / 5, a8 * math.exp(3.0))
    beta_n = 0.5 * math.exp(0.25) * a
    w = a2 * jnp.exp((cell.v_m - cell.v_t) / 20)
    g_na, g_k = cell.g_na * m * m * m * h, cell.g_k * jnp.square(n * n) + cell.g_m * p
    inward = g_na * cell.e_na + g_k * cell.e_k + cell.g_l * cell.e_l + drive
    steady, rate = _steady(g_na + g_k + cell.g_l, inward, v, cell.capacitance)
    sums = alpha_m + beta_m, alpha_h + beta_h, alpha_n + beta_n
    return (
        kind(steady, alpha_m / sums[0], alpha_h / sums[1], alpha_n / sums[2], 1 / (1 + w * w)),
        kind(rate, *sums, (3.3 / w + w) / cell.tau_max),
    )


def ca1_relaxation(cell: Any, y: Any, drive: Float[Array, "*neuron"] | float) -> tuple[Any, Any]:
    """`CA1Pyramidal.relaxation`; see `_ca1_parts`.

    Args:
        cell: the cell.
        y: its state.
        drive: the current density [µA/cm²].

    Returns:
        Steady values and rates [1/ms].
    """
    total, inward, steady, rate = _ca1_parts(cell, y, drive)
    v, fastest = _steady(total, inward, y.v, cell.c_m)
    return type(y)(v, *steady), type(y)(fastest, *rate)


def ca1_field(cell: Any, y: Any, drive: Float[Array, "*neuron"] | float) -> Any:
    """`CA1Pyramidal.vector_field`, without the division that `ca1_relaxation` needs for the steady potential.

    Args:
        cell: the cell.
        y: its state.
        drive: the current density [µA/cm²].

    Returns:
        The derivatives [unit/ms].
    """
    total, inward, steady, rate = _ca1_parts(cell, y, drive)
    gates = (r * (s - x) for x, s, r in zip(y[1:], steady, rate, strict=True))
    return type(y)((inward - total * y.v) * (1 / cell.c_m), *gates)


def _ca1_parts(cell: Any, y: Any, drive: Float[Array, "*neuron"] | float) -> Any:
    """Conductance and current at 0 mV of the membrane; steady values and rates of the other variables."""
    v, h, n, b, z, r, ca, c, q = y
    # Functions of the potential are quotients of powers of these three; quotients are taken in pairs,
    # since 1/a = b·(1/ab), 1/b = a·(1/ab) costs one division.
    x, x7, x95 = exponentials(v, -1 / 60, -1 / 7, -1 / 9.5)
    x2 = x * x
    x3, x4 = x2 * x, x2 * x2
    x6 = x4 * x2
    x10, x12 = x6 * x4, x6 * x6
    x20 = x10 * x10
    m, p = _reciprocals(1 + x95 * jnp.exp(cell.theta_m / 9.5), 1 + x20 * jnp.exp(cell.theta_p / 3))
    a, d = _reciprocals(1 + x3 * jnp.exp(cell.theta_a / 20), ca + cell.a_c)
    fourth = jnp.square(ca * ca)
    h_half, h_slow = jnp.exp(-cell.theta_h / 7), jnp.exp(-cell.theta_ht / 6)
    n_slow = jnp.exp(-cell.theta_nt / 15)
    h_steady, h_rate = _reciprocals(x7 + h_half, 8.5 * x10 + h_slow)
    n_steady, n_rate = _reciprocals(1 + x6 * jnp.exp(cell.theta_n / 10), 6 * x4 + n_slow)
    b_steady, z_steady = _reciprocals(x10 + jnp.exp(-cell.theta_b / 6), 1 + x12 * jnp.exp(cell.theta_z / 5))
    r_steady, c_steady = _reciprocals(1 + x6 * jnp.exp(cell.theta_r / 10), 1 + x7 * jnp.exp(cell.theta_c / 7))
    g_na = cell.g_na * m * m * m * h + cell.g_nap * p
    n2 = n * n
    g_k = cell.g_kdr * n2 * n2 + cell.g_a * a * a * a * b + cell.g_m * z + cell.g_c * ca * d * c + cell.g_sahp * q
    g_ca = cell.g_ca * r * r
    steady = (
        x7 * h_steady,
        n_steady,
        x10 * b_steady,
        z_steady,
        r_steady,
        -cell.nu * cell.tau_ca * g_ca * (v - cell.e_ca),
        c_steady,
        fourth / (fourth + jnp.square(cell.a_q * cell.a_q)),
    )
    rate = (
        cell.phi * (x10 + h_slow) * h_rate,
        cell.phi * (x4 + n_slow) * n_rate,
        *(1 / tau for tau in (cell.tau_b, cell.tau_z, cell.tau_r, cell.tau_ca, cell.tau_c, cell.tau_q)),
    )
    inward = cell.g_l * cell.e_l + g_na * cell.e_na + g_k * cell.e_k + g_ca * cell.e_ca + drive
    return cell.g_l + g_na + g_k + g_ca, inward, steady, rate


def _reciprocals(a, b):
    """Both reciprocals for one division."""
    both = 1 / (a * b)
    return b * both, a * both
