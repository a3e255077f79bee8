r"""Normal equations of chains of blocks that share some unknowns: block-tridiagonal, with an arrow.

For every chain, with blocks \(s_1 \dots s_B\) and shared unknowns \(p\),

\[ \begin{aligned} O_{b-1} s_{b-1} + D_b s_b + O_b^T s_{b+1} + F_b\, p &= -g_b \\
\textstyle A\, p + \sum F_b^T s_b &= -a \end{aligned} \]

with the sum over all blocks of all chains. Blocks are eliminated from the first to the last.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jneuro._types import Array, Float

__all__ = ["Arrow", "Eliminated", "eliminate", "substitute"]


class Arrow(NamedTuple):
    """The equations.

    Attributes:
        diagonal: \\(D_b\\).
        lower: \\(O_b\\), which couples block `b + 1` to block `b`; the last one is not used.
        border: \\(F_b\\).
        gradient: \\(g_b\\).
        corner: \\(A\\).
        corner_gradient: \\(a\\).
    """

    diagonal: Float[Array, "chain block state state"]
    lower: Float[Array, "chain block state state"]
    border: Float[Array, "chain block state shared"]
    gradient: Float[Array, "chain block state"]
    corner: Float[Array, "shared shared"]
    corner_gradient: Float[Array, " shared"]


class Eliminated(NamedTuple):
    """What remains once the blocks are eliminated.

    Attributes:
        corner: the reduced matrix of the shared unknowns, a Schur complement.
        gradient: the reduced gradient.
        back: for `substitute`.
    """

    corner: Float[Array, "shared shared"]
    gradient: Float[Array, " shared"]
    back: tuple[Array, Array]


def eliminate(arrow: Arrow) -> Eliminated:
    """Eliminate all blocks.

    Args:
        arrow: the equations.

    Returns:
        The reduced equations.
    """
    shared = arrow.border.shape[-1]
    right = jnp.concatenate([arrow.border, arrow.gradient[..., None]], -1)
    by_block = [jnp.moveaxis(x, 1, 0) for x in (arrow.diagonal, arrow.lower, right)]
    previous = jnp.concatenate([jnp.zeros_like(by_block[1][:1]), by_block[1][:-1]])

    def step(carry, block):
        forward, solved, total = carry
        diagonal, before, upper, right = block
        diagonal, right = diagonal - before @ forward, right - before @ solved
        found = jnp.linalg.solve(diagonal, jnp.concatenate([jnp.swapaxes(upper, 1, 2), right], -1))
        forward, solved = found[..., : -shared - 1], found[..., -shared - 1 :]
        total = total + jnp.einsum("csp,csr->pr", right[..., :-1], solved)
        return (forward, solved, total), (forward, solved)

    diagonal, lower, right = by_block
    begin = (jnp.zeros_like(diagonal[0]), jnp.zeros_like(right[0]), jnp.zeros_like(right, shape=(shared, shared + 1)))
    (_, _, total), back = lax.scan(step, begin, (diagonal, previous, lower, right))
    corner = arrow.corner - total[:, :-1]
    return Eliminated(0.5 * (corner + corner.T), arrow.corner_gradient - total[:, -1], back)


def substitute(eliminated: Eliminated, shared: Float[Array, " shared"]) -> Float[Array, "chain block state"]:
    """The blocks that belong to given shared unknowns.

    Args:
        eliminated: from `eliminate`.
        shared: the shared unknowns.

    Returns:
        The unknowns of all blocks.
    """

    def step(after, block):
        forward, solved = block
        here = -solved[..., -1] - solved[..., :-1] @ shared - jnp.einsum("cst,ct->cs", forward, after)
        return here, here

    last = jnp.zeros_like(eliminated.back[1][0, ..., 0])
    _, blocks = lax.scan(step, last, eliminated.back, reverse=True)
    return jnp.moveaxis(blocks, 0, 1)
