"""Simulators, stimuli and solvers by the names that a configuration uses."""

from typing import Any

import diffrax

from jneuro.simulators.brunel import Brunel
from jneuro.simulators.ca1 import CA1Pyramidal
from jneuro.simulators.hodgkin_huxley import HodgkinHuxley
from jneuro.simulators.izhikevich import Izhikevich
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.pospischil import Pospischil
from jneuro.simulators.reservoir import IzhikevichReservoir
from jneuro.simulators.ring import RingNetwork
from jneuro.simulators.solvers import RK4, Adaptive, Euler, Heun, RushLarsen, SequentialEuler, StaggeredCrankNicolson
from jneuro.simulators.stepped import SteppedSimulator
from jneuro.simulators.stimuli import (
    Chirp,
    Constant,
    OrnsteinUhlenbeck,
    PulseTrain,
    Ramp,
    Sampled,
    Sine,
    Step,
    Stimulus,
    WhiteNoise,
)

__all__ = ["SIMULATORS", "SOLVERS", "STIMULI"]

SIMULATORS: dict[str, type[SteppedSimulator] | type[ODESimulator]] = {
    "brunel": Brunel,
    "ca1_pyramidal": CA1Pyramidal,
    "hodgkin_huxley": HodgkinHuxley,
    "izhikevich": Izhikevich,
    "izhikevich_reservoir": IzhikevichReservoir,
    "pospischil": Pospischil,
    "ring_network": RingNetwork,
}
"""Simulators by the name that a configuration uses."""

STIMULI: dict[str, type[Stimulus]] = {
    "constant": Constant,
    "step": Step,
    "pulse_train": PulseTrain,
    "ramp": Ramp,
    "sine": Sine,
    "chirp": Chirp,
    "sampled": Sampled,
    "white_noise": WhiteNoise,
    "ornstein_uhlenbeck": OrnsteinUhlenbeck,
}
"""Stimuli by the name that a configuration uses."""

SOLVERS: dict[str, Any] = {
    "euler": Euler(),
    "heun": Heun(),
    "rk4": RK4(),
    "rush_larsen": RushLarsen(),
    "sequential_euler": SequentialEuler(),
    "staggered_crank_nicolson": StaggeredCrankNicolson(),
    "tsit5": Adaptive(diffrax.Tsit5()),
    "dopri8": Adaptive(diffrax.Dopri8()),
    "kvaerno5": Adaptive(diffrax.Kvaerno5()),
}
"""Solvers of ODE simulators by the name that a configuration uses; the last three choose their own steps."""
