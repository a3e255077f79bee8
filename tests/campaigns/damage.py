"""Damage to one file of a finished folder, and what the commands make of it."""

import random
import shutil
from pathlib import Path

from tests.campaigns.common import Row, called, campaign, differences, made, sketched, write_works

__all__ = ["damage", "finished"]

KINDS = ("flip", "truncate", "empty", "zero", "delete", "exchange")


def finished(home: Path, names: tuple[str, ...], fast: bool) -> dict[str, Path]:
    """Finished works, by their commands, made once in a folder; each in a folder of its own, so that none lends."""
    write_works(home, fast=fast)
    folders = {name: home / "whole" / name / "it" for name in names}
    for name, folder in folders.items():
        if not (folder / "report.html").exists():
            said = called(made(home, name, folder, resume=True))
            if said.kind != "fine":
                raise RuntimeError(said.text)
    return folders


def _group(name: str) -> str:
    """What is drawn first, so that small files are hit as often as large stores."""
    parts = name.split("/")
    return "/".join(parts[:3] if parts[0] == "models" else parts[:1])


def _chosen(folder: Path, rng: random.Random) -> Path:
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            groups.setdefault(_group(path.relative_to(folder).as_posix()), []).append(path)
    return rng.choice(groups[rng.choice(sorted(groups))])


def hurt(path: Path, kind: str, rng: random.Random) -> bool:
    """Damage a file; tells whether that changed anything."""
    before = path.read_bytes()
    data = bytearray(before)
    match kind:
        case "flip" if data:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "truncate":
            data = data[: rng.randrange(max(len(data), 1))]
        case "empty":
            data = bytearray()
        case "zero" if data:
            at = rng.randrange(len(data))
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        case "exchange":
            # With a chunk of the same array, or with another file of its kind.
            top = next((p for p in path.parents if (p / "zarr.json").exists()), path.parent)
            others = [p for p in sorted(top.rglob(f"*{path.suffix}")) if p.is_file() and p != path]
            if not others:
                return False
            data = bytearray((other := rng.choice(others)).read_bytes())
            other.write_bytes(before)
        case "delete":
            path.unlink()
            return True
    path.write_bytes(data)
    return bytes(data) != before


@campaign
@sketched()
def damage(row: Row, rng: random.Random, count: int, home: Path, only: tuple[str, ...], fast: bool) -> None:
    """Damage a file of a finished folder; then check it, evaluate or report it, and resume it.

    Nothing may end well with other results than the undisturbed folder's, and no message be a traceback.
    """
    whole = finished(home, only, fast)
    while row.tried < count:
        name = rng.choices(only, [3 if name == "run" else 1 for name in only])[0]
        out = home / "hurt" / name
        shutil.rmtree(out.parent, ignore_errors=True)
        shutil.copytree(whole[name], out)
        path, kind = _chosen(out, rng), rng.choice(KINDS)
        where = path.relative_to(out).as_posix()
        command = rng.choice([None, "evaluate", "report"]) if name == "run" else None
        if not hurt(path, kind, rng):
            continue
        row.tried += 1
        about = {"work": name, "file": where, "kind": kind, "item": row.tried}
        _judge(row, "check", called(["check", out]), [], about)
        if command:
            said = called([command, out])
            ours = ("metrics.json", "predictions.zarr", "analyses.zarr") if command == "evaluate" else ("report.html",)
            other = [n for n in differences(out, whole[name]) if n.startswith(ours)] if said.kind == "fine" else []
            _judge(row, command, said, other, about)
        said = called(made(home, name, out, resume=True))
        _judge(row, "resume", said, differences(out, whole[name]) if said.kind == "fine" else [], about)


def _judge(row: Row, command: str, said, other: list[str], about: dict) -> None:
    """Count how a command ended."""
    outcome = "absent" if "No such command" in said.text else said.kind
    if outcome == "fine":
        outcome = "silently other" if other else "same"
    if command == "check" and outcome == "refused" and about["file"].split("/")[0] not in said.text:
        outcome = "names another file"
    bad = outcome not in ("refused", "same", "absent") or (command == "check" and outcome == "same")
    row.add(f"{command}: {outcome}", {**about, "text": said.text[-600:], "other": other[:5]} if bad else None)
    if command == "resume" and outcome == "refused":
        row.faults.append({"outcome": "resume: refused", **about, "text": said.text[-300:]})
