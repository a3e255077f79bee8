"""What every method returns, why it should not be believed, and where finished pieces of a fit are kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from scipy.special import chdtrc

from jneuro.core.types import Array, Bool, Float

__all__ = ["Keep", "Solution", "anew", "faults", "named", "probability"]

_Piece = TypeVar("_Piece", bound=tuple)

_LEAST = 1e-3
"""Statistics that are less probable are not explained by a fit."""
_OPEN = 1.0
"""Mean squared gap between segments, in units of its width, above which they do not join."""
_EDGE = 1e-3
"""A parameter nearer to its bound, in shares of its scale, is at the bound."""
_AGREED, _DRAWS, _DIVERGED = 1.01, 100, 0.01
"""Of chains: R-hat below, effective draws above, share of divergent draws at most."""
_WRONG = "either a wrong minimum, or a"


class Solution(NamedTuple):
    """Where an optimiser came to, from each of its starts.

    Attributes:
        q: the best vectors of unconstrained numbers.
        cost: their costs; infinite where nothing finite was found.
        history: the cost after each iteration, of the pulled model while there is a pull; NaN after the last.
        finished: whether the optimiser's own criterion was met, rather than its limit of iterations.
        simulations: simulation equivalents of all starts together. A run is one, a column of a Jacobian in forward mode
            is one, a gradient in reverse mode is three.
        prediction: what the best one gives, where that is not one run from the start: potentials [mV] of joined
            segments, or statistics of a network's runs.
        covariance: of the best one's unconstrained numbers, where the method knows it.
        fault: why the best one should not be believed, where the method knows it.
        seconds: wall time that it took, where somebody looked.
        chi2: sum of squared residuals that is left of a network's statistics, where the method knows it.
        refined: the vector to which the best one was refined, where that is not the end of its start.
    """

    q: Float[Array, "start unknown"]
    cost: Float[Array, " start"]
    history: Float[Array, "start iteration"]
    finished: Bool[Array, " start"]
    simulations: float
    prediction: Float[Array, "trial time"] | None = None
    covariance: Float[Array, "unknown unknown"] | None = None
    fault: str = ""
    seconds: float = 0.0
    chi2: float | None = None
    refined: Float[Array, " unknown"] | None = None

    @property
    def best(self) -> int:
        """The start that came farthest down."""
        return int(np.argmin(np.asarray(self.cost)))


_QUIET = (
    "no noise was found in the recording, so that nothing says how large an error may be left; set noise_mv to what "
    "you accept [mV]"
)


def faults(
    *,
    finite: bool = True,
    finished: bool = True,
    method: str = "",
    doubts: Sequence[str] = (),
    data_cost: float = 0.0,
    accept: float = np.inf,
    quiet: bool = False,
    of: str = "",
    gap: float = 0.0,
    chi2: tuple[float, int] | None = None,
    slopes: bool = True,
    values: Mapping[str, tuple[float, tuple[float, float], float]] = MappingProxyType({}),
    chains: tuple[float, float, float] | None = None,
) -> Iterator[str]:
    """Why a fit, one of its starts, or draws of its posterior should not be believed: the one place that judges.

    All arguments are evidence; what is not known is left out, and speaks for the fit.

    Args:
        finite: whether any start has a finite cost.
        finished: whether the optimiser came to rest.
        method: what the method itself found wrong.
        doubts: of every trial, why its spikes are in doubt; empty where they are not.
        data_cost: mean squared error in units of the noise's variance.
        accept: the largest one that the noise explains.
        quiet: whether no noise was found in the recording.
        of: what the error is that of, where it is not the whole run.
        gap: mean squared gap between segments, in units of its width.
        chi2: sum of squared residuals of statistics, and its degrees of freedom.
        slopes: whether the derivatives stand out of their noise.
        values: fitted values by name, each with its bounds and its scale.
        chains: the largest R-hat, the smallest effective number of draws, and the share of draws that diverged.
    """
    if not finite:
        yield "no start gave finite potentials; start nearer to the truth, or take a shorter time step"
        return
    if not finished:
        yield "the best start was still moving at its last step; allow more steps"
    yield from [method] if method else []
    yield from (f"the spikes of trial {i} are in doubt: {doubt}" for i, doubt in enumerate(doubts) if doubt)
    if not data_cost <= accept:
        said = f"{data_cost:.3g} times the noise's variance, more than {accept:.3g}: {_WRONG} model that cannot explain"
        yield _QUIET if quiet else f"the mean squared error{of} is {said} the data"
    if gap > _OPEN:
        yield f"the segments do not join: the mean squared gap is {gap:.3g} times what was allowed"
    if chi2 is not None and not probability(*chi2) >= _LEAST:
        said = f"{chi2[0]:.3g} where {chi2[1]} is expected: {_WRONG} network that cannot have them"
        yield f"the features are off by a chi-squared of {said}"
    if not slopes:
        yield "the slopes of the features are lost in their noise; take more probes, or a larger difference"
    for name, (value, (low, high), scale) in values.items():
        if min(value - low, high - value) < _EDGE * scale:
            yield f"{name} = {value:.3g} is at its bound"
    if chains is not None and not (chains[0] < _AGREED and chains[1] > _DRAWS and chains[2] <= _DIVERGED):
        said = f"R-hat {chains[0]:.3f}, {chains[1]:,.0f} effective draws, {chains[2]:.1%} diverged"
        yield f"the chains have not converged ({said}): take more draws"


def probability(chi2: float | np.ndarray, freedom: int) -> float | np.ndarray:
    """How probable so large a sum of squares is; 0 for one that is not finite.

    Args:
        chi2: the sum.
        freedom: its degrees of freedom.
    """
    return np.where(np.isfinite(chi2), chdtrc(freedom, chi2), 0.0)[()]


class Keep(Protocol):
    """Gives a piece of work that was kept, or else makes it and keeps it."""

    def __call__(self, name: str, kind: type[_Piece], make: Callable[[], _Piece]) -> _Piece:
        """Give the piece.

        Args:
            name: of the piece, unique in the fit.
            kind: a named tuple of arrays, numbers and strings.
            make: makes it.

        Returns:
            The piece.
        """
        ...


def anew(name: str, kind: type[_Piece], make: Callable[[], _Piece]) -> _Piece:
    """Make every piece, and keep none.

    Args:
        name: of the piece.
        kind: what it is.
        make: makes it.

    Returns:
        The piece.
    """
    del name, kind
    return make()


def named(keep: Keep, part: str) -> Keep:
    """Keep the pieces of a part of the work among those of the whole.

    Args:
        keep: keeps those of the whole.
        part: the part's name, which stands before theirs.
    """
    return lambda name, kind, make: keep(f"{part}, {name}", kind, make)
