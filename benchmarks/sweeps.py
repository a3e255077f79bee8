"""Sweeps: points a second over virtual devices and processes, and memory while many points stream.

`devices`: the Brunel-100 network at 256 points, by one process on 1, 2 and 4 devices. `processes`: the same by 1, 2 and
4 processes of one device each; `wall_s` is from the first one's start to the last one's end, compilation included.
`stream`: 1,000 and 100,000 points of an Izhikevich cell, and the most memory that was held. Every measurement is made
by processes of its own, bound to no core.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import peak_mib, record

from jneuro.core.progress import Progress, Task
from jneuro.sweeps.config import SweepConfig
from jneuro.sweeps.runner import run_sweep

FLAG = "--xla_force_host_platform_device_count"
CASES = ("devices", "processes", "stream")


def network(points: int) -> SweepConfig:
    """The phase diagram of the Brunel-100 network, `points` along each axis."""
    axes = {
        "g": {"low": 0, "high": 20, "points": points},
        "eta": {"of": "simulator.rate_external", "times": 500, "low": 0.5, "high": 4, "points": points},
    }
    simulation = {"simulator": {"name": "brunel"}, "duration_ms": 1000, "warmup_ms": 200}
    return SweepConfig.model_validate(
        {"name": "network", "simulation": simulation, "sweep": {"axes": axes}, "measures": ["rate", "isi_cv"]}
    )


def cell(points: int) -> SweepConfig:
    """A cheap simulation at many points."""
    axes = {"amplitude": {"low": 0, "high": 20}}
    stimulus = {"name": "constant", "amplitude": 0}
    simulation = {"simulator": {"name": "izhikevich"}, "stimulus": stimulus, "duration_ms": 20}
    design = {"design": "random", "points": points, "axes": axes}
    return SweepConfig.model_validate(
        {"name": "cell", "simulation": simulation, "sweep": design, "measures": ["rate", "v_mean"]}
    )


DESIGNS = {"network": network, "cell": cell}


def child(design: str, points: int, path: str, process: int, processes: int) -> None:
    """Sweep, and print the speed after compilation, and the most memory held."""
    seen: list[tuple[float, float]] = []

    class Seen(Progress, Task):
        def begin(self, text, total=None, unit="", done=0.0):
            return self

        def update(self, done=None, total=None, text=None, **values):
            if text == "" or done is not None:  # the program is compiled
                seen.append((time.perf_counter(), done or 0.0))

    problem = DESIGNS[design](points).problem()
    run_sweep(problem, path, process=process, processes=processes, progress=Seen())
    (began, before), (ended, after) = seen[0], seen[-1]
    print(json.dumps({"points_per_second": (after - before) / (ended - began), "peak_mib": peak_mib()}))


def measure(design: str, points: int, devices: int = 1, processes: int = 1) -> dict[str, float]:
    """Run a sweep in processes of its own: the sum of their speeds, the time of all, the greatest memory of one."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", design, str(points), str(Path(folder) / "sweep.zarr")]
        environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FLAG}={devices}"}
        began = time.perf_counter()
        running = [
            subprocess.Popen([*command, str(k), str(processes)], stdout=subprocess.PIPE, text=True, env=environment)
            for k in range(processes)
        ]
        said = [json.loads(p.communicate()[0].splitlines()[-1]) for p in running]
        seconds = time.perf_counter() - began
    speed = round(sum(s["points_per_second"] for s in said), 2)
    return {"points_per_second": speed, "wall_s": round(seconds, 2), "peak_mib": max(s["peak_mib"] for s in said)}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer points")
    given = parser.parse_args()
    side, many = (4, 2_000) if given.quick else (16, 100_000)
    for case in given.cases or CASES:
        if case == "stream":
            rows = [{"points": n} | measure("cell", n) for n in (many // 100, many)]
        else:
            rows = [{case: n, "points": side**2} | measure("network", side, **{case: n}) for n in (1, 2, 4)]
        named = [f"{row['points']} points" + (f", {row[case]} {case}" if case in row else "") for row in rows]
        common = {"case": case, "cores": os.cpu_count()}
        record("sweeps", [common | {"what": name} | row for name, row in zip(named, rows, strict=True)])


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))
    else:
        main()
