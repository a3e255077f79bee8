r"""Least squares over chains of blocks with stiff joints, and some unknowns that all blocks share.

For every chain, with unknowns \(s_1 \dots s_B\) of the blocks and shared ones \(p\), the quadratic form

\[ \sum_b s_b^T (D_b s_b + 2 F_b\, p + 2 g_b) + \sum_{b < B} r_b^T V^{-1} r_b + p^T (A\, p + 2 a),
   \quad r_b = E_b s_b + G_b\, p + c_b - s_{b+1} \]

is minimised, summed over all chains. Blocks are eliminated from the first to the last. What the past says of a block is
\((V + E\, M^{-1} E^T)^{-1}\), as in a Kalman filter: in normal equations the same number would be a small difference of
terms as large as \(V^{-1}\), and lost to rounding.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jneuro.core.types import Array, Float

__all__ = ["Arrow", "Eliminated", "eliminate", "substitute"]


class Arrow(NamedTuple):
    """The quadratic form.

    Attributes:
        diagonal: \\(D_b\\).
        border: \\(F_b\\).
        gradient: \\(g_b\\).
        onward: \\(E_b\\), how a block's end follows its beginning; zero in the last block.
        drift: \\(G_b\\), how it follows the shared unknowns; zero in the last block.
        gap: \\(c_b\\), the end minus the next beginning; zero in the last block.
        variance: the diagonal of \\(V\\).
        corner: \\(A\\).
        corner_gradient: \\(a\\).
    """

    diagonal: Float[Array, "chain block state state"]
    border: Float[Array, "chain block state shared"]
    gradient: Float[Array, "chain block state"]
    onward: Float[Array, "chain block state state"]
    drift: Float[Array, "chain block state shared"]
    gap: Float[Array, "chain block state"]
    variance: Float[Array, " state"]
    corner: Float[Array, "shared shared"]
    corner_gradient: Float[Array, " shared"]


class Eliminated(NamedTuple):
    """What remains once the blocks are eliminated.

    Attributes:
        corner: the reduced matrix of the shared unknowns, a Schur complement.
        gradient: the reduced gradient.
        fall: by how much the blocks alone lower the quadratic form.
        back: for `substitute`.
    """

    corner: Float[Array, "shared shared"]
    gradient: Float[Array, " shared"]
    fall: Float[Array, ""]
    back: tuple[Array, Array]

    @property
    def decrement(self) -> Float[Array, ""]:
        """By how much the minimum lowers the quadratic form: a sum of squares, if residuals are linear."""
        return self.fall + self.gradient @ jnp.linalg.solve(self.corner, self.gradient)


@jax.jit
def eliminate(arrow: Arrow) -> Eliminated:
    """Eliminate all blocks.

    Args:
        arrow: the quadratic form.

    Returns:
        The reduced equations.
    """
    own = jnp.concatenate([arrow.border, arrow.gradient[..., None]], -1)
    ahead = jnp.concatenate([arrow.drift, arrow.gap[..., None]], -1)
    blocks = [jnp.moveaxis(x, 1, 0) for x in (arrow.diagonal, own, arrow.onward, ahead)]
    size, variance = arrow.diagonal.shape[-1], jnp.diag(arrow.variance)

    def step(carry, block):
        past, past_right, total = carry
        matrix, right, onward, ahead = block
        matrix, right, backward = past + matrix, past_right + right, jnp.swapaxes(onward, 1, 2)
        found = jnp.linalg.solve(matrix, jnp.concatenate([backward, right], -1))
        spread, solved = found[..., :size], found[..., size:]
        ahead = ahead - onward @ solved
        inverse = jnp.linalg.inv(variance[None] + onward @ spread)
        inverse = 0.5 * (inverse + jnp.swapaxes(inverse, 1, 2))
        carried = inverse @ ahead
        total = total + jnp.einsum("csp,csr->pr", ahead, carried) - jnp.einsum("csp,csr->pr", right, solved)
        gain = spread @ inverse
        return (inverse, -carried, total), (gain, solved + gain @ ahead)

    nothing, none = jnp.zeros_like(blocks[0][0]), jnp.zeros_like(blocks[1][0])
    shared = own.shape[-1]
    (_, _, total), back = lax.scan(step, (nothing, none, jnp.zeros((shared, shared), own.dtype)), tuple(blocks))
    corner = arrow.corner + total[:-1, :-1]
    fall = jnp.sum(jnp.square(arrow.gap) / arrow.variance[None, None]) - total[-1, -1]
    return Eliminated(0.5 * (corner + corner.T), arrow.corner_gradient + total[:-1, -1], fall, back)


def substitute(eliminated: Eliminated, shared: Float[Array, " shared"]) -> Float[Array, "chain block state"]:
    """The blocks that belong to given shared unknowns.

    Args:
        eliminated: from `eliminate`.
        shared: the shared unknowns.

    Returns:
        The unknowns of all blocks.
    """

    def step(after, block):
        gain, solved = block
        here = jnp.einsum("cst,ct->cs", gain, after) - solved[..., -1] - solved[..., :-1] @ shared
        return here, here

    last = jnp.zeros_like(eliminated.back[1][0, ..., 0])
    _, blocks = lax.scan(step, last, eliminated.back, reverse=True)
    return jnp.moveaxis(blocks, 0, 1)
