"""Files that hold columns or arrays: text, NumPy, MATLAB, HDF5, netCDF; data frames and datasets."""

import csv
import dataclasses
import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jneuro.core.guard import check_memory
from jneuro.recordings.columns import Columns, Layout, Name, recording_of
from jneuro.recordings.readers import ReadError, extra, parsed, require_readable
from jneuro.recordings.recording import Recording
from jneuro.recordings.units import known_unit

__all__ = ["from_pandas", "from_xarray", "read_table"]

_HEAD = 1 << 16
"""So many bytes of a text are looked at to find its delimiter and header."""


def read_table(
    path: Path,
    sweeps: Sequence[int] | None = None,
    *,
    time: str | int | None = None,
    v: Name | None = None,
    current: Name | None = None,
    trial: str | int | None = None,
    neuron: str | int | None = None,
    columns: Mapping[str, Name] | None = None,
    dt: float | None = None,
    unit: str | None = None,
    current_unit: str | None = None,
    time_unit: str | None = None,
    units: Mapping[str, str] | None = None,
    axes: str | None = None,
    across: Literal["trial", "neuron"] | None = None,
    uneven: Literal["refuse", "interpolate"] = "refuse",
    delimiter: str | None = None,
    limit_mv: float = 1e3,
    limit_pa: float = 1e7,
) -> Recording:
    """Read columns or arrays: .csv, .tsv, .txt, .dat, .atf, .npy, .npz, .mat (also 7.3), .h5 and .nc.

    What is not said is found by headers, such as `t_s`, `v_mV`, `I (pA)`, `sweep`. Units stand in the header, in a line
    of units below it, in the file's attributes, or are said. Potentials become mV, currents pA or µA/cm².

    Args:
        path: the file.
        sweeps: which trials; all by default.
        time: the column of time: its header, with or without its unit, or its number from 0.
        v: the column, or columns, of the potential; `v*` means all that begin so.
        current: those of the current.
        trial: a column that tells trials apart that stand below each other.
        neuron: one that tells neurons apart.
        columns: of further variables, by the names that they get: `{"x": "dff_*"}`.
        dt: time between samples [ms], where no column is the time.
        unit: of the potential's numbers, such as `mV` or `0.05 mV`.
        current_unit: of the current's numbers.
        time_unit: of the time's numbers, `ms` or `s`.
        units: of further variables.
        axes: of arrays whose axes are others than [time, neuron] and [trial, time, neuron], such as "trial time".
        across: what several columns of one variable are: trials or neurons.
        uneven: whether uneven times are refused, or interpolated linearly to even ones; `about["time"]` says the error.
        delimiter: of a text; found by default.
        limit_mv: larger potentials are refused [mV].
        limit_pa: larger currents are refused [pA].

    Returns:
        The recording; `about` says what was understood.

    Raises:
        ReadError: if a column, a unit or the time is not known, with the columns that there are; for cells that are no
            numbers, with their place; for uneven times.

    Example:
        ```python
        recording = jn.recordings.read("trace.csv", time="t", v="v_mV", current="i_uA_cm2")
        recording = jn.recordings.read("sweeps.csv", time="t_s", v="v*", unit="mV", across="trial")
        ```
    """
    said = {k: x for k, x in locals().items() if k not in ("path", "delimiter")}
    reader = _LOADERS.get(path.suffix.lower(), _text)
    found = reader(path, delimiter) if reader is _text else reader(path)
    about = {"cell": path.stem, **found.about, "file": path.name}
    return recording_of(dataclasses.replace(found, about=about), Layout.of(said), {})


def from_pandas(frame: Any, **layout: Any) -> Recording:
    """Make a recording of a data frame.

    Args:
        frame: columns with headers; the levels of its index count as columns. Units stand in the headers, such as
            `v_mV`, or in `frame.attrs["units"]`, by header.
        layout: as of `read_table`, without the path: `time`, `v`, `current`, `trial`, `dt`, `unit`, ….

    Returns:
        The recording.

    Raises:
        ReadError: if a column, a unit or the time is not known.

    Example:
        ```python
        recording = jn.recordings.from_pandas(frame, time="t_s", v="vm", unit="mV", current="i_pA")
        ```
    """
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    arrays = {str(name): frame[name].to_numpy() for name in frame.columns}
    units = {str(k): str(u) for k, u in dict(frame.attrs.get("units", {})).items()}
    found = Columns("the data frame", arrays, units, kind="data frame", about=_texts(frame.attrs))
    return recording_of(found, Layout.of(layout), {})


def from_xarray(data: Any, **layout: Any) -> Recording:
    """Make a recording of a dataset or a data array.

    Args:
        data: variables with the dimensions `time`, and `trial` and `neuron` where it has them, or others that are named
            alike (`t`, `sweep`, `cell`, …); the attribute `units` of each, and of the coordinate of time, is its unit.
        layout: as of `read_table`, without the path.

    Returns:
        The recording.

    Raises:
        ReadError: if a variable, a unit or the time is not known, or a variable has other dimensions.

    Example:
        ```python
        recording = jn.recordings.from_xarray(dataset, v="membrane_potential")
        ```
    """
    return recording_of(_dataset(data, "the dataset", "xarray"), Layout.of(layout), {})


def _texts(attributes: Mapping[str, Any]) -> dict[str, str]:
    """What attributes say of the origin."""
    return {str(k): x for k, x in attributes.items() if isinstance(x, str)}


_DIMENSIONS = {
    "trial": ("trial", "sweep", "run", "episode", "repetition", "seed"),
    "time": ("time", "t", "sample", "frame"),
    "neuron": ("neuron", "cell", "channel", "unit", "roi", "feature"),
}


def _dataset(data: Any, where: str, kind: str) -> Columns:
    """Variables as `[trial, time, neuron]`, or fewer axes in that order."""
    if getattr(data, "data_vars", None) is None:  # a single array
        data = data.to_dataset(name=data.name or "v")
    order = {d: i for i, known in enumerate(_DIMENSIONS.values()) for d in data.dims if str(d).lower() in known}
    arrays, units, skipped = {}, {}, []
    for name, x in {**data.coords, **data.data_vars}.items():
        if name in data.coords and order.get(name) != 1:
            continue
        if any(d not in order for d in x.dims) or len({order[d] for d in x.dims}) < len(x.dims):
            skipped.append(f"{name} {tuple(x.dims)}")
            continue
        ordered = x.transpose(*sorted(x.dims, key=lambda d: order[d]))
        missing = [i for i in range(3) if i not in {order[d] for d in x.dims}]
        whole = name not in data.coords and 1 in {order[d] for d in x.dims}
        arrays[str(name)] = np.expand_dims(ordered.to_numpy(), tuple(missing)) if whole else ordered.to_numpy()
        units |= {str(name): str(x.attrs["units"])} if "units" in x.attrs else {}
    if "dt" in data.attrs and not any(order.get(n) == 1 for n in data.coords):
        arrays["dt"] = np.asarray(data.attrs["dt"])
    if not arrays:
        listed = {k: v[0] for k, v in _DIMENSIONS.items()}
        raise ReadError(f"{where}: no variable has the dimensions {', '.join(listed)}; it has {', '.join(skipped)}")
    return Columns(where, arrays, units, kind=kind, about=_texts(data.attrs))


# Files


def _text(path: Path, delimiter: str | None) -> Columns:
    """A text of columns: header, a line of units, and comments are found."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if b"\0" in head:
        raise ReadError(f"{path}: is no text; if it is of another program, name its reader, reader=…")
    encoding = "utf-8-sig" if _decodes(head) else "latin-1"
    lines = head.decode(encoding, "ignore").splitlines()
    delimiter, decimal, first = _dialect(path, lines, delimiter)
    labels, units = _header(path, lines[:first], len(_fields(lines[first], delimiter)), delimiter)
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frame = parsed(
            path,
            lambda: pd.read_csv(
                path,
                sep=r"\s+" if delimiter is None else delimiter,
                decimal=decimal,
                skiprows=first,
                header=None,
                names=labels,
                index_col=False,
                encoding=encoding,
                skip_blank_lines=False,
                comment="#",
                float_precision="round_trip",
                low_memory=False,
            ),
        )
    while len(frame) and frame.iloc[-1].isna().all():  # empty lines at the end
        frame = frame.iloc[:-1]
    arrays = {name: frame[name].to_numpy() for name in labels}
    return Columns(str(path), arrays, units, row=first + 1, kind="CSV")


def _decodes(head: bytes) -> bool:
    try:
        head[:-4].decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(head) - 12
    return True


def _fields(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return [x.strip() for x in next(csv.reader([line], delimiter=delimiter), [])]


def _number(text: str, decimal: str) -> bool:
    try:
        float(text.replace(decimal, "."))
    except ValueError:
        return False
    return True


def _dialect(path: Path, lines: Sequence[str], delimiter: str | None) -> tuple[str | None, str, int]:
    """Delimiter, decimal sign, and the first line of numbers."""
    for at, line in enumerate(lines):
        if not line.strip() or line.lstrip()[0] in "#%":
            continue
        for sign in [delimiter] if delimiter is not None else [*(d for d in "\t;," if d in line), None]:
            fields = _fields(line, sign)
            later = [_fields(x, sign) for x in lines[at + 1 : at + 101] if x.strip()]
            # Signs of decimals may be missing in the first row, as in "0;-65;0".
            comma = sign != "," and any("," in x and _number(x, ",") for row in (fields, *later) for x in row)
            decimal = "," if comma else "."
            # A title such as "2 3" above a table is no row of it.
            alike = all(len(x) == len(fields) for x in later[:3][:-1] or later[:1])
            if fields and alike and sum(_number(x, decimal) for x in fields) > len(fields) / 2:
                return sign, decimal, at
    raise ReadError(f"{path}: no line of numbers is found in its beginning; is it a table? Say delimiter=…")


def _header(path: Path, above: Sequence[str], count: int, delimiter: str | None) -> tuple[list[str], dict[str, str]]:
    """Names of the columns, and units that stand in a line of their own."""
    rows = [_fields(x.lstrip().lstrip("#%").strip(), delimiter) for x in above if x.strip()]
    rows = [[x.strip('"') for x in row] for row in rows if len(row) == count]
    units = rows.pop() if len(rows) > 1 and all(known_unit(x.strip("()[]")) for x in rows[-1] if x) else []
    names = rows[-1] if rows else [str(i) for i in range(count)]
    labels = [name or str(i) for i, name in enumerate(names)]
    if twice := [n for n in labels if labels.count(n) > 1]:
        labels = [f"{n} #{i}" if n in twice else n for i, n in enumerate(labels)]
    return labels, {n: u.strip("()[]") for n, u in zip(labels, units, strict=False) if u}


def _numpy(path: Path) -> Columns:
    """An array, or several by name."""

    def load() -> Any:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_memory("arrays", sum(entry.file_size for entry in archive.infolist()))
        with path.open("rb") as file:  # which NumPy leaves open if it is damaged
            found = np.load(file, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else {n: found[n] for n in found.files}

    arrays = parsed(path, load)
    if isinstance(arrays, np.ndarray):
        names = arrays.dtype.names
        columns = {n: arrays[n] for n in names} if names else {"array": arrays}
        return Columns(str(path), columns, {}, kind="NPY")
    about = parsed(path, lambda: json.loads(str(arrays["about"]))) if "about" in arrays else {}
    return dataclasses.replace(_with_texts(path, arrays, {}, "NPZ"), about=_texts(about))


def _mat(path: Path) -> Columns:
    """The variables of a MATLAB file, with fields of structures as `structure.field`."""
    import scipy.io

    try:
        found = scipy.io.loadmat(path, simplify_cells=True)
    except NotImplementedError:  # version 7.3 is HDF5
        return _hdf5(path, kind="MAT")
    except Exception as error:  # the parser raises whatever it likes
        raise ReadError(f"{path}: cannot be read ({type(error).__name__}: {error}); is it a MATLAB file?") from error
    arrays: dict[str, np.ndarray] = {}

    def collect(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                collect(f"{prefix}.{key}" if prefix else str(key), inner)
        elif not prefix.startswith("__"):
            arrays[prefix] = np.asarray(value)

    collect("", found)
    return _with_texts(path, arrays, {}, "MAT")


def _hdf5(path: Path, kind: str = "HDF5") -> Columns:
    """The data sets of an HDF5 file, by their paths; MATLAB writes their axes in reverse."""
    h5py: Any = extra("h5py", path)
    require_readable(path, "jneuro.core.hdf5:walk")
    arrays: dict[str, np.ndarray] = {}
    units: dict[str, str] = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):
            label = name.replace("/", ".") if kind == "MAT" else name
            x = np.asarray(item[()])
            if kind == "MAT":
                x = x.T
                if item.attrs.get("MATLAB_class") == b"char":
                    x = np.asarray("".join(map(chr, x.ravel())))
                elif x.ndim == 2 and 1 in x.shape:
                    x = x.reshape(-1) if x.size > 1 else x.reshape(())
            arrays[label] = x
            for key in ("units", "unit"):
                if isinstance(item.attrs.get(key), str):
                    units[label] = str(item.attrs[key])

    def load() -> None:
        with h5py.File(path, "r") as file:
            file.visititems(collect)

    parsed(path, load)
    return _with_texts(path, arrays, units, kind)


def _with_texts(path: Path, arrays: Mapping[str, np.ndarray], units: Mapping[str, str], kind: str) -> Columns:
    """Columns without what is text; one called `unit_v`, or `v_unit`, is the unit of `v`."""
    texts = {n: str(x) for n, x in arrays.items() if x.dtype.kind in "US" and x.ndim == 0}
    numbers = {n: x for n, x in arrays.items() if x.dtype.kind in "fiub"}
    named = {n: texts[key] for n in numbers for key in (f"unit_{n}", f"{n}_unit", f"{n}_units") if key in texts}
    if not numbers:
        raise ReadError(f"{path}: holds no arrays of numbers, only {', '.join(arrays) or 'nothing'}")
    return Columns(str(path), numbers, {**units, **named}, kind=kind)


def _netcdf(path: Path) -> Columns:
    """The variables of a netCDF file."""
    import xarray as xr
    from xarray.backends import list_engines

    def load() -> Any:
        with xr.open_dataset(path, decode_times=False) as data:
            return data.load()

    with path.open("rb") as file:
        classic = file.read(3) == b"CDF"
    if not classic and not {"h5netcdf", "netcdf4"} & set(list_engines()):
        raise ReadError(f"{path}: is netCDF 4, which needs a package; install it with pip install h5netcdf")
    return _dataset(parsed(path, load), str(path), "netCDF")


_LOADERS: dict[str, Any] = {
    ".npy": _numpy, ".npz": _numpy, ".mat": _mat, ".h5": _hdf5, ".hdf5": _hdf5, ".nc": _netcdf,
}  # fmt: skip
