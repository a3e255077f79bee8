"""The reverse-order sequence-to-sequence LSTM of Plaster & Kumar (2019)."""

from typing import Literal, Self

from flax import nnx
from pydantic import Field, model_validator

from jneuro.datasets.windows import Batch
from jneuro.models.base import Prediction, check_inputs
from jneuro.models.layers import InitialiserName
from jneuro.models.stack import StackConfig, build_stack, output_layer, outputs_at_all_times

__all__ = ["Seq2SeqLSTM", "Seq2SeqLSTMConfig"]


class Seq2SeqLSTMConfig(StackConfig):
    """An LSTM that reads the window, newest first, and one that emits the next.

    The defaults are the paper's for the CA1 neuron, with its horizon of 50 steps.

    Attributes:
        hidden: size of every layer's hidden state; the paper's is 4·9².
        order: in which the window is read; the paper's is the reverse one, newest first.
        residual: whether the network predicts the change from the last observed values, which must then be the first
            `outputs` features; not in the paper.
    """

    name: Literal["seq2seq_lstm"] = "seq2seq_lstm"
    features: int = Field(default=10, ge=1)
    length: int = Field(default=50, ge=1)
    horizons: int = Field(default=50, ge=1)
    outputs: int | None = Field(default=9, ge=1)
    hidden: int = Field(default=324, ge=1)
    layers: int = Field(default=3, ge=1, le=16)
    recurrent_init: InitialiserName = "xavier_uniform"
    order: Literal["reverse", "forward"] = "reverse"
    residual: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.length != self.horizons:
            raise ValueError(
                f"seq2seq_lstm emits one prediction for each step it reads, so length and horizons must be equal,"
                f" got {self.length} and {self.horizons}"
            )
        if self.residual and self.targets > self.features:
            raise ValueError(
                f"residual = True needs every output among the features, got outputs = {self.targets} and"
                f" features = {self.features}"
            )
        return self

    def build(self, *, rngs: nnx.Rngs) -> "Seq2SeqLSTM":
        """Build the model with weights of its own."""
        return Seq2SeqLSTM(self, rngs=rngs)


class Seq2SeqLSTM(nnx.Module):
    r"""Read a window of \(N\) steps, newest first, and emit the next \(N\), one after every step read.

    With \(x_t\) the newest input, \(F\) the stacked LSTM and \(k = 1, …, N\),

    \[ (h_k, s_k) = F(x_{t+1-k}, s_{k-1}), \qquad \hat y_{t+k} = W h_k + b. \]

    So the prediction \(k\) steps ahead has read the newest \(k\) inputs, \(x_t\) to \(x_{t+1-k}\), and nothing else: it
    lies \(k\) steps after the newest input that it knows, and looks as far back as it looks ahead. The first starts
    from the present itself, where no memory is needed.

    Read forward, it would have read the *oldest* \(k\), \(x_{t+1-N}\) to \(x_{t+k-N}\), and lie \(N\) steps after the
    newest of them, whatever \(k\); only the last prediction has then seen the present. The paper claims that the
    reverse order helps early predictions; `order` puts that to a test.

    Known inputs, such as the current, are read with the window; a current that changes during the horizon is not seen
    before the next window.

    Args:
        config: the sizes.
        rngs: draws the weights (`params`) and the dropout masks (`dropout`).

    References:
        Plaster B. & Kumar G., Algorithms 12 (2019) 203.
    """

    def __init__(self, config: Seq2SeqLSTMConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.lstm = build_stack(config, config.features, config.hidden, rngs=rngs)
        self.output_layer = output_layer(config, config.hidden, config.targets, rngs=rngs)

    def __call__(self, batch: Batch, *, train: bool) -> Prediction:
        """Predict as many steps as are read.

        Args:
            batch: the windows; its targets are not read.
            train: whether to drop values.

        Returns:
            The expected values, nearest first.

        Raises:
            ValueError: if the inputs are not `[batch, length, features]`.
        """
        check_inputs(self.config, batch.inputs)
        inputs = batch.inputs[:, ::-1] if self.config.order == "reverse" else batch.inputs
        states, _ = self.lstm.batch_last(inputs.transpose(1, 2, 0), train=train)
        mean = outputs_at_all_times(self.output_layer, states)
        if self.config.residual:
            mean = batch.inputs[:, -1:, : self.config.targets] + mean
        return Prediction(mean)

    def reading_order(self) -> str:
        """In which order the window is read: `reverse`, newest first, or `forward`."""
        return self.config.order
