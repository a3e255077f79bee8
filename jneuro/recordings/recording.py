"""The one door between simulated or recorded data and everything after it."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import numpy as np

from jneuro.core.types import Array, Bool, Int, PyTree
from jneuro.recordings.units import canonical

__all__ = ["Recording", "by_trial", "even_steps", "from_arrays", "to_axes"]

AXES = ("trial", "time", "neuron")


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

    def __check_init__(self) -> None:
        for name, x in self.values.items():
            shape = getattr(x, "shape", None)
            if shape is not None and self.frames not in shape[:2]:
                raise ValueError(
                    f"frames = {self.frames}, but {name!r} is {tuple(shape)}; frames is the length of time"
                )

    def __repr__(self) -> str:
        """What is in it: sizes, rate, each array's axes, type and unit, and where it comes from."""
        head, rows, origin = self._described()
        width = max((len(row[0]) for row in rows), default=0)
        lines = [f"  {name:<{width}}  {' '.join(rest)}" for name, *rest in rows]
        return "\n".join([f"Recording: {head}", *lines, *(f"  {key}: {said}" for key, said in origin)])

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        head, rows, origin = self._described()

        def cells(kind: str, row: Sequence[str]) -> str:
            return "<tr>" + "".join(f"<{kind}>{html.escape(x)}</{kind}>" for x in row) + "</tr>"

        body = cells("th", ("array", "axes", "type", "unit")) + "".join(cells("td", row) for row in rows)
        said = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(x)}</dd>" for key, x in origin)
        return f"<div><b>Recording</b>: {html.escape(head)}<table>{body}</table><dl>{said}</dl></div>"

    def _described(self) -> tuple[str, list[tuple[str, str, str, str]], list[tuple[str, str]]]:
        """A line of sizes; name, axes, type and unit of every array; and what is known of the origin."""
        rows, trials = [], None
        for name, x in self.values.items():
            shape = tuple(getattr(x, "shape", ()))
            names = AXES[1 : 1 + len(shape)]
            if len(shape) > 2 or (len(shape) == 2 and shape[0] != self.frames):
                names, trials = AXES[: len(shape)], shape[0]
            axes = " × ".join(f"{axis} {size}" for size, axis in zip(shape, names, strict=False))
            rows.append((name, f"[{axes}]", str(getattr(x, "dtype", type(x).__name__)), self.units.get(name, "?")))
        several = "" if trials is None else f"{trials} trial{'s' * (trials != 1)} of "
        length = self.frames * self.dt
        said = f"{several}{self.frames} frames of {self.dt:.6g} ms ({1 / self.dt:.6g} kHz), {length:.6g} ms"
        return said, rows, list(self.about_pairs)

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

    def to_xarray(self) -> Any:
        """The recording as an xarray `Dataset`.

        Returns:
            The arrays with the dimensions `trial`, `time` and `neuron`, the coordinate `time` [ms], units and origin as
            attributes; `to_netcdf` writes it.
        """
        from jneuro.recordings.export import to_xarray

        return to_xarray(self)

    def to_pandas(self, names: Sequence[str] | None = None) -> Any:
        """The recording as a pandas `DataFrame`.

        Args:
            names: which arrays; all by default.

        Returns:
            A row for every trial, time and neuron, which are the levels of the index; a column for every array. Units
            stand in `attrs["units"]`.
        """
        from jneuro.recordings.export import to_pandas

        return to_pandas(self, names)

    def to_neo(self) -> Any:
        """The recording as a Neo `Block`, by the package neo (`pip install 'jneuro[neo]'`).

        Returns:
            A segment for every trial, with an analog signal for every array, and a spike train for every neuron.
        """
        from jneuro.recordings.export import to_neo

        return to_neo(self)

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


def even_steps(time: Any, *, most: float = 0.01) -> tuple[float, float, int]:
    """Find the step of times that are even but for their rounding.

    Args:
        time: the times, at least two.
        most: the largest deviation from even times that is rounding, as a share of the step.

    Returns:
        The step; the largest deviation from even times, as a share of it, and where it is: the index of the sample. A
        deviation beyond `most` means that they are uneven; then the step is the median one.

    Raises:
        ValueError: if they are not finite, or do not rise; with the place.
    """
    time = np.asarray(time, np.float64)
    if time.ndim != 1 or len(time) < 2:
        raise ValueError(f"times must be [time], two at least, got the shape {time.shape}")
    if (bad := np.flatnonzero(~np.isfinite(time))).size:
        raise ValueError(f"time {bad[0]} is {time[bad[0]]}; cut it out")
    steps = np.diff(time)
    if (bad := np.flatnonzero(steps <= 0)).size:
        at = int(bad[0])
        raise ValueError(f"times must rise, but {time[at]:g} is followed by {time[at + 1]:g}, at sample {at + 1}")
    step = float((time[-1] - time[0]) / (len(time) - 1))
    away = np.abs(time - time[0] - step * np.arange(len(time))) / step
    at = int(np.argmax(away))
    if away[at] <= most:
        return float(f"{step:.9g}"), float(away[at]), at
    step = float(np.median(steps))
    away = np.abs(steps - step) / step
    at = int(np.argmax(away))
    return float(f"{step:.9g}"), max(float(away[at]), 2 * most), at + 1


def to_axes(name: str, x: Any, *, axes: str | None = None, frames: int | None = None) -> np.ndarray:
    """Give an array the axes `[trial, time, neuron]`.

    Args:
        name: of the array, for messages.
        x: `[time]`, `[time, neuron]`, or `[trial, time, neuron]`, or as `axes` says.
        axes: the names of its axes in their order, such as "trial time" or "neuron time"; for arrays of as many axes.
        frames: the length of time, where it is known, by which `[trial, time]` is told from `[time, neuron]`.

    Returns:
        The array.

    Raises:
        ValueError: if nothing tells which axis is which, with what may be said.
    """
    x = np.asarray(x)
    names = tuple((axes or "").replace(",", " ").split())
    if set(names) - set(AXES) or len(set(names)) < len(names) or (names and "time" not in names):
        raise ValueError(f"axes = {axes!r} must name some of trial, time and neuron, each once, and time among them")
    if x.ndim not in (1, 2, 3):
        raise ValueError(f"{name!r} is {x.shape}; it must be [time], [time, neuron] or [trial, time, neuron]")
    if len(names) != x.ndim:
        names = {1: ("time",), 2: ("time", "neuron"), 3: AXES}[x.ndim]
        if x.ndim == 2:
            first, second = x.shape
            if frames is not None and frames == second != first:
                names = ("trial", "time")
            elif (frames is None and first < second) or (frames == first == second):
                raise ValueError(
                    f"{name!r} is {x.shape}: {first} samples of {second} neurons, or {first} trials? Say "
                    "axes='time neuron', or axes='trial time'"
                )
    where = [AXES.index(n) for n in names]
    ordered = x.transpose(np.argsort(where))
    return np.expand_dims(ordered, tuple(i for i, n in enumerate(AXES) if n not in names))


def from_arrays(
    v: Any = None,
    current: Any = None,
    *,
    dt: float | None = None,
    time: Any = None,
    units: Mapping[str, str] | None = None,
    axes: str | None = None,
    about: Mapping[str, str] | None = None,
    **arrays: Any,
) -> Recording:
    """Make a recording of arrays.

    Args:
        v: membrane potential.
        current: injected current.
        dt: time between samples [ms]; the first stands at time 0. Or say
        time: the time of every sample [ms], in even steps.
        units: unit of each array; by default mV for `v`, else "1". Potentials and currents are converted to mV, and to
            pA or µA/cm², and from whole to real numbers.
        axes: the axes of arrays whose axes are others than below, such as "trial time" or "neuron time".
        about: what is known of its origin.
        arrays: further ones by name: `[time]`, `[time, neuron]`, or `[trial, time, neuron]`.

    Returns:
        The recording; arrays of one axis or two become `[trial, time, neuron]`. What has one trial, such as a current,
        holds for all of them. Its `repr` shows what was understood.

    Raises:
        ValueError: if there are no arrays, their trials or times differ, it is open which axis is time, `dt` is not
            positive or not that of `time`, or units name others.

    Example:
        >>> import jneuro as jn
        >>> recording = jn.recordings.from_arrays(v=[-65.0, -64.0, -60.0], dt=0.1)
        >>> recording["v"].shape, recording.units
        ((1, 3, 1), {'v': 'mV'})
        >>> jn.recordings.from_arrays(x=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dt=10)
        Recording: 1 trial of 3 frames of 10 ms (0.1 kHz), 30 ms
          x  [trial 1 × time 3 × neuron 2] float64 1
    """
    given = {n: x for n, x in {"v": v, "current": current, **arrays}.items() if x is not None}
    if unknown := [n for n in units or {} if n not in given]:
        raise ValueError(f"units names {unknown[0]!r}, but the arrays are {', '.join(given)}")
    dt, first, frames = _clock(dt, time)
    values = _together(given, axes, frames)
    named = {"v": "mV"} | dict(units or {})
    said = {n: canonical(n, named.get(n, "1")) for n in values}
    values = {n: _scaled(n, x, said[n][1]) for n, x in values.items()}
    return Recording(
        values=values,  # pyright: ignore
        ok=np.asarray(True),  # pyright: ignore
        first_step=np.asarray(first),  # pyright: ignore
        final_state=None,
        step=dt,
        record_every=1,
        frames=next(iter(values.values())).shape[1],
        unit_pairs=tuple((n, unit) for n, (unit, _) in said.items()),
        about_pairs=tuple(sorted((about or {}).items())),
    )


def _scaled(name: str, x: np.ndarray, factor: float) -> np.ndarray:
    if name in ("v", "current") and x.dtype.kind in "iu":  # would wrap, and round
        x = x.astype(np.float64)
    return x if factor == 1 else x * np.asarray(factor, x.dtype)


def _together(given: Mapping[str, Any], axes: str | None, frames: int | None) -> dict[str, np.ndarray]:
    """Arrays as `[trial, time, neuron]`, of the same trials and times."""
    values = {n: to_axes(n, x, axes=axes, frames=frames) for n, x in given.items()}
    trials = max((len(x) for x in values.values()), default=0)
    values = by_trial({n: np.broadcast_to(x, (trials, *x.shape[1:])) if len(x) == 1 else x for n, x in values.items()})
    found = next(iter(values.values())).shape[1]
    if frames not in (None, found):
        raise ValueError(f"there are {frames} times, but the arrays have {found} samples")
    return values


def _clock(dt: float | None, time: Any) -> tuple[float, int, int | None]:
    """The step, the steps before the first sample's interval, and how many samples there are where times say it."""
    if dt is not None and not (np.ndim(dt) == 0 and np.isfinite(dt) and dt > 0):
        raise ValueError(f"dt = {dt} ms must be positive")
    if time is None:
        if dt is None:
            raise ValueError("dt, the time between samples [ms], is missing; or give the time of every sample, time=")
        return float(dt), -1, None
    step, away, at = even_steps(time)
    if away > 0.01:
        raise ValueError(
            f"the times are uneven: a step of {np.diff(time)[at - 1]:g} ms at sample {at}, most are {step:g} ms; "
            "interpolate them first, as `read` and `from_pandas` do with uneven='interpolate'"
        )
    if dt is not None and abs(dt - step) > 1e-3 * step:
        raise ValueError(f"dt = {dt:g} ms, but the times are {step:g} ms apart")
    step = step if dt is None else float(dt)
    start = float(np.asarray(time, np.float64)[0]) / step
    return step, (round(start) if abs(start - round(start)) < 0.01 else 0) - 1, len(time)
