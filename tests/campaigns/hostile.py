"""Hostile files: whatever a file holds, its reader returns, or says in one line what is wrong; nothing executes.

    python tests/campaigns/hostile.py --count 1000 --seed 1 [--readers nwb abf …]

makes so many files of every kind out of true ones (flipped bits, cut, zeroed, random behind a true header, with other
values in their JSON, declared huge), beside a few that were thought of, and reads them. The table says of each reader
what came of it: one clear line, the same content, other content (where a format has no checksum), a traceback, a line
that is too long, no end, something executed.
"""

import argparse
import collections
import copy
import dataclasses
import hashlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "recordings"))

OUTCOMES = ("clear", "same", "other", "long", "traceback", "hang", "executed", "accepted")
"""Accepted: a special file, of which none should be."""
MOST = 300
"""Characters of a message."""
ENDLESS = 120
"""Seconds after which a reader is said to hang."""
DATA = Path(os.environ.get("JNEURO_DATA", Path(__file__).parents[3] / "shared" / "data")) / "recordings"

# Mutations of bytes


def flip(bytes_: bytes, draw: random.Random) -> bytes:
    found = bytearray(bytes_)
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        found[_place(len(found), draw)] ^= 1 << draw.randrange(8)
    return bytes(found)


def cut(bytes_: bytes, draw: random.Random) -> bytes:
    return bytes_[: _place(len(bytes_), draw)]


def zero(bytes_: bytes, draw: random.Random) -> bytes:
    at, size = _place(len(bytes_), draw), draw.choice((8, 64, 512, 4096))
    return bytes_[:at] + bytes(min(size, len(bytes_) - at)) + bytes_[at + size :]


def scramble(bytes_: bytes, draw: random.Random) -> bytes:
    at, size = _place(len(bytes_), draw), draw.choice((2, 4, 8, 64, 512))
    return bytes_[:at] + draw.randbytes(min(size, len(bytes_) - at)) + bytes_[at + size :]


def number(bytes_: bytes, draw: random.Random) -> bytes:
    """A number in the place of another, as sizes, counts and addresses are."""
    at = _place(len(bytes_), draw) // 4 * 4
    code, values = draw.choice((("<i", (-1, 0, 1 << 30, 1 << 24, 65536)), ("<q", (-1, 0, 10**12, 1 << 62))))
    return bytes_[:at] + struct.pack(code, draw.choice(values)) + bytes_[at + struct.calcsize(code) :]


def shift(bytes_: bytes, draw: random.Random) -> bytes:
    at, size = _place(len(bytes_), draw), draw.choice((1, 4, 512))
    return draw.choice((bytes_[:at] + bytes_[at + size :], bytes_[:at] + draw.randbytes(size) + bytes_[at:]))


def behind(bytes_: bytes, draw: random.Random) -> bytes:
    """Random bytes behind a true header."""
    kept = min(draw.choice((0, 8, 64, 512, 2048, 6144)), len(bytes_))
    return bytes_[:kept] + draw.randbytes(min(len(bytes_) - kept, 20_000))


def _place(size: int, draw: random.Random) -> int:
    """A place in a file, in its first part half of the time, where most formats have their headers."""
    return draw.randrange(max(min(size, draw.choice((256, 4096, size, size))), 1))


BYTES = (flip, flip, cut, zero, zero, scramble, number, number, shift, behind)

# Mutations of JSON

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 10**9, 10**12, 10**30, -(10**18), 1e308, float("nan"), float("inf"), "", "x" * 5000, "0",
    [], {}, [1], [[]], {"name": 3}, [10**12] * 3, "\u202e\x1b[31m", "__class__", "../../etc", "numpy:load",
)  # fmt: skip


def mutate_json(bytes_: bytes, draw: random.Random) -> bytes:
    """Other values, missing keys, repeated items, brackets without end; or other text."""
    if draw.random() < 0.2:
        return draw.choice(BYTES)(bytes_, draw)
    if draw.random() < 0.05:
        return draw.choice((b"[", b'{"a":')) * draw.choice((100, 100_000))
    value = json.loads(bytes_)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        value = _change(value, draw)
    return json.dumps(value).encode()


def _change(value: Any, draw: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or draw.random() < 0.15:
        near = [value * 1000, value + 1, -value, str(value)] if isinstance(value, int | float) else []
        return copy.deepcopy(draw.choice((*VALUES, *near)))
    key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    what = draw.random()
    if what < 0.1:
        del value[key]
    elif what < 0.2 and isinstance(value, list):
        value.insert(key, value[key])
    elif what < 0.2:
        value[str(key) + "_"] = value.pop(key)
    else:
        value[key] = _change(value[key], draw)
    return value


# What writes of itself where it is executed


class Malicious:
    """Executed by whoever unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return exec, (f"open({str(self.mark)!r}, 'w')",)


def endless_key() -> bytes:
    """A dictionary whose key is a pair of pairs of pairs, sixty deep, each twice the same: its hash has no end."""
    pairs = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(60))
    return b"\x80\x02}K\x01" + pairs + b"K\x01s."


def archive(entries: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return held.getvalue()


def bomb(entries: dict[str, bytes], name: str, begin: bytes = b"") -> bytes:
    """An archive with an entry of a few hundred kilobytes that unpacks to 128 MiB."""
    held = io.BytesIO(archive(entries))
    with (
        zipfile.ZipFile(held, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open(name, "w", force_zip64=True) as entry,
    ):
        entry.write(begin)
        for _ in range(128):
            entry.write(bytes(1 << 20))
    return held.getvalue()


# The readers


Changes = dict[str, bytes]
"""What files of a folder become, by their path in it."""


class Reader(NamedTuple):
    """How a kind of file is made and read.

    Attributes:
        make: writes true ones into a folder; files or folders.
        read: reads one; what it returns is compared with what it returns of the true one.
        errors: what a reader may raise.
        special: further files, or what is changed of the true folder, by name; given the folder of the true ones and
            the path of the mark that what is executed leaves.
        json: whether the file is JSON.
    """

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    errors: Callable[[], tuple[type[Exception], ...]]
    special: Callable[[Path, Path], dict[str, Any]] = lambda folder, mark: {}
    json: bool = False


def recording(trials: int = 1, frames: int = 400) -> Any:
    from jneuro.recordings.recording import from_arrays

    v = np.random.default_rng(0).normal(size=(trials, frames, 1)).astype(np.float32)
    return from_arrays(dt=0.1, units={"v": "mV", "current": "pA"}, v=v, current=v)


def make_nwb(folder: Path) -> list[Path]:
    from jneuro.recordings.nwb import write_nwb

    write_nwb(folder / "one.nwb", recording(frames=2000))
    write_nwb(folder / "two.nwb", recording(2, 50))
    return [folder / "one.nwb", folder / "two.nwb"]


def make_abf(folder: Path) -> list[Path]:
    from abf_files import write_abf

    wave = np.sin(np.arange(2000) / 50).reshape(4, 500)
    epochs = [(0, 1, 10.0, 5.0, 100, 0, 0), (0, 3, 20.0, 0.0, 200, 20, 5)]
    path = write_abf(folder / "one.abf", [("v", "mV", wave)], [("c", "pA")], epochs=epochs)
    return [path, *(p for p in sorted(DATA.glob("*.abf"))[:1])]


def read_recording(path: Path) -> Any:
    from jneuro.recordings.readers import read

    return read(path).values


def make_store(folder: Path) -> list[Path]:
    from jneuro.recordings.store import RecordingWriter

    writer = RecordingWriter(folder / "store.zarr", {"made": "here"})
    for first in (-1, 99):
        writer.append(dataclasses.replace(recording(2, 100), first_step=np.asarray(first)))
    writer.finish()
    return [folder / "store.zarr"]


def special_store(folder: Path, mark: Path) -> dict[str, Changes]:
    """Stores of format 1, which had no seal that would say at once that something was changed."""

    def unsealed(**changed: Any) -> Changes:
        about = json.loads((folder / "store.zarr" / "zarr.json").read_bytes())
        kept = {k: v for k, v in about["attributes"].items() if k != "seal"}
        return {"zarr.json": json.dumps(about | {"attributes": kept | {"jneuro_format": 1} | changed}).encode()}

    def described(name: str, **keys: Any) -> Changes:
        about = json.loads((folder / "store.zarr" / name).read_bytes())
        return unsealed() | {name: json.dumps(about | keys).encode()}

    chunks = [str(p.relative_to(folder / "store.zarr")) for p in (folder / "store.zarr/v/c").rglob("*") if p.is_file()]
    blosc = bytes([2, 1, 0x85, 4]) + (2**31 - 17).to_bytes(4, "little") + (1 << 18).to_bytes(4, "little") + bytes(99)
    pickled = [{"name": "numcodecs.pickle", "configuration": {"protocol": 4}}]
    grid = {"name": "regular", "configuration": {"chunk_shape": [10**5] * 3}}
    return {
        "runs": described("v/zarr.json", shape=[10**12, 200, 1]),
        "frames": described("v/zarr.json", shape=[2, 10**12, 1]),
        "neurons": described("v/zarr.json", shape=[2, 200, 10**12]),
        "time": described("time/zarr.json", shape=[10**12]),
        "negative": described("v/zarr.json", shape=[2, -200, 1]),
        "large chunks": described("v/zarr.json", chunk_grid=grid, shape=[10**5] * 3),
        "unpacks to 2 GB": unsealed() | dict.fromkeys(chunks, blosc),
        "pickled": described("v/zarr.json", codecs=pickled) | {"v/c/0/0/0": pickle.dumps(Malicious(mark))},
        **{f"dt {dt!r}": unsealed(dt=dt) for dt in (0, -1, "1", None, [1], float("nan"))},
        **{f"provenance {p!r}": unsealed(provenance=p) for p in (None, 3, "{", "[" * 100_000)},
        "no attributes": {"zarr.json": b'{"zarr_format": 3, "node_type": "group"}'},
    }  # fmt: skip


def recording_errors() -> tuple[type[Exception], ...]:
    from jneuro.recordings.store import StoreError

    return (StoreError,)


def weights_errors() -> tuple[type[Exception], ...]:
    from jneuro.interop.tensors import WeightsError
    from jneuro.training.checkpoints import CheckpointError

    return WeightsError, CheckpointError


def forecaster() -> Any:
    from flax import nnx

    from jneuro.models.base import build_model

    return build_model({"name": "lstm", "features": 3, "length": 4, "hidden": 4, "layers": 1}, rngs=nnx.Rngs(0))


def arrays_of(model: Any) -> dict[str, np.ndarray]:
    from jneuro.interop.torch_weights import to_torch

    return to_torch(model)


def make_torch(folder: Path) -> list[Path]:
    import torch

    weights = {name: torch.from_numpy(array) for name, array in arrays_of(forecaster()).items()}
    torch.save(weights, folder / "plain.pt")
    torch.save({"state_dict": weights, "loss": np.float64(3), "epoch": 7}, folder / "checkpoint.pt")
    torch.save(weights, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    return [folder / name for name in ("plain.pt", "checkpoint.pt", "legacy.pt")]


def special_torch(folder: Path, mark: Path) -> dict[str, bytes]:
    import torch

    def saved(content: Any, **how: Any) -> bytes:
        held = io.BytesIO()
        torch.save(content, held, **how)
        return held.getvalue()

    def with_pickle(code: bytes) -> bytes:
        return archive({"a/data.pkl": code, "a/version": b"3\n", "a/byteorder": b"little"})

    true = (folder / "plain.pt").read_bytes()
    with zipfile.ZipFile(folder / "plain.pt") as file:
        entries = {name: file.read(name) for name in file.namelist()}
    return {
        "malicious": saved({"a": Malicious(mark)}),
        "malicious-legacy": saved({"a": Malicious(mark)}, _use_new_zipfile_serialization=False),
        "malicious-bare": pickle.dumps(Malicious(mark)),
        "module": saved(torch.nn.Linear(2, 2)),
        "bytearray": with_pickle(b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R."),
        "void": with_pickle(b"\x80\x02cnumpy\ndtype\nX\x0b\x00\x00\x00V2000000000\x85R."),
        "endless": with_pickle(endless_key()),
        "bomb": bomb({n: c for n, c in entries.items() if n != "plain/data/0"}, "plain/data/0"),
        "huge": saved({"a": torch.zeros(1).expand(10**12)}),
        "sparse": saved({"lstm.weight_ih_l0": torch.eye(4).to_sparse()}),
        "meta": saved({name: torch.empty(10**6, 10**6, device="meta") for name in ("a", "b")}),
        "numbers": saved({3: torch.zeros(2), None: torch.zeros(3)}),
        "cut": true[:-30],
    }


def read_torch(path: Path) -> Any:
    from jneuro.interop.torch_weights import from_torch, load_state_dict

    return arrays_of(from_torch(forecaster(), load_state_dict(path)))


def make_keras(folder: Path) -> list[Path]:
    import h5py
    from flax import nnx

    from jneuro.interop.keras_weights import save_keras
    from jneuro.models.base import build_model

    sizes = {"length": 32, "horizons": 16, "crop": (8, 8), "layers": 2, "filters": 3, "kernel": 4, "features": 2}
    model = build_model({"name": "encoder_decoder", "stride": 2, **sizes}, rngs=nnx.Rngs(0))
    save_keras(model, folder / "a.json", folder / "a.h5")
    with h5py.File(folder / "a.h5", "r") as bare, h5py.File(folder / "whole.h5", "w") as whole:
        whole.attrs["model_config"] = (folder / "a.json").read_text()
        group = whole.create_group("model_weights")
        for name, value in bare.attrs.items():
            group.attrs[name] = value
        for name in bare:
            bare.copy(name, group)
    return [folder / "whole.h5"]


def read_keras(path: Path) -> Any:
    from jneuro.interop.keras_weights import load_keras

    weights = path.parent / "a.h5"
    return arrays_of(load_keras(path, weights) if path.suffix == ".json" else load_keras(path))


def make_keras_json(folder: Path) -> list[Path]:
    make_keras(folder)
    return [folder / "a.json"]


def special_keras_json(folder: Path, mark: Path) -> dict[str, bytes]:
    model = json.loads((folder / "a.json").read_bytes())
    code = {"class_name": "Lambda", "name": "evil", "inbound_nodes": [[["inputs", 0, 0, {}]]]}
    code["config"] = {"name": "evil", "function": ["import os", None, None], "function_type": "lambda"}
    many = [{"class_name": "Activation", "name": f"l{i}", "inbound_nodes": [[[f"l{i + 1}", 0, 0, {}]]],
             "config": {"activation": "relu"}} for i in range(20_000)]  # fmt: skip

    def with_layers(layers: list[Any]) -> bytes:
        return json.dumps(model | {"config": model["config"] | {"layers": layers}}).encode()

    layers = model["config"]["layers"]
    return {"lambda": with_layers([*layers, code]), "many": with_layers([*layers, *many])}


def make_weights(folder: Path) -> list[Path]:
    from jneuro.interop.weights_folder import save_weights

    save_weights(forecaster(), folder / "weights")
    return [folder / "weights"]


def read_weights(path: Path) -> Any:
    from jneuro.interop.weights_folder import load_weights

    return arrays_of(load_weights(path))


class Piece(NamedTuple):
    """Something that a fit keeps."""

    x: Any
    n: int
    name: str


def make_piece(folder: Path) -> list[Path]:
    from jneuro.experiment.fitting import Pieces

    Pieces(folder).keep("piece", Piece, lambda: Piece(np.arange(500.0, dtype=np.float32), 3, "a"))
    return [folder / "piece.npz"]


class _AgainError(ValueError):
    """A piece is made again, as it should be where it is damaged."""


def read_piece(path: Path) -> Any:
    from jneuro.experiment.fitting import Pieces

    def again() -> Piece:
        raise _AgainError("is made again")

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # a piece is known by its name
        shutil.copy(path, Path(folder, "piece.npz"))
        return Pieces(Path(folder)).keep("piece", Piece, again)


def special_piece(folder: Path, mark: Path) -> dict[str, bytes]:
    def array(header: str, data: bytes = b"") -> bytes:
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data

    plain = io.BytesIO()
    np.save(plain, np.asarray('{"n": 3, "name": "a"}'))
    huge = array("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }\n")
    large = array("{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000,), }\n")
    code = array("{'descr': '|O', 'fortran_order': False, 'shape': (), }\n", pickle.dumps(Malicious(mark)))
    zeros = array("{'descr': '<f4', 'fortran_order': False, 'shape': (33554432,), }\n")
    entry = {"plain.npy": plain.getvalue()}
    return {
        "bomb": bomb(entry, "x.npy", zeros),
        **{n: archive({**entry, "x.npy": x}) for n, x in {"huge": huge, "large": large, "malicious": code}.items()},
    }


READERS = {
    "nwb": Reader(make_nwb, read_recording, recording_errors),
    "abf": Reader(make_abf, read_recording, recording_errors),
    "zarr": Reader(make_store, read_recording, recording_errors, special_store),
    "torch": Reader(make_torch, read_torch, weights_errors, special_torch),
    "keras h5": Reader(make_keras, read_keras, weights_errors),
    "keras json": Reader(make_keras_json, read_keras, weights_errors, special_keras_json, json=True),
    "weights folder": Reader(make_weights, read_weights, weights_errors),
    "npz": Reader(make_piece, read_piece, lambda: (_AgainError,), special_piece),
}

# The campaign


class Found(NamedTuple):
    """What came of a reader's files: how often each outcome, the bad ones told, and peaks."""

    outcomes: collections.Counter[str]
    bad: list[str]
    seconds: float
    slowest: tuple[float, str]
    memory: int


class _HangError(Exception):
    pass


def _hang(*_: object) -> None:
    raise _HangError


def campaign(name: str, folder: Path, *, seed: int, count: int, special: bool = True) -> Found:
    """Read so many hostile files of a kind.

    Args:
        name: of the reader.
        folder: an empty one, to write into.
        seed: of the mutations; the same ones for the same true files.
        count: how many, besides the special ones.
        special: whether to read those too.

    Returns:
        What came of it.
    """
    reader, outcomes, bad, slowest = READERS[name], collections.Counter(), [], (0.0, "")
    true, mark = reader.make(folder), folder / "executed"
    expected = {path: _digest(reader.read(path)) for path in true}
    before, begun = _peak(), time.monotonic()
    for case, path, kind in _cases(reader, folder, mark, true, random.Random(f"{seed} {name}"), count, special):
        started = time.monotonic()
        outcome, said = _outcome(reader, path, expected[kind] if kind else "", mark)
        outcome = "accepted" if outcome == "other" and not kind else outcome
        slowest = max(slowest, (time.monotonic() - started, case))
        outcomes[outcome] += 1
        if outcome in OUTCOMES[3:]:
            bad.append(f"{case}: {outcome}: {said}")
            mark.unlink(missing_ok=True)
    return Found(outcomes, bad, time.monotonic() - begun, slowest, _peak() - before)


def _cases(
    reader: Reader, folder: Path, mark: Path, true: list[Path], draw: random.Random, count: int, special: bool
) -> Iterator[tuple[str, Path, Path | None]]:
    """The name of each case, its path, and the true one that it was made of."""
    for name, content in reader.special(folder, mark).items() if special else ():
        path = (folder / f"special-{name.replace('/', '')[:20]}").with_suffix(true[0].suffix)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copytree(true[0], path)
            for file, changed in content.items():
                (path / file).write_bytes(changed)
        yield name[:50], path, None
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for i in range(count):
        kind = true[i % len(true)]
        path = folder / f"case{kind.suffix}"
        if kind.is_dir():
            shutil.copytree(kind, path)
            said = _damage_folder(path, draw)
        else:
            how = mutate_json if reader.json else draw.choice(BYTES)
            path.write_bytes(how(kind.read_bytes(), draw))
            said = how.__name__
        yield f"{i} {said}", path, kind
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _damage_folder(path: Path, draw: random.Random) -> str:
    """Damage one file of a folder, or remove it."""
    file = draw.choice(sorted(p for p in path.rglob("*") if p.is_file()))
    said = str(file.relative_to(path))
    if draw.random() < 0.1:
        file.unlink()
        return f"{said} removed"
    content = file.read_bytes()
    try:
        how = mutate_json if json.loads(content) is not None and draw.random() < 0.7 else draw.choice(BYTES)
    except ValueError:
        how = draw.choice(BYTES)
    file.write_bytes(how(content, draw))
    return f"{said} {how.__name__}"


def _outcome(reader: Reader, path: Path, expected: str, mark: Path) -> tuple[str, str]:
    former = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(ENDLESS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of checkpoints before a damaged one, and of libraries
            found = _digest(reader.read(path))
        outcome, said = ("same" if found == expected else "other"), ""
    except _HangError:
        outcome, said = "hang", " / ".join(traceback.format_exc(limit=-3).split("\n"))
    except reader.errors() as error:
        said = str(error)
        shown = said.replace(f"{path.parent}/", "")  # the user's folders do not make a line too long
        outcome = "clear" if len(shown) <= MOST and said.isprintable() else "long"
    except Exception:
        outcome, said = "traceback", " / ".join(traceback.format_exc(limit=-2).split("\n")[-5:])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)
    return ("executed" if mark.exists() else outcome), said


def _digest(found: Any) -> str:
    """Stands for what was read."""
    rows = found if isinstance(found, dict) else found._asdict()
    held = hashlib.sha256()
    for name, value in sorted(rows.items()):
        array = np.asarray(value)
        held.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return held.hexdigest()


def _peak() -> int:
    """The most memory that this process has taken [bytes]."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    chosen = parser.parse_args()
    print("| reader | tried |", " | ".join(OUTCOMES), "| s | slowest | MB |", flush=True)
    for name in chosen.readers:
        with tempfile.TemporaryDirectory(prefix="h") as folder:
            found = campaign(name, Path(folder), seed=chosen.seed, count=chosen.count)
        row = [name, found.outcomes.total(), *(found.outcomes[o] for o in OUTCOMES)]
        row += [f"{found.seconds:.0f}", f"{found.slowest[0]:.1f} ({found.slowest[1]})", found.memory >> 20]
        print("|", " | ".join(map(str, row)), "|", flush=True)
        for said in found.bad[:40]:
            print("   ", said[:600], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
