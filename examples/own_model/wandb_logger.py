"""A callback that sends the curves of a training to Weights & Biases.

In Python `jn.train(…, callbacks=[WandB("my-project")])`, in a YAML file beside this one
`train: {callbacks: [{name: "wandb_logger:WandB", project: my-project}]}`. `mode: offline` sends nothing.
"""


class WandB:
    """Logs what is known of every epoch."""

    def __init__(self, project, **options):
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("WandB needs wandb: pip install wandb, then wandb login") from error
        self.start = lambda config: wandb.init(project=project, config=config, **options)

    def on_start(self, config, history):
        """Begin a run, with the recipe as its configuration."""
        self.run = self.start(config.model_dump(mode="json"))

    def on_epoch(self, record):
        """Send the epoch's numbers."""
        numbers = {k: v for k, v in (record._asdict() | record.metrics).items() if isinstance(v, int | float)}
        self.run.log(numbers, step=record.step)

    def on_end(self, history):
        """End the run."""
        self.run.finish()
