"""The figures of the documentation: one function each, which simulates and draws."""

from figures.cells import ca1_pyramidal, hodgkin_huxley, izhikevich
from figures.networks import brunel, izhikevich_reservoir, ring_network

__all__ = ["FIGURES"]

FIGURES = {
    "brunel": brunel,
    "izhikevich": izhikevich,
    "izhikevich_reservoir": izhikevich_reservoir,
    "ring_network": ring_network,
    "ca1_pyramidal": ca1_pyramidal,
    "hodgkin_huxley": hodgkin_huxley,
}
