"""Simulators, stimuli and solvers by the names that a configuration uses."""

from typing import Any

import diffrax

from jneuro.simulators import solvers, stimuli
from jneuro.simulators.base import ODESimulator, SteppedSimulator
from jneuro.simulators.brunel import Brunel
from jneuro.simulators.ca1 import CA1Pyramidal
from jneuro.simulators.hodgkin_huxley import HodgkinHuxley
from jneuro.simulators.izhikevich import Izhikevich
from jneuro.simulators.reservoir import IzhikevichReservoir
from jneuro.simulators.ring import RingNetwork

__all__ = ["SIMULATORS", "SOLVERS", "STIMULI"]

SIMULATORS: dict[str, type[SteppedSimulator] | type[ODESimulator]] = {
    "brunel": Brunel,
    "ca1_pyramidal": CA1Pyramidal,
    "hodgkin_huxley": HodgkinHuxley,
    "izhikevich": Izhikevich,
    "izhikevich_reservoir": IzhikevichReservoir,
    "ring_network": RingNetwork,
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

SOLVERS: dict[str, Any] = {
    "euler": solvers.Euler(),
    "heun": solvers.Heun(),
    "rk4": solvers.RK4(),
    "rush_larsen": solvers.RushLarsen(),
    "staggered_crank_nicolson": solvers.StaggeredCrankNicolson(),
    "tsit5": solvers.Adaptive(diffrax.Tsit5()),
    "dopri8": solvers.Adaptive(diffrax.Dopri8()),
    "kvaerno5": solvers.Adaptive(diffrax.Kvaerno5()),
}
"""Solvers of ODE simulators by the name that a configuration uses; the last three choose their own steps."""
