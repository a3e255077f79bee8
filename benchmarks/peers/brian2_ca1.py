"""The CA1 neuron of Golomb, Yue & Yaari (2006) in Brian2."""

from brian2 import Network, NeuronGroup, StateMonitor, defaultclock
from brian2 import ms as MS

__all__ = ["network"]

EQUATIONS = """
dV/dt = (current - 0.05 * (V + 70) - i_na - i_k - i_ca) / ms : 1
i_na = (35 * (1 / (1 + exp(-(V + 30) / 9.5)))**3 * h + 0.4 / (1 + exp(-(V + 47) / 3.0))) * (V - 55) : 1
g_k = 6 * n**4 + 1.4 * (1 / (1 + exp(-(V + 50) / 20.0)))**3 * b + 0.5 * z + 10 * Ca / (Ca + 6) * c + 5 * q : 1
i_k = g_k * (V + 90) : 1
i_ca = 0.08 * r**2 * (V - 120) : 1
dh/dt = 10 * (1 / (1 + exp((V + 45) / 7.0)) - h) / (1 + 7.5 / (1 + exp((V + 40.5) / 6.0))) / ms : 1
dn/dt = 10 * (1 / (1 + exp(-(V + 35) / 10.0)) - n) / (1 + 5 / (1 + exp((V + 27) / 15.0))) / ms : 1
db/dt = (1 / (1 + exp((V + 80) / 6.0)) - b) / (15 * ms) : 1
dz/dt = (1 / (1 + exp(-(V + 39) / 5.0)) - z) / (75 * ms) : 1
dr/dt = (1 / (1 + exp(-(V + 20) / 10.0)) - r) / ms : 1
dc/dt = (1 / (1 + exp(-(V + 30) / 7.0)) - c) / (2 * ms) : 1
dq/dt = (Ca**4 / (Ca**4 + 16) - q) / (450 * ms) : 1
dCa/dt = -0.13 * i_ca / ms - Ca / (13 * ms) : 1
current : 1
"""
INITIAL = {
    "V": -71.81327, "h": 0.98786, "n": 0.02457, "b": 0.203517, "z": 0.00141, "r": 0.005507, "c": 0.002486, "q": 0.0,
    "Ca": 0.000787,
}  # fmt: skip


def network(currents, method="rk4", dt=0.02):
    """One neuron for each current; voltages every 0.1 ms."""
    defaultclock.dt = dt * MS
    group = NeuronGroup(len(currents), EQUATIONS, method=method)
    for name, value in INITIAL.items():
        setattr(group, name, value)
    group.current = currents
    voltage = StateMonitor(group, "V", record=True, dt=0.1 * MS)
    return Network(group, voltage), voltage
