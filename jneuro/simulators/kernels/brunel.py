"""Brunel's network, a transmission delay at a time: one loop over the membrane, then all spikes sent at once."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.devices import scan
from jneuro.simulators.base import step_count
from jneuro.simulators.spiking import surrogate_in_force

__all__ = ["advance_block"]

_SPIKED = 1 << 21
"""Flag of a neuron that spiked in this block; below the bit that makes a NaN quiet in single precision."""


def advance_block(simulator, y, drive, noise, steps):
    """See `SteppedSimulator.advance`: nobody hears anybody within the block.

    Args:
        simulator: a `Brunel`.
        y: its state.
        drive: the mean drive, or None.
        noise: the words of each step.
        steps: at most the transmission delay.

    Returns:
        The state, and potentials and spikes of every step.
    """
    # A neuron that spikes at most once in a block leaves a state that tells when.
    once = surrogate_in_force() is None and step_count(simulator.refractory, simulator.dt) >= steps
    v, refractory, vs, spikes = (_one_array if once else _in_turn)(
        steps,
        dataclasses.replace(simulator, connections=None, structure=None),
        y._replace(pending=y.pending[:steps]),
        None if drive is None else jnp.broadcast_to(drive, (steps, simulator.neurons)),
        noise,
    )
    pending = jnp.concatenate([y.pending[steps:], simulator.sent(spikes)])
    return y._replace(v=v, refractory=refractory, pending=pending), {"v": vs, "spikes": spikes}


def _in_turn(steps, simulator, state, drive, words):
    """Take the steps of a block in a loop: potential, refractoriness, and potentials and spikes of every step."""
    arriving = state.pending + simulator.background(words)

    def one(carry, inputs):
        v, refractory, spikes = simulator.membrane(*carry, *inputs)
        return (v, refractory), (v, spikes)

    (v, refractory), (vs, spikes) = scan(one, (state.v, state.refractory), (arriving, drive))
    return v, refractory, vs, spikes


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _one_array(steps, simulator, state, drive, words):
    """The same as `_in_turn`, with one array to carry, for neurons that spike at most once in a block.

    A step with several results computes what they share once for each. This one has a single result, the bits of the
    potential; in its place, neurons that are refractory have a signalling NaN, which no arithmetic yields. Its payload
    is the number of steps that are left, and a flag if the spike was in this block.
    """
    held = simulator.held
    integer = jnp.int32 if state.v.dtype == jnp.float32 else jnp.int64
    start = lax.bitcast_convert_type(state.v, integer)
    infinity = lax.bitcast_convert_type(jnp.asarray(jnp.inf, state.v.dtype), integer)

    def marked(code):
        return (code > infinity) & (code < infinity + 2 * _SPIKED)

    def decoded(code):
        before = jnp.where(code > infinity + _SPIKED - 1, simulator.v_reset, state.v)
        return jnp.where(marked(code), before, lax.bitcast_convert_type(code, state.v.dtype))

    def step(code, arriving):
        pending, words, drive = arriving
        arrived = pending + simulator.background(words)
        v = simulator.integrated(lax.bitcast_convert_type(code, state.v.dtype), drive)
        above, v = v - simulator.v_threshold, v + arrived
        awake = jnp.where(above > 0, infinity + (_SPIKED + held), lax.bitcast_convert_type(v, integer))
        frozen = jnp.where(code == infinity + 1, start, code - 1)
        code = jnp.where(marked(code), frozen, awake)
        return code, decoded(code)

    code = jnp.where(state.refractory > 0, infinity + state.refractory.astype(integer), start)
    code, vs = scan(step, code, (state.pending, words, drive))
    left = jnp.where(marked(code), code - infinity, 0).astype(jnp.int32)
    spikes = left[None] == _SPIKED + held - jnp.arange(steps - 1, -1, -1, dtype=jnp.int32)[:, None]
    v = decoded(code)
    return v, left & (_SPIKED - 1), jnp.concatenate([vs[:-1], v[None]]), spikes


@_one_array.defjvp
def _(steps, primals, tangents):
    return jax.jvp(partial(_in_turn, steps), primals, tangents)
