"""What some simulators and models can tell about themselves, and analyses ask for.

An analysis never asks which class it has before it: whoever offers the method gets the analysis, a network or a model
of one's own like ours.
"""

from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

from jneuro.core.types import Array, Float, Int
from jneuro.models.layers import Gates

__all__ = [
    "SupportsAdjacency",
    "SupportsConvolutions",
    "SupportsGates",
    "SupportsReadingOrder",
    "SupportsReceptiveField",
    "SupportsSynapses",
]


@runtime_checkable
class SupportsAdjacency(Protocol):
    """A connected network that knows its synapses as a matrix; `Brunel` and `RingNetwork` do."""

    @property
    def adjacency(self) -> Float[Array, "pre post"]:
        """Number or weight of the synapses of each pair of neurons; zero where there is none."""
        ...


class SynapseList(Protocol):
    """Synapses one by one.

    Attributes:
        pre: presynaptic neuron of each.
        post: postsynaptic neuron of each.
        delay: of each [ms].
        plastic: which are plastic.
    """

    pre: Int[Array, " synapse"]
    post: Int[Array, " synapse"]
    delay: Float[Array, " synapse"]
    plastic: Any


@runtime_checkable
class SupportsSynapses(Protocol):
    """A connected network that lists its synapses, and their weights in any of its states; `IzhikevichReservoir` does.

    Attributes:
        weight_max: the greatest weight that a synapse can have.
    """

    weight_max: Any

    def synapses(self) -> SynapseList:
        """The synapses."""
        ...

    def weights(self, state: Any) -> Float[Array, " synapse"]:
        """Their weights in a state, in the same order."""
        ...


@runtime_checkable
class SupportsGates(Protocol):
    """A model with gated memory that shows its gates; `LSTMForecaster` and `CNNLSTM` do."""

    def gates(self, inputs: Float[Array, "batch time feature"]) -> Sequence[Gates]:
        """The gates at every time, layer by layer."""
        ...


@runtime_checkable
class SupportsConvolutions(Protocol):
    """A model that adds convolved features to its inputs, and can do without; `CNNLSTM` does."""

    def augment(self, inputs: Float[Array, "batch time feature"], *, train: bool) -> Float[Array, "batch time feature"]:
        """The inputs with what the convolutions add."""
        ...

    def without_convolutions(self) -> Self:
        """A copy whose convolutions add nothing."""
        ...

    def taps(self) -> Sequence[Float[Array, " tap"]]:
        """The sum of the squared weights of each convolution by its offset; nothing if there are no convolutions."""
        ...


@runtime_checkable
class SupportsReadingOrder(Protocol):
    """A model that can read its window newest first; `Seq2SeqLSTM` does."""

    def reading_order(self) -> str:
        """`reverse` or `forward`."""
        ...


@runtime_checkable
class SupportsReceptiveField(Protocol):
    """A model that knows how much of its input reaches its deepest layers; `EncoderDecoder` does."""

    def receptive_field(self, layers: int | None = None) -> int:
        """Samples of the input that reach one value of the deepest layer, or of the last of the first `layers`."""
        ...
