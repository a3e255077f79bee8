"""Neural simulators, their stimuli, and the verb that runs them."""

from jneuro.simulators import solvers, stimuli
from jneuro.simulators.base import ODESimulator, Simulator, SteppedSimulator, accepted, parameters
from jneuro.simulators.brunel import Brunel
from jneuro.simulators.ca1 import CA1Pyramidal, CA1State
from jneuro.simulators.hodgkin_huxley import HodgkinHuxley, HodgkinHuxleyState
from jneuro.simulators.simulate import SimulationError, first_state, simulate
from jneuro.simulators.spiking import Arctan, Boxcar, SuperSpike

__all__ = [
    "SIMULATORS",
    "STIMULI",
    "Arctan",
    "Boxcar",
    "Brunel",
    "CA1Pyramidal",
    "CA1State",
    "HodgkinHuxley",
    "HodgkinHuxleyState",
    "ODESimulator",
    "SimulationError",
    "Simulator",
    "SteppedSimulator",
    "SuperSpike",
    "accepted",
    "first_state",
    "parameters",
    "simulate",
    "solvers",
    "stimuli",
]

SIMULATORS: dict[str, type[Simulator]] = {
    "brunel": Brunel,
    "ca1_pyramidal": CA1Pyramidal,
    "hodgkin_huxley": HodgkinHuxley,
}
"""Simulators by the name that a configuration uses."""

STIMULI: dict[str, type[stimuli.Stimulus]] = {
    "constant": stimuli.Constant,
    "step": stimuli.Step,
    "pulse_train": stimuli.PulseTrain,
    "ramp": stimuli.Ramp,
    "sine": stimuli.Sine,
    "chirp": stimuli.Chirp,
    "sampled": stimuli.Sampled,
    "white_noise": stimuli.WhiteNoise,
    "ornstein_uhlenbeck": stimuli.OrnsteinUhlenbeck,
}
"""Stimuli by the name that a configuration uses."""
