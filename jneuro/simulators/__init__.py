"""Neural simulators, their stimuli, and the verb that runs them."""

from jneuro.simulators import solvers, stimuli
from jneuro.simulators.adjoint import TimeParallel
from jneuro.simulators.base import Simulator, parameters
from jneuro.simulators.brunel import Brunel
from jneuro.simulators.ca1 import CA1Pyramidal, CA1State
from jneuro.simulators.hodgkin_huxley import HodgkinHuxley, HodgkinHuxleyState
from jneuro.simulators.izhikevich import Izhikevich
from jneuro.simulators.kinds import SIMULATORS, SOLVERS, STIMULI
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.pospischil import Pospischil, PospischilState
from jneuro.simulators.regimes import REGIMES, Excitability, excitability
from jneuro.simulators.reservoir import IzhikevichReservoir
from jneuro.simulators.ring import RingNetwork
from jneuro.simulators.simulation import SimulationError, first_state, simulate
from jneuro.simulators.spiking import Arctan, Boxcar, SuperSpike
from jneuro.simulators.stepped import SteppedSimulator

__all__ = [
    "REGIMES",
    "SIMULATORS",
    "SOLVERS",
    "STIMULI",
    "Arctan",
    "Boxcar",
    "Brunel",
    "CA1Pyramidal",
    "CA1State",
    "Excitability",
    "HodgkinHuxley",
    "HodgkinHuxleyState",
    "Izhikevich",
    "IzhikevichReservoir",
    "ODESimulator",
    "Pospischil",
    "PospischilState",
    "RingNetwork",
    "SimulationError",
    "Simulator",
    "SteppedSimulator",
    "SuperSpike",
    "TimeParallel",
    "excitability",
    "first_state",
    "parameters",
    "simulate",
    "solvers",
    "stimuli",
]
