"""Time the simulators: `python benchmarks/simulators.py`.

Brunel-100: 50 networks × 10 s, voltages every 1 ms and spikes, in one batched program; accuracy stands beside speed as
the firing rate (30.2 ± 1.0 Hz in the published network).
"""

import jax
from harness import measure, record

from jneuro.prng import trial_keys
from jneuro.simulators import Brunel, simulate


def brunel_100(runs: int = 50, duration: float = 10_000.0) -> dict:
    """Simulate the forecasting report's data set."""
    simulator = Brunel.forecasting_report()
    networks = jax.vmap(simulator.connect)(trial_keys(jax.random.key(0), runs))

    def batch(networks, keys):
        def one(network, key):
            return simulate(network, duration=duration, key=key, record_every=10, throw=False).values

        return jax.vmap(one)(networks, keys)

    values, times = measure(batch, networks, trial_keys(jax.random.key(1), runs), repeats=3)
    rate = float(values["spikes"].sum(dtype="uint32")) / (runs * simulator.neurons * duration * 1e-3)
    return {"case": f"brunel_100 x {runs} x {duration / 1e3:g} s", **times, "rate_hz": rate}


if __name__ == "__main__":
    record("simulators", [brunel_100()])
