"""The one door between simulated or recorded data and everything after it."""

import equinox as eqx
import numpy as np

from jneuro.core.types import Array, Bool, Int, PyTree

__all__ = ["Recording"]


class Recording(eqx.Module):
    """Time-major arrays by name; under `jax.vmap` a leading trial axis comes before time.

    Attributes:
        values: the recorded arrays, each `[time, ...]`.
        ok: whether all recorded values and the final state are finite.
        first_step: simulation steps before the first recorded frame's interval.
        final_state: where a run can be continued; None for data from elsewhere.
        step: the simulation's time step [ms].
        record_every: steps in one frame.
        frames: recorded frames.
        unit_pairs: name and unit of every array in `values`.
        about_pairs: what a file says about its origin: cell, protocol, date.
    """

    values: dict[str, Array]
    ok: Bool[Array, ""]
    first_step: Int[Array, ""]
    final_state: PyTree
    step: float = eqx.field(static=True)
    record_every: int = eqx.field(static=True)
    frames: int = eqx.field(static=True)
    unit_pairs: tuple[tuple[str, str], ...] = eqx.field(static=True)
    about_pairs: tuple[tuple[str, str], ...] = eqx.field(static=True, default=())

    @property
    def dt(self) -> float:
        """Time between frames [ms]."""
        return self.step * self.record_every

    @property
    def units(self) -> dict[str, str]:
        """Unit of every array in `values`."""
        return dict(self.unit_pairs)

    @property
    def about(self) -> dict[str, str]:
        """What a file says about its origin."""
        return dict(self.about_pairs)

    @property
    def time(self) -> np.ndarray:
        """Time of every frame [ms]: the end of the interval that it stands for."""
        first = int(np.asarray(self.first_step).reshape(-1)[0])
        return (first + self.record_every * np.arange(1, self.frames + 1)) * self.step
