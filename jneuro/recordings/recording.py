"""The one door between simulated or recorded data and everything after it."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import numpy as np

from jneuro.core.types import Array, Bool, Int, PyTree

__all__ = ["Recording", "by_trial", "from_arrays"]


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

    def __getitem__(self, name: str) -> Array:
        """A recorded array by its name, `[time]` or `[time, neuron]`.

        Raises:
            KeyError: if there is none, naming those that there are.
        """
        if name not in self.values:
            raise KeyError(f"the recording has no {name!r}; it has {', '.join(self.values)}")
        return self.values[name]

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


def by_trial(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Give arrays of one trial, and of one neuron, the axes that they lack.

    Args:
        arrays: by name: `[time]`, `[time, neuron]`, or `[trial, time, neuron]`.

    Returns:
        The arrays, each `[trial, time, neuron]`.

    Raises:
        ValueError: if there are none, or their trials or times differ; with their shapes.
    """
    values = {name: np.asarray(x) for name, x in arrays.items()}
    values = {n: x[:, None] if x.ndim == 1 else x for n, x in values.items()}
    values = {n: x[None] if x.ndim == 2 else x for n, x in values.items()}
    if not values or any(x.ndim != 3 for x in values.values()) or len({x.shape[:2] for x in values.values()}) > 1:
        shapes = {n: np.shape(x) for n, x in arrays.items()}
        raise ValueError(
            f"arrays must be [time], [time, neuron] or [trial, time, neuron], of equal times, got {shapes or 'none'}"
        )
    return values


def from_arrays(
    *, dt: float, units: Mapping[str, str] | None = None, about: Mapping[str, str] | None = None, **arrays: Any
) -> Recording:
    """Make a recording of arrays.

    Args:
        dt: time between samples [ms]; the first stands at time 0.
        units: unit of each array; by default mV for `v`, else "1".
        about: what is known of its origin.
        arrays: by name: `[time]`, `[time, neuron]`, or `[trial, time, neuron]`.

    Returns:
        The recording; arrays of one axis or two become `[1, time, neuron]`.

    Raises:
        ValueError: if there are no arrays, their trials or times differ, `dt` is not positive, or units name others.

    Example:
        >>> import jneuro as jn
        >>> recording = jn.recordings.from_arrays(v=[-65.0, -64.0, -60.0], dt=0.1)
        >>> recording["v"].shape, recording.units
        ((1, 3, 1), {'v': 'mV'})
    """
    if not dt > 0:
        raise ValueError(f"dt = {dt} ms must be positive")
    values: Any = by_trial(arrays)
    if unknown := [n for n in units or {} if n not in values]:
        raise ValueError(f"units names {unknown[0]!r}, but the arrays are {', '.join(values)}")
    named = {"v": "mV"} | dict(units or {})
    return Recording(
        values=values,
        ok=np.asarray(True),  # pyright: ignore
        first_step=np.asarray(-1),  # pyright: ignore
        final_state=None,
        step=float(dt),
        record_every=1,
        frames=next(iter(values.values())).shape[1],
        unit_pairs=tuple((n, named.get(n, "1")) for n in values),
        about_pairs=tuple(sorted((about or {}).items())),
    )
