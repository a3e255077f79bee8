"""Neural simulators, their stimuli, and the verb that runs them."""

from jneuro.simulators import stimuli
from jneuro.simulators.base import Simulator, SteppedSimulator, parameters
from jneuro.simulators.brunel import Brunel
from jneuro.simulators.simulate import SimulationError, simulate
from jneuro.simulators.spiking import Arctan, Boxcar, SuperSpike

__all__ = [
    "SIMULATORS",
    "Arctan",
    "Boxcar",
    "Brunel",
    "SimulationError",
    "Simulator",
    "SteppedSimulator",
    "SuperSpike",
    "parameters",
    "simulate",
    "stimuli",
]

SIMULATORS: dict[str, type[Simulator]] = {"brunel": Brunel}
"""Simulators by the name that a configuration uses."""
