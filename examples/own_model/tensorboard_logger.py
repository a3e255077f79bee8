"""A callback that writes the curves of a training for TensorBoard.

In Python `jn.train(…, callbacks=[TensorBoard("logs")])`, in a YAML file beside this one
`train: {callbacks: [{name: "tensorboard_logger:TensorBoard", folder: logs}]}`; then `tensorboard --logdir logs`.
"""


class TensorBoard:
    """Writes what is known of every epoch."""

    def __init__(self, folder):
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("TensorBoard needs tensorboardX: pip install tensorboardX") from error
        self.writer = SummaryWriter(str(folder))

    def on_start(self, config, history):
        """Keep the recipe beside the curves."""
        self.writer.add_text("recipe", config.model_dump_json(indent=1))

    def on_epoch(self, record):
        """Write the epoch's numbers against the step."""
        for name, value in (record._asdict() | record.metrics).items():
            if isinstance(value, float):
                self.writer.add_scalar(name, value, record.step)

    def on_end(self, history):
        """Finish the file."""
        self.writer.close()
