"""Time an ensemble in one program against its members one after the other: `python benchmarks/ensemble.py [--cores 2]`.

Eight members with other seeds train an epoch, validation and the host's loop included: as one `train_ensemble` on one
device, as eight calls of `train` on it, and, with several cores, as one ensemble spread over as many CPU devices.
`ratio` is how many times longer than the first. First calls, which compile, stand apart.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from harness import Call, arguments, record, take_turns

from jneuro.datasets import Scaling, Windows
from jneuro.models import CompactForecasterConfig, LSTMForecasterConfig, build_model
from jneuro.training import Adam, TrainConfig, train, train_ensemble

MEMBERS, NEURONS, LENGTH, STEPS = 8, 100, 150, 24
CASES = {
    "compact": CompactForecasterConfig(features=NEURONS, length=LENGTH),
    "lstm_1x64": LSTMForecasterConfig(features=NEURONS, length=LENGTH, layers=1, hidden=64),
}


def windows(batch_size):
    """Noise: an epoch of training windows, and one batch for validation."""
    values = np.random.default_rng(0).normal(size=(2000, NEURONS)).astype(np.float32)
    starts = {"train": jnp.arange(STEPS * batch_size), "validation": jnp.arange(1000, 1000 + batch_size)}
    return Windows(jnp.asarray(values), starts, Scaling(np.zeros(1), np.ones(1)), LENGTH, (1,), 1.0, 2000, False)


def time_case(name, batch_size, given):
    """The rows of one model and batch size."""
    models = [build_model(CASES[name], rngs=nnx.Rngs(seed)) for seed in range(MEMBERS)]
    # All with one recipe: another learning rate would compile another program.
    recipe = TrainConfig(epochs=1, batch_size=batch_size, optimizer=Adam(learning_rate=1e-3))
    keys, data = [jax.random.key(seed) for seed in range(MEMBERS)], windows(batch_size)

    def on(device, train_all):
        def run():
            with jax.default_device(device):
                train_all()

        return lambda: Call(run)

    def together():
        train_ensemble(models, data, [recipe] * MEMBERS, keys=keys)

    def apart():
        for model, key in zip(models, keys, strict=True):
            train(model, data, recipe, key=key)

    first = jax.devices()[0]
    sides = {"jneuro, one program": on(first, together), "jneuro, one after the other": on(first, apart)}
    if given.cores > 1:
        sides[f"jneuro, over {given.cores} devices"] = on(None, together)
    rows = take_turns(sides, seconds=given.seconds, rounds=3)
    common = {"case": name, "what": f"an epoch of {MEMBERS} members, {STEPS} steps", "batch": batch_size}
    common |= {"dtype": "float32", "cores": given.cores}
    record("ensemble", [common | {"by": by} | row for by, row in rows.items()])


if __name__ == "__main__":
    given = arguments(__doc__, CASES)
    for chosen in given.cases:
        for size in (8, 32):
            time_case(chosen, size, given)
