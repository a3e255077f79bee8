"""From columns with names to a recording: which is time, potential and current, in which units, at which steps."""

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from jneuro.core.names import unknown_name
from jneuro.recordings.pairing import require_plausible
from jneuro.recordings.readers import ReadError, check_sweeps
from jneuro.recordings.recording import Recording, even_steps, from_arrays, to_axes
from jneuro.recordings.units import factor_to, split_unit, unit_factor

__all__ = ["Columns", "Layout", "recording_of"]

Name = str | int | Sequence[str | int]
"""A column: its header, with or without its unit, a pattern such as `v*`, or its number from 0; or several."""

_FOUND = {
    "time": ("time", "t", "times", "timestamps", "zeit"),
    "v": ("v", "vm", "v_m", "voltage", "potential", "membrane potential", "membrane_potential", "trace"),
    "current": ("current", "i", "im", "i_m", "i_inj", "iinj", "i_ext", "stimulus", "stim", "command"),
    "trial": ("trial", "sweep", "run", "episode"),
    "neuron": ("neuron", "cell", "roi"),
    "spikes": ("spikes",),
}
"""Headers by which columns are found, without their units, in small letters."""
_RATES = {"fs": "Hz", "rate": "Hz", "sampling_rate": "Hz", "samplerate": "Hz", "dt": "ms", "sampling_interval": "ms"}
"""Numbers beside arrays that say the step, and the unit that they have where none is named."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """What a user says of a table. Attributes are the arguments of `read_table`."""

    time: str | int | None = None
    v: Name | None = None
    current: Name | None = None
    trial: str | int | None = None
    neuron: str | int | None = None
    columns: Mapping[str, Name] | None = None
    dt: float | None = None
    unit: str | None = None
    current_unit: str | None = None
    time_unit: str | None = None
    units: Mapping[str, str] | None = None
    axes: str | None = None
    across: Literal["trial", "neuron"] | None = None
    uneven: Literal["refuse", "interpolate"] = "refuse"
    limit_mv: float = 1e3
    limit_pa: float = 1e7
    sweeps: Sequence[int] | None = None

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> "Layout":
        """Make one of keyword arguments.

        Args:
            said: the arguments.

        Raises:
            ValueError: if one is unknown, with the one that was probably meant.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        if unknown := [name for name in said if name not in known]:
            raise ValueError(unknown_name(unknown[0], known, "argument"))
        return cls(**said)


@dataclasses.dataclass(frozen=True)
class Columns:
    """Arrays by their headers.

    Attributes:
        where: the file, for messages.
        arrays: `[row]` each of a table; of other files also `[time, neuron]` and `[trial, time, neuron]`.
        units: of arrays whose headers do not name them.
        row: the line of a file in which the first row stands, for messages; None where rows have no lines.
        kind: the format, as the recording's `about` tells it.
        about: what the file says of its origin.
    """

    where: str
    arrays: Mapping[str, np.ndarray]
    units: Mapping[str, str]
    row: int | None = None
    kind: str = "table"
    about: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def listed(self) -> str:
        """The headers, for messages."""
        return ", ".join(map(repr, self.arrays)) or "none"

    def unit(self, label: str) -> str | None:
        """The unit of a column, from elsewhere or from its header."""
        return self.units.get(label) or split_unit(label)[1]

    def stem(self, label: str) -> str:
        """A header in small letters, without its unit and the structure that it is a field of."""
        return split_unit(label)[0].lower().replace("/", ".").rpartition("." if self.row is None else "\0")[2]

    def chosen(self, wanted: Name, key: str) -> list[str]:
        """The headers that a user means.

        Args:
            wanted: one or several.
            key: the argument, for messages.

        Raises:
            ReadError: if there is none, naming those that there are.
        """
        found = []
        for one in [wanted] if isinstance(wanted, str | int) else wanted:
            labels = list(self.arrays)
            if isinstance(one, int) and not isinstance(one, bool) and 0 <= one < len(labels):
                fitting = [labels[one]]
            else:
                named = str(one)
                fitting = [n for n in labels if n == named] or [n for n in labels if split_unit(n)[0] == named]
                fitting = fitting or ([n for n in labels if fnmatch.fnmatchcase(n, named)] if "*" in named else [])
            if not fitting or (len(fitting) > 1 and "*" not in str(one)):
                what = "names more than one" if fitting else "is none"
                raise ReadError(f"{self.where}: {key} = {one!r} {what} of its columns, which are {self.listed()}")
            found += fitting
        return found

    def numeric(self, label: str) -> bool:
        """Whether a column holds numbers alone."""
        return np.asarray(self.arrays[label]).dtype.kind in "fiub"

    def numbers(self, label: str) -> np.ndarray:
        """A column's numbers.

        Args:
            label: its header.

        Raises:
            ReadError: if there is something else in it, with the place.
        """
        x = np.asarray(self.arrays[label])
        if not self.numeric(label):
            cells = [(i, c) for i, c in enumerate(x.ravel()) if not _is_number(c)]
            at, cell = cells[0] if cells else (0, x.dtype)
            raise ReadError(f"{self.where}: column {label!r} holds {cell!r}{self.place(at)}, which is no number")
        return x.astype(np.int8) if x.dtype.kind == "b" else x

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f" in row {row}" if self.row is None else f" in line {self.row + row}"


def _is_number(cell: Any) -> bool:
    try:
        float(cell)
    except (TypeError, ValueError):
        return False
    return True


def recording_of(columns: Columns, layout: Layout, about: Mapping[str, str]) -> Recording:
    """Make a recording of columns.

    Args:
        columns: the columns.
        layout: what the user says of them; what is not said is found by headers and units.
        about: what else is known.

    Returns:
        The recording.

    Raises:
        ReadError: if a column or its unit is not known, numbers are missing, or steps are uneven.
    """
    where = columns.where
    if layout.uneven not in ("refuse", "interpolate"):
        raise ReadError(f"{where}: uneven = {layout.uneven!r} must be 'refuse' or 'interpolate'")
    index = {key: _index(columns, getattr(layout, key), key) for key in ("time", "trial", "neuron")}
    used = [label for label in index.values() if label is not None]
    variables = _variables(columns, layout, used)
    time, dt, said = _times(columns, layout, index["time"], variables)
    arrays = {n: [columns.numbers(label) for label in labels] for n, labels in variables.items()}
    values: dict[str, Any]
    try:
        if index["trial"] or index["neuron"] or (time is not None and (np.diff(time) <= 0).any()):
            values, time, more = _by_index(columns, index, variables, arrays, time, dt)
        else:
            frames = None if time is None else len(time)
            values = {n: _across(columns, layout, n, found, frames) for n, found in arrays.items()}
            more = {}
        numbers = range(len(next(iter(values.values())))) if layout.sweeps is None else layout.sweeps
        if layout.sweeps is not None:
            check_sweeps(where, layout.sweeps, max(map(len, values.values())))
            values = {n: x[np.asarray(layout.sweeps)] if len(x) > 1 else x for n, x in values.items()}
        _require_finite(columns, variables, values, numbers)
        values, clock, stepped = _stepped(where, values, time, dt, layout)
        units = {n: _unit(columns, layout, n, labels) for n, labels in variables.items()}
        clocked = ", ".join(x for x in (said, stepped) if x)
        about = {**about, **columns.about, **more, "format": columns.kind, "time": clocked}
        about |= {"columns": "; ".join(f"{n}: {', '.join(map(repr, x[:5]))}" for n, x in variables.items())}
        if "current" in variables:
            about["current"] = f"column {', '.join(map(repr, variables['current'][:5]))}, as it stands there"
        taken = [*used, *(label for labels in variables.values() for label in labels)]
        rest = [n for n, x in columns.arrays.items() if n not in taken and np.size(x) > 1]
        if rest:
            about["not_read"] = f"{', '.join(map(repr, rest[:8]))}; read with columns={{name: header}}"
        found = from_arrays(**clock, units=units, about=about, **values)
    except ReadError:
        raise
    except ValueError as error:
        raise ReadError(f"{where}: {error}") from error
    require_plausible(where, found, numbers, limits=(layout.limit_mv, layout.limit_pa))
    return found


def _require_finite(
    columns: Columns,
    variables: Mapping[str, list[str]],
    values: Mapping[str, np.ndarray],
    numbers: Sequence[int],
) -> None:
    """Refuse what is not finite, or empty, with its place."""
    for name, x in values.items():
        if not (bad := np.argwhere(~np.isfinite(x))).size:
            continue
        trial, frame, neuron = map(int, bad[0])
        place = f" in sweep {numbers[trial]}, sample {frame}, neuron {neuron}"
        if x.shape == (1, np.size(columns.arrays[variables[name][0]]), 1):
            place = columns.place(frame)
        raise ReadError(
            f"{columns.where}: {name!r} is {x[trial, frame, neuron]}, or empty,{place} ({len(bad)} such samples); cut "
            "them out, fill them, or choose other sweeps"
        )


def _index(columns: Columns, wanted: str | int | None, key: str) -> str | None:
    """The header of the column that is time, trial or neuron: as the user says, or by its name."""
    if wanted is not None:
        return columns.chosen(wanted, key)[0]
    known = _FOUND[key]
    found = [n for n, x in columns.arrays.items() if columns.stem(n) in known and np.ndim(x) == 1]
    if key == "time":
        found = [n for n in found if (unit := columns.unit(n)) is None or factor_to(unit, "ms") is not None]
    if len(found) > 1:
        raise ReadError(f"{columns.where}: more than one column may be the {key} ({found}); say {key}=…")
    return found[0] if found else None


def _variables(columns: Columns, layout: Layout, used: Sequence[str]) -> dict[str, list[str]]:
    """The headers of every variable."""
    said = {"v": layout.v, "current": layout.current, **(layout.columns or {})}
    found = {n: columns.chosen(wanted, n) for n, wanted in said.items() if wanted is not None}
    free = [
        n
        for n, x in columns.arrays.items()
        if n not in used and np.ndim(x) > 0 and np.size(x) > 1 and not any(n in labels for labels in found.values())
    ]
    if not layout.columns:
        for name, targets in {"v": ("mV",), "current": ("pA", "µA/cm²"), "spikes": ()}.items():
            if name not in found and (labels := _named(columns, free, name, targets)):
                found[name] = labels
                free = [n for n in free if n not in labels]
        found |= {split_unit(n)[0]: [n] for n in free if np.ndim(columns.arrays[n]) == 3 and columns.numeric(n)}
    if not found and len(free) == 1 and layout.unit is not None:
        return {"v": free}
    if not found and (used or layout.dt is not None):
        found = {split_unit(n)[0]: [n] for n in free if columns.numeric(n) and not n.isdigit() and n != "array"}
    return found or _none(columns)


def _none(columns: Columns) -> dict[str, list[str]]:
    raise ReadError(
        f"{columns.where}: none of its columns is known as a potential or a current ({columns.listed()}); say which "
        "is, v=…, current=…, or of other variables columns={name: header}"
    )


def _named(columns: Columns, free: Sequence[str], name: str, targets: Sequence[str]) -> list[str]:
    """Columns whose header is a variable's, alone or with numbers; else the only one in one of its units."""
    known, stems = _FOUND[name], {}
    for label in free:
        stem, unit = columns.stem(label), columns.unit(label)
        if unit is not None and targets and all(factor_to(unit, t) is None for t in targets):
            continue
        stems.setdefault("exact" if stem in known else stem.rstrip("0123456789_ #-"), []).append(label)
    if exact := stems.get("exact"):
        if len(exact) > 1:
            raise ReadError(f"{columns.where}: more than one column may be {name!r} ({exact}); say {name}=…")
        return exact
    numbered = [label for stem in known for label in stems.get(stem, [])]
    by_unit = [n for n in free if any(factor_to(columns.unit(n) or "", t) is not None for t in targets)]
    return numbered or by_unit


def _across(columns: Columns, layout: Layout, name: str, found: list[np.ndarray], frames: int | None) -> np.ndarray:
    """One variable of one or several columns, `[trial, time, neuron]`."""
    if len({x.shape for x in found}) > 1:
        shapes = ", ".join(str(x.shape) for x in found)
        raise ReadError(f"{columns.where}: the columns of {name!r} differ in their shapes, {shapes}")
    if len(found) == 1:
        return to_axes(name, found[0], axes=layout.axes, frames=frames)
    across = layout.across or (None if name in ("v", "current") else "neuron")
    if across not in ("trial", "neuron"):
        raise ReadError(
            f"{columns.where}: {len(found)} columns may be {name!r}; say which, {name}=…, or what they are, "
            "across='trial' or across='neuron'"
        )
    joined = np.stack(found, 0 if across == "trial" else -1)
    return to_axes(name, joined, axes="trial time" if across == "trial" else "time neuron")


def _unit(columns: Columns, layout: Layout, name: str, labels: Sequence[str]) -> str:
    """The unit of a variable: as the user says, from its header, or refused where it must be known."""
    said = {"v": layout.unit, "current": layout.current_unit}.get(name) or (layout.units or {}).get(name)
    found = {said} if said else {columns.unit(label) for label in labels}
    if len(found) > 1:
        raise ReadError(f"{columns.where}: the columns of {name!r} have different units, {sorted(map(str, found))}")
    unit = found.pop()
    targets = {"v": ("mV",), "current": ("pA", "µA/cm²")}.get(name)
    if targets is None:
        return unit or "1"
    key, what = ("unit", "a potential") if name == "v" else ("current_unit", "a current")
    if unit is None:
        raise ReadError(
            f"{columns.where}: the unit of {labels[0]!r} is not known; say {key}={targets[0]!r}, or name it in the "
            f"header, as in '{name}_{targets[0]}'"
        )
    if said and name == "current" and "/" in unit:  # a density of some other kind is kept
        return unit
    if all(unit_factor(unit, t) is None for t in targets):
        raise ReadError(f"{columns.where}: {labels[0]!r} is in {unit}, which is no unit of {what}; say {key}=…")
    return unit


def _times(
    columns: Columns, layout: Layout, label: str | None, variables: Mapping[str, list[str]]
) -> tuple[np.ndarray | None, float | None, str]:
    """The times of all rows [ms], or the step, and how they were understood."""
    where = columns.where
    if label is None:
        if layout.dt is not None:
            return None, layout.dt, f"dt = {layout.dt:g} ms, as you say"
        for name, x in columns.arrays.items():
            unit = split_unit(name)[1]
            if (plain := _RATES.get(columns.stem(name))) is not None and np.size(x) == 1:
                unit, number = columns.units.get(name) or unit or plain, float(np.ravel(x)[0])
                if unit in ("Hz", "kHz") or factor_to(unit, "ms") is not None:
                    step = number * (factor_to(unit, "ms") or 0)
                    step = step or {"Hz": 1e3, "kHz": 1.0}[unit] / number
                    return None, step, f"{name} = {number:g} {unit}, taken for the step of {step:g} ms"
        raise ReadError(
            f"{where}: no column is known as the time ({columns.listed()}); say time=…, or the step in ms, dt=…"
        )
    time = columns.numbers(label).astype(np.float64)
    if (bad := np.flatnonzero(~np.isfinite(time.ravel()))).size:
        raise ReadError(f"{where}: the time {label!r} is {time.ravel()[bad[0]]}, or empty,{columns.place(bad[0])}")
    unit = layout.time_unit or columns.unit(label)
    if time.ndim != 1:
        raise ReadError(f"{where}: the time {label!r} is {time.shape}; it must be one axis")
    if unit is not None:
        if (factor := factor_to(unit, "ms")) is None:
            raise ReadError(f"{where}: {label!r} is in {unit}, which is no unit of time; say time_unit='ms' or 's'")
        return time * factor, layout.dt, f"column {label!r} in {unit}"
    steps = np.diff(time)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if "v" not in variables or not 0.004 <= step <= 2:
        raise ReadError(
            f"{where}: the unit of the time {label!r} is not known, and its steps of {step:g} do not tell; say "
            "time_unit='ms' or time_unit='s'"
        )
    return time, layout.dt, f"column {label!r}, taken for ms, as no unit is named"


def _by_index(
    columns: Columns,
    index: Mapping[str, str | None],
    variables: Mapping[str, list[str]],
    arrays: Mapping[str, list[np.ndarray]],
    time: np.ndarray | None,
    dt: float | None,
) -> tuple[dict[str, np.ndarray], np.ndarray | None, dict[str, str]]:
    """Rows of several trials and neurons below each other, as `[trial, time, neuron]`, and the times of one trial."""
    where = columns.where
    rows = len(next(iter(arrays.values()))[0])
    if any(x.shape != (rows,) for found in arrays.values() for x in found) or any(len(x) > 1 for x in arrays.values()):
        raise ReadError(f"{where}: with columns of trials or neurons, every variable must be one column")
    keys, more = [], {}
    for key in ("trial", "neuron"):
        label = index[key]
        if label is None:
            keys.append(np.zeros(rows, int))
            continue
        names, numbers = np.unique(np.asarray(columns.arrays[label]), return_inverse=True)
        more[f"{key}s"] = ", ".join(map(str, names[:20])) + ("…" if len(names) > 20 else "")
        keys.append(numbers)
    trial, neuron = keys
    if index["trial"] is None and time is not None:  # times that begin anew
        same = np.diff(time) <= 0
        if (same & (np.diff(neuron) == 0)).any():
            back = np.flatnonzero(same) + 1
            if index["neuron"] is not None or len(set(np.diff(np.asarray([0, *back, rows])))) > 1:
                at = int(back[0])
                raise ReadError(
                    f"{where}: time {time[at - 1]:g} ms is followed by {time[at]:g} ms{columns.place(at)}; if trials "
                    "stand below each other, name the column that tells them, trial=…"
                )
            trial = np.repeat(np.arange(len(back) + 1), rows // (len(back) + 1))
            more["trials"] = f"{len(back) + 1}, as the time begins anew so often"
    counts = np.zeros((trial.max() + 1, neuron.max() + 1), int)
    np.add.at(counts, (trial, neuron), 1)
    if len(set(counts.ravel())) > 1:
        least, most = (np.unravel_index(f(counts), counts.shape) for f in (np.argmin, np.argmax))
        raise ReadError(
            f"{where}: trials or neurons have different numbers of rows: trial {least[0]}, neuron {least[1]} has "
            f"{counts.min()}, trial {most[0]}, neuron {most[1]} has {counts.max()}; cut them alike"
        )
    order = np.lexsort((neuron, trial))  # stable: rows of one trial and neuron stay in their order
    shape = (*counts.shape, -1)
    values = {n: x[0][order].reshape(shape).transpose(0, 2, 1) for n, x in arrays.items()}
    if time is None:
        return values, None, more
    times = time[order].reshape(shape)
    own = times - times[..., :1]
    step = float(np.median(np.diff(own[0, 0]))) if own.shape[2] > 1 else 1.0
    if np.abs(own - own[0, 0]).max() > 0.01 * step:
        raise ReadError(f"{where}: its trials or neurons have different times; read them one by one, or resample them")
    return values, times[0, 0], more


def _stepped(
    where: str, values: dict[str, np.ndarray], time: np.ndarray | None, dt: float | None, layout: Layout
) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Values at even steps, and the clock of `from_arrays`; interpolated where the user says so."""
    if time is None:
        return values, {"dt": dt}, ""
    step, away, at = even_steps(time)
    if away <= 0.01:
        said = f"even to {100 * away:.2g} % of the step" if away > 1e-6 else ""
        return values, {"dt": dt, "time": time}, said
    shortest, longest = np.diff(time).min(), np.diff(time).max()
    if layout.uneven == "refuse":
        raise ReadError(
            f"{where}: the times are uneven: most steps are {step:g} ms, but that to sample {at} is "
            f"{time[at] - time[at - 1]:g} ms ({shortest:g} to {longest:g} ms); uneven='interpolate' resamples them to "
            "the step dt=…, by default the one that most have"
        )
    step = step if dt is None else dt
    fresh = time[0] + step * np.arange(int((time[-1] - time[0]) / step + 1e-9) + 1)
    said = f"steps of {shortest:g} to {longest:g} ms, interpolated linearly to {step:g} ms"
    errors = {}
    for name, x in values.items():
        flat = x.transpose(0, 2, 1).reshape(-1, len(time))
        made = np.stack([np.interp(fresh, time, row) for row in flat])
        values[name] = made.reshape(x.shape[0], x.shape[2], -1).transpose(0, 2, 1)
        # A sample that is left out, and interpolated between its neighbours, lies a step away from both.
        left = [np.abs(np.interp(time[1:-1:2], time[::2], row[::2]) - row[1:-1:2]).max(initial=0) for row in flat]
        errors[name] = f"{max(left):.3g} of {name!r}"
    said += f"; every second sample, left out and interpolated, is met to {', '.join(errors.values())} at the worst"
    return values, {"dt": step}, said
