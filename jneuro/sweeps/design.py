"""Which points a sweep has: grids, random and Sobol designs, and tables of one's own; each with any number of seeds."""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import jax
import numpy as np
from pydantic import Field, ValidationError, model_validator

from jneuro.core.config import Config, first_error
from jneuro.core.names import shown
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Int, Key

__all__ = ["TAKEN", "AxisConfig", "DesignConfig", "Points", "as_design", "design_points", "zipped"]


TAKEN = ("point", "seed", "time", "neuron", "population", "ok")
"""Names that a store has already, for its own dimensions and results."""


class AxisConfig(Config):
    """A quantity that is varied.

    Attributes:
        of: the path that is set, such as `simulator.g`, `stimulus.amplitude` or `channels.na.g_max`, or a list of
            several; by default what bears the axis' name.
        times: factor from the axis' value to that of the parameter.
        values: the values of a grid's axis; or
        low: the lower end, and
        high: the upper end, and
        points: for a grid, the number of values.
        scale: whether values are evenly spaced, or evenly distributed, on a linear or logarithmic scale.
    """

    of: str | tuple[str, ...] | None = None
    times: float = 1.0
    values: tuple[float, ...] | None = Field(default=None, min_length=1)
    low: float | None = None
    high: float | None = None
    points: int | None = Field(default=None, ge=1)
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        if not isinstance(data, list | tuple | Mapping | cls):
            raise ValueError(f"= {shown(data)}: must be a list of values, or low, high and points")
        return {"values": data} if isinstance(data, list | tuple) else data

    @property
    def paths(self) -> tuple[str, ...]:
        """What `of` says."""
        return () if self.of is None else (self.of,) if isinstance(self.of, str) else self.of

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.times == 0:
            raise ValueError("times = 0 would vary nothing")
        if self.values is not None and len(set(self.values)) < len(self.values):
            raise ValueError("values has one of them twice")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{'low' if self.low is None else 'high'} is missing")
        if self.values is not None and self.low is not None:
            raise ValueError("has values as well as low and high; leave one of them out")
        if self.low is not None and self.high is not None:
            if not self.low < self.high:
                raise ValueError(f"low = {self.low:g} must be less than high = {self.high:g}")
            if self.scale == "log" and self.low <= 0:
                raise ValueError(f"low = {self.low:g} must be positive on a log scale")
        return self

    def at(self, share: Float[np.ndarray, " point"]) -> Float[np.ndarray, " point"]:
        """The values at shares between 0 and 1 of the range."""
        low, high = self.low or 0.0, self.high or 0.0
        if self.scale == "log":
            # The ends themselves are exact.
            inner = np.exp((1 - share) * math.log(low) + share * math.log(high))
            return np.where(share == 0, low, np.where(share == 1, high, np.clip(inner, low, high)))
        return (1 - share) * low + share * high

    @property
    def grid(self) -> Float[np.ndarray, " point"]:
        """The values of a grid's axis."""
        if self.values is not None:
            return np.asarray(self.values, np.float64)
        return self.at(np.linspace(0, 1, self.points or 1))

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest value."""
        if self.values is not None:
            return min(self.values), max(self.values)
        return self.low or 0.0, self.high or 0.0


class DesignConfig(Config):
    """The points of a sweep.

    Attributes:
        design: `grid`, all combinations of the axes' values; `random` or `sobol`, so many points between the
            axes' ends; or `table`.
        axes: what is varied, by the name of a dimension or coordinate. A table's columns need an entry only where
            `of` or `times` is needed.
        points: number of points of a random or Sobol design.
        table: a CSV file, relative to this one, or its text: one column for each axis, and `seed` if wanted.
        seeds: repetitions of every point, each with random numbers of its own.
        draws: `per_point`, every point has its own connectivity and noise; or `per_seed`, points that differ in their
            parameters alone share them.
        max_points: the most points there may be, all seeds together.
        chunk: points that are written, and done again after a fault, together; by default some hundredth part.
        lanes: points that are computed side by side; by default what suits the simulator. Like `chunk`, part of the
            design: it may touch the last bit.
    """

    design: Literal["grid", "random", "sobol", "table"] = "grid"
    axes: dict[str, AxisConfig] = Field(default={})
    points: int | None = Field(default=None, ge=1)
    table: str | None = None
    seeds: int = Field(default=1, ge=1)
    draws: Literal["per_point", "per_seed"] = "per_point"
    max_points: int = Field(default=1_000_000, ge=1)
    chunk: int | None = Field(default=None, ge=1)
    lanes: int | None = Field(default=None, ge=1, le=1 << 20)

    @model_validator(mode="before")
    @classmethod
    def _read_table(cls, data: Any) -> Any:
        """Take the text of a table's file, so that the configuration is complete."""
        if isinstance(data, Mapping) and isinstance(table := data.get("table"), str) and "\n" not in table:
            try:
                return {**data, "table": Path(table).read_text(encoding="utf-8-sig").strip() + "\n"}
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"table = {table!r}: cannot be read ({error})") from error
        return data

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name in self.axes:
            if not name.isidentifier() or name in TAKEN:
                raise ValueError(f"axes: {name!r} cannot name an axis; choose a name, and say what it is by `of`")
        if self.design == "table":
            self._check_table()
        elif self.table is not None:
            raise ValueError(f"a {self.design} design has no table")
        elif not self.axes:
            raise ValueError("axes is empty: nothing would be varied")
        else:
            for name, axis in self.axes.items():
                self._check_axis(name, axis)
        if (self.points is not None) != (self.design in ("random", "sobol")):
            raise ValueError(f"a {self.design} design {'has no' if self.points else 'needs'} points")
        if self.count > self.max_points:
            raise ValueError(
                f"{self.count:,} points are more than max_points = {self.max_points:,}; take fewer, or raise it"
            )
        return self

    def _check_axis(self, name: str, axis: AxisConfig) -> None:
        """Refuse an axis that does not fit the design."""
        if axis.values is None and axis.low is None:
            raise ValueError(f"axes.{name}: needs {'values, or ' if self.design == 'grid' else ''}low and high")
        if self.design != "grid" and (axis.values is not None or axis.points is not None):
            raise ValueError(f"axes.{name}: a {self.design} design takes low and high alone")
        if self.design == "grid" and axis.low is not None and (axis.points or 0) < 2:
            raise ValueError(f"axes.{name}: needs points, 2 at least")

    def _check_table(self) -> None:
        """Refuse a table that does not fit the axes."""
        seed = self.columns.get("seed")
        for name, axis in self.axes.items():
            if axis.values is not None or axis.low is not None or axis.points is not None:
                raise ValueError(f"axes.{name}: its values stand in the table")
            if name not in self.columns:
                raise ValueError(f"table: has no column {name!r}; it has {', '.join(self.columns)}")
        if not self.varied:
            raise ValueError("table: has no column but the seeds: nothing would be varied")
        for name in self.varied:
            if not name.isidentifier() or name in TAKEN:
                raise ValueError(
                    f"table: {name!r} cannot name an axis; choose another name, and say what it is in axes"
                )
        if seed is not None and self.seeds > 1:
            raise ValueError("seeds: the table has a column for them")
        if seed is not None and not np.all((seed >= 0) & (seed % 1 == 0) & (seed < 2**31)):
            raise ValueError(f"table: seeds must be whole numbers from 0 to {2**31 - 1}")

    @property
    def columns(self) -> dict[str, Float[np.ndarray, " point"]]:
        """The columns of a table by their names, `seed` among them if there is one."""
        if self.table is None:
            raise ValueError("a table design needs table, a CSV file")
        return _parse(self.table)

    @cached_property
    def varied(self) -> dict[str, AxisConfig]:
        """All axes by their names; those of a table with its values."""
        if self.design != "table":
            return self.axes
        return {
            name: self.axes.get(name, AxisConfig()).model_copy(update={"values": tuple(values.tolist())})
            for name, values in self.columns.items()
            if name != "seed"
        }

    @property
    def count(self) -> int:
        """Number of points, all seeds together."""
        sizes = [len(axis.values) if axis.values else axis.points or 1 for axis in self.varied.values()]
        sets = {"grid": math.prod(sizes), "table": sizes[0]}
        return sets.get(self.design, self.points or 1) * self.seeds


def _named(paths: Iterable[str]) -> dict[str, str]:
    """Axes' names for paths: the shortest ends that tell them apart."""
    parts = {path: path.split(".") for path in paths}
    names: dict[str, str] = {}
    for path, own in parts.items():
        ends = [own[-depth:] for depth in range(1, len(own) + 1)]
        alone = [end for end in ends if sum(other[-len(end) :] == end for other in parts.values()) == 1]
        free = ["_".join(end) for end in alone if "_".join(end) not in (*names.values(), *TAKEN)]
        names[path] = free[0] if free else "_".join(own)
    if len(set(names.values())) < len(names):
        raise ValueError(f"design: {', '.join(names)} are too alike; name one yourself: NAME: AxisConfig(of=PATH, ...)")
    return names


def _values(path: str, values: Any) -> tuple[float, ...]:
    """The values of an axis as numbers."""
    try:
        array = np.asarray(values)
        numbers = array.astype(np.float64)
    except (TypeError, ValueError):
        array = numbers = np.asarray(math.nan)
    if array.dtype == bool or array.dtype.kind in "USO" or numbers.ndim != 1 or not np.all(np.isfinite(numbers)):
        raise ValueError(f"design: {path} = {values!r} must be a list of finite numbers")
    return tuple(map(float, numbers))


def zipped(columns: Any, **more: Any) -> DesignConfig:
    """Points that are listed: the first values of all columns, then the second ones, and so on.

    Args:
        columns: path to values, all of one length, or a DataFrame; a column `seed` gives each point its own.
        more: further keys of `DesignConfig`.

    Returns:
        The design.

    Raises:
        ValueError: if the columns are of different lengths, or no numbers.
    """
    found = {str(path): _values(str(path), columns[path]) for path in columns}
    if len({len(values) for values in found.values()}) != 1:
        lengths = ", ".join(f"{path} has {len(values)}" for path, values in found.items())
        raise ValueError(f"design: the columns must be of one length; {lengths or 'there are none'}")
    names = _named(path for path in found if path != "seed") | ({"seed": "seed"} if "seed" in found else {})
    lines = [",".join(names[path] for path in found)]
    lines += [",".join(map(repr, row)) for row in zip(*found.values(), strict=True)]
    axes = {name: AxisConfig(of=path) for path, name in names.items() if path != "seed"}
    try:
        return DesignConfig.model_validate({"design": "table", "table": "\n".join(lines) + "\n", "axes": axes, **more})
    except ValidationError as error:
        raise ValueError(f"design: {first_error(error)}") from error


def as_design(design: Any, seeds: int | None = None) -> DesignConfig:
    """Make a design of what a caller gives.

    Args:
        design: path to values, whose combinations are the points of a grid; a DataFrame, whose rows are the points; or
            a design.
        seeds: repetitions of every point, each with random numbers of its own.

    Returns:
        The design.

    Raises:
        ValueError: if it is none of these.
    """
    more = {} if seeds is None else {"seeds": seeds}
    try:
        if isinstance(design, DesignConfig):
            return DesignConfig.model_validate(design.model_dump() | more)
        if isinstance(design, Mapping):
            return _grid({str(path): values for path, values in design.items()}, more)
        if (columns := getattr(design, "columns", None)) is not None:
            return zipped({name: design[name] for name in columns}, **more)
    except ValidationError as error:
        raise ValueError(f"design: {first_error(error)}") from error
    raise ValueError(f"design = {design!r} must map paths to values, or be a DataFrame or a DesignConfig")


def _grid(design: Mapping[str, Any], more: Mapping[str, Any]) -> DesignConfig:
    """A grid of what stands at paths: values, or an `AxisConfig`."""
    if not design:
        raise ValueError("design: is empty: nothing would be varied")
    axes = {}
    for path, name in _named(design).items():
        axis = design[path]
        if not isinstance(axis, AxisConfig):
            axis = AxisConfig.model_validate({"values": _values(path, axis)})
        axes[name] = axis if axis.of is not None else axis.model_copy(update={"of": path})
    return DesignConfig.model_validate({"axes": axes, **more})


@lru_cache(maxsize=2)
def _parse(table: str) -> dict[str, Float[np.ndarray, " point"]]:
    """The columns of a table by their names."""
    rows = [row for row in csv.reader(io.StringIO(table)) if row]
    names = [name.strip() for name in rows[0]] if rows else []
    if len(rows) < 2 or len(set(names)) < len(names):
        raise ValueError("table: needs a line of names, each its own, and a line for each point")
    columns: dict[str, list[float]] = {name: [] for name in names}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise ValueError(f"table: line {number} has {len(row)} fields, not {len(names)}")
        for name, text in zip(names, row, strict=True):
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise ValueError(f"table: line {number}: {name} = {text.strip()!r} must be a number")
            columns[name].append(value)
    return {name: np.asarray(values) for name, values in columns.items()}


class Points(NamedTuple):
    """The points of a sweep, in the order of their index.

    Attributes:
        dims: name and size of every dimension of the results; `seed` is there if there are several.
        coords: the values along each dimension; of designs that are no grids, along `point`.
        values: of every axis at every parameter set, `[set, axis]`.
        seed: the seed of every parameter set, where a table gives it.
        seeds: repetitions of every parameter set; the index of a point is `set * seeds + seed`.
    """

    dims: dict[str, int]
    coords: dict[str, np.ndarray]
    values: Float[np.ndarray, "set axis"]
    seed: Int[np.ndarray, " set"] | None
    seeds: int

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.values) * self.seeds


def design_points(design: DesignConfig, key: Key[Array, ""]) -> Points:
    """Lay out the points of a design.

    Args:
        design: the design.
        key: for what is random.

    Returns:
        The points.
    """
    repeated = {"seed": design.seeds} if design.seeds > 1 else {}
    labels = {"seed": np.arange(design.seeds)} if design.seeds > 1 else {}
    if design.design == "grid":
        axes = {name: axis.grid for name, axis in design.axes.items()}
        values = np.stack([m.reshape(-1) for m in np.meshgrid(*axes.values(), indexing="ij")], 1)
        return Points({n: len(v) for n, v in axes.items()} | repeated, axes | labels, values, None, design.seeds)
    if design.design == "table":
        columns = {name: axis.grid for name, axis in design.varied.items()}
    else:
        shares = _shares(design, key)
        columns = {name: axis.at(share) for (name, axis), share in zip(design.axes.items(), shares.T, strict=True)}
    values, seed = np.stack(list(columns.values()), 1), None
    if design.design == "table" and "seed" in design.columns:
        columns["seed"] = seed = design.columns["seed"].astype(np.int32)
    return Points({"point": len(values)} | repeated, columns | labels, values, seed, design.seeds)


def _shares(design: DesignConfig, key: Key[Array, ""]) -> Float[np.ndarray, "point axis"]:
    """Points in the unit cube."""
    from scipy.stats import qmc

    generator = np.random.default_rng(np.asarray(jax.random.key_data(stream(key, "design"))))
    number, axes = design.points or 1, len(design.axes)
    if design.design == "random":
        return generator.random((number, axes))
    # A Sobol sequence is balanced up to each power of two; what lies beyond the last wanted point is not used.
    return qmc.Sobol(axes, rng=generator).random_base2(max(0, math.ceil(math.log2(number))))[:number]
