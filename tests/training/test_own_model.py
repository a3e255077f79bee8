"""A model, a loss, an optimiser, a schedule, a metric and a callback of one's own, as objects and by name."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from training_problems import FEATURES, Layered, Linear, assert_same, comparable, config, windows

from jneuro.core.code import code_folder
from jneuro.evaluation.scores import evaluate
from jneuro.models.base import Prediction, Sizes, build_model, check_shapes
from jneuro.training import Checkpoints, TrainConfig, train

KEY = jax.random.key(1)
EXAMPLE = Path(__file__).parents[2] / "examples" / "own_model"
SHORT = {"batch_size": 38, "epochs": 2, "warmup_epochs": 0}  # 3 steps in an epoch


@pytest.fixture
def own(monkeypatch):
    """The example of the documentation."""
    monkeypatch.syspath_prepend(EXAMPLE)
    yield __import__("own_model")
    sys.modules.pop("own_model")


class Stop:
    """Raises at a step, once; and counts what it hears."""

    def __init__(self, step=None):
        self.step, self.heard = step, []

    def on_start(self, config, history):
        self.heard.append(("start", len(history)))

    def on_steps(self, progress):
        if progress.step == self.step:
            raise OSError("the disk is full")

    def on_end(self, history):
        self.heard.append(("end", len(history)))


def test_own_everything_trains_resumes_and_is_scored(own, tmp_path):
    data = windows()
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.inject_hyperparams(optax.adam)(3e-3))

    def run(where=None, **more):
        return train(
            own.Linear,
            data,
            loss=own.huber,
            optimizer=optimizer,
            metrics=[own.bias, "mae"],
            key=KEY,
            checkpoint=where and Checkpoints(where),
            **{**SHORT, "steps_per_call": 2, "epochs": 3} | more,
        )

    whole, stop = run(), Stop(5)
    with pytest.raises(OSError, match="disk is full") as caught:
        run(tmp_path, callbacks=[stop])
    assert caught.value.__notes__ == ["raised by on_steps of the callback Stop"]
    assert stop.heard == [("start", 0), ("end", 1)]
    assert {int(p.name) for p in tmp_path.iterdir()} == {3, 5}, "what was trained until then is saved"
    again = run(tmp_path, callbacks=[stop := Stop()])
    assert_same(again, whole)
    assert stop.heard == [("start", 1), ("end", 3)]
    assert whole.notes == ("the optimizer optax is used whole: no warm-up, plateau or clipping besides",)
    assert {r.learning_rate for r in whole.history} == {0.003}
    last, validation = whole.history[-1], data.gather(data.starts["validation"])
    model = whole.model
    error = np.asarray(model(validation)) - np.asarray(validation.targets)
    assert last.metrics == pytest.approx({"bias": error.mean(), "mae": abs(error).mean()}, rel=1e-4, abs=1e-6)
    # More epochs go on where the fewer ended, since nothing depends on how many there will be.
    more = run(tmp_path, epochs=4)
    assert comparable(more.history) == comparable(run(epochs=4).history)
    with pytest.raises(ValueError, match=r"holds 4 epochs of this training, more than epochs = 2"):
        run(tmp_path, epochs=2)
    found = evaluate({"own": model}, data, baselines=["persistence", own.Seasonal(5)], metrics=[own.bias])
    assert set(found.metrics["baselines"]) == {"persistence", "Seasonal"}
    batch = data.gather(data.starts["test"])
    np.testing.assert_array_equal(found.predictions["Seasonal"], batch.inputs[:, 1:2])
    assert found.metrics["test"]["own"]["metrics"]["bias"] == pytest.approx(
        float((np.asarray(model(batch)) - np.asarray(batch.targets)).mean()), rel=1e-4, abs=1e-6
    )


def test_a_name_in_a_file_is_the_same_as_the_object(own, tmp_path):
    files = {name: (EXAMPLE / name).read_text() for name in ("own_model.py",)}
    for name, text in files.items():
        (tmp_path / f"my_{name}").write_text(text)
    named = {
        "loss": {"name": "my_own_model:huber", "delta": 0.5},
        "optimizer": {"name": "optax:adam", "learning_rate": 3e-3},
        "metrics": ["my_own_model:bias"],
    }

    def run(data=windows()):  # noqa: B008
        recipe = TrainConfig.model_validate({**named, **SHORT})
        return train({"name": "my_own_model:Linear"}, data, recipe, key=KEY, checkpoint=Checkpoints(tmp_path / "ck"))

    with code_folder(tmp_path):
        one = run()
        objects = {"loss": lambda p, b: own.huber(p, b, delta=0.5), "optimizer": optax.adam(3e-3)}
        other = train(own.Linear, windows(), key=KEY, **objects, **SHORT)
        assert [r.validation_loss for r in one.history] == [r.validation_loss for r in other.history]
        assert one.notes == ("the optimizer optax:adam is used whole: no warm-up, plateau or clipping besides",)
        recipe = TrainConfig.model_validate({**named, **SHORT})
        assert TrainConfig.model_validate(recipe.model_dump(mode="json")) == recipe
        assert (recipe.warmup_epochs, recipe.plateau) == (0, None)
        file = tmp_path / "my_own_model.py"
        file.write_text(file.read_text() + "\n# changed\n")
        with pytest.raises(
            ValueError, match="the source of the loss my_own_model:huber has changed; the source of the"
        ):
            run()


def test_a_model_without_train_has_flaxs_modes():
    class Modes(nnx.Module):
        def __init__(self, *, rngs):
            self.drop, self.norm = nnx.Dropout(0.4, rngs=rngs), nnx.BatchNorm(FEATURES, rngs=rngs)
            self.inner = Linear(rngs=rngs)

        def __call__(self, batch):
            return self.inner(batch._replace(inputs=self.drop(self.norm(batch.inputs))), train=False).mean

    class Told(Modes):
        def __call__(self, batch, *, train=False):
            x = self.norm(batch.inputs, use_running_average=not train)
            return self.inner(batch._replace(inputs=self.drop(x, deterministic=not train)), train=train)

    one, other = (train(m(rngs=nnx.Rngs(0)), windows(), config(**SHORT), key=KEY) for m in (Modes, Told))
    assert_same(one, other)
    assert one.history[0].train_loss != one.history[0].validation_loss


class Says(nnx.Module):
    """Predicts whatever it is told to."""

    def __init__(self, say, *, rngs=None):
        self.say, self.w = say, nnx.Param(jnp.ones(()))

    def __call__(self, batch):
        return self.say(batch.inputs[:, -1:] * self.w[...])


def _wrong(say):
    return lambda: {"model": Says(say)}


REFUSED = {
    "one target for all": (
        _wrong(lambda x: x[..., :1]),
        r"Says predicts an array of shape \[38, 1, 1\]; the windows need \[batch=38, horizon=1, target=3\]",
    ),
    "no horizon": (_wrong(lambda x: x[:, 0]), r"shape \[38, 3\]; the windows need"),
    "whole numbers": (_wrong(lambda x: x.astype(int)), "Says predicts int32; .* floating-point"),
    "a tuple": (_wrong(lambda x: (x, x)), r"Says returned tuple; a model returns an array \[batch, horizon, target\]"),
    "quantiles": (
        _wrong(lambda x: Prediction(x, x[..., None], levels=jnp.ones(2))),
        r"quantiles of shape \[38, 1, 3, 1\] for levels of shape \[2\]",
    ),
    "a scalar loss": (
        lambda: {"loss": lambda p, b: jnp.mean(p.mean - b.targets)},
        r"<lambda> returned shape \[\], but must return one value for each of the 38 windows; take the mean over all",
    ),
    "a loss of one argument": (
        lambda: {"loss": lambda p: p.mean},
        "too many positional arguments; it is called with pre",
    ),
    "a loss that is a number": (lambda: {"loss": 3}, "loss: 3 is no loss: it cannot be called"),
    "an unknown setting": (lambda: {"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'"),
    "a wrong setting": (lambda: {"epochs": 0}, "epochs = 0: input should be greater"),
    "no optimizer": (lambda: {"optimizer": object()}, "is no optimizer: it must be an optax.GradientTransformation"),
    "warm-up beside optax": (
        lambda: {"optimizer": optax.sgd(1e-3), "warmup_epochs": 2},
        "sets its own learning rate, so warmup_epochs has no effect; leave it out",
    ),
    "a schedule beside optax": (
        lambda: {"optimizer": optax.sgd(1e-3), "schedule": optax.constant_schedule(1.0)},
        "so schedule has no effect; leave it out and give optax a schedule",
    ),
    "a plateau beside a schedule": (
        lambda: {"schedule": lambda step: 1.0},
        "both change the learning rate; set plateau",
    ),
    "two metrics of one name": (lambda: {"metrics": ["mae", "mae"]}, "metrics: 'mae' stands there twice"),
    "a callback without hooks": (
        lambda: {"callbacks": [object()]},
        "is no callback: it has none of on_start, on_steps",
    ),
    "a callback's class": (lambda: {"callbacks": [Stop]}, "the callback Stop is a class; give an instance"),
    "no parameters": (lambda: {"model": nnx.Dropout(0.5)}, r"Dropout has no parameters \(flax.nnx.Param\)"),
    "a model that is none": (lambda: {"model": dict}, "its class is not a flax.nnx.Module"),
    "an argument too few": (lambda: {"model": Says}, "say is missing"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", REFUSED)
def test_refuses_in_one_line_before_computing(case):
    given, said = REFUSED[case]
    settings = {"model": Linear(rngs=nnx.Rngs(0)), "warmup_epochs": 0, "batch_size": 38} | given()
    with pytest.raises(ValueError, match=said) as caught:
        train(settings.pop("model"), windows(), key=KEY, **settings)
    assert "\n" not in str(caught.value)


def test_values_that_are_not_finite_are_found_before_training_and_scoring():
    data, model = windows(), Linear(rngs=nnx.Rngs(0))
    for frame, column, split in ((20, 1, "train"), (130, 0, "validation"), (359, 2, "test")):
        values = data.values.at[frame, column].set(jnp.nan)
        bad = type(data)(**(vars(data) | {"values": values}))
        where = f"the first in run {frame // 120}, frame {frame % 120}, column {column}; mend"
        with pytest.raises(ValueError, match=f"split '{split}' hold 1 values .* {where}"):
            _ = evaluate({"linear": model}, bad) if split == "test" else train(model, bad, config(), key=KEY)


def test_other_initial_weights_are_another_training(tmp_path):
    def run(seed):
        start = Checkpoints(tmp_path)
        return train(Linear(rngs=nnx.Rngs(seed)), windows(), config(**SHORT), key=KEY, checkpoint=start)

    run(0)
    with pytest.raises(
        ValueError, match=r"the initial weights params.map.kernel.* are others; choose another directory"
    ):
        run(1)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation(),
        lambda: optax.chain(optax.add_noise(0.1, 0.5, key=jax.random.key(2)), optax.sgd(1e-2)),
        lambda: optax.chain(optax.sgd(1e-2), optax.contrib.reduce_on_plateau(patience=1)),
    ],
    ids=["accumulated gradients", "a state with a random key", "a state with an infinity"],
)
def test_any_optax_state_is_saved_and_restored(tmp_path, optimizer):
    def run(where=None, **more):
        recipe = {"optimizer": optimizer(), "steps_per_call": 2, **SHORT, **more}
        return train(Linear(rngs=nnx.Rngs(0)), windows(), key=KEY, checkpoint=where and Checkpoints(where), **recipe)

    with pytest.raises(OSError, match="full"):
        run(tmp_path, callbacks=[Stop(5)])
    again = run(tmp_path)
    assert_same(again, run())
    assert again.history[0].learning_rate is None
    with pytest.raises(ValueError, match="the source of the optimizer optax has changed"):
        run(tmp_path, optimizer=optax.sgd(3e-2))


def test_a_schedule_of_ones_own_is_a_factor_of_the_rate():
    halves = optax.piecewise_constant_schedule(1.0, {3: 0.5})
    given = {"plateau": None, "optimizer": {"name": "adam", "learning_rate": 1e-2}, **SHORT}
    rates = {}
    for name, schedule in {
        "optax": halves,
        "own": lambda step: jnp.where(step < 3, 1.0, 0.5),
        "asks": lambda step, steps_per_epoch: 0.5 ** (step // steps_per_epoch),
    }.items():
        result = train(Linear(rngs=nnx.Rngs(0)), windows(), schedule=schedule, key=KEY, **given)
        rates[name] = [r.learning_rate for r in result.history]
    assert rates == dict.fromkeys(rates, pytest.approx([1e-2, 5e-3]))


def test_built_from_what_the_constructor_asks_for(own):
    sizes = Sizes(features=4, length=5, horizons=2, outputs=3)
    model = build_model(Asks, sizes, rngs=nnx.Rngs(0))
    assert model.said == {"horizons": 2, "outputs": 3}
    assert isinstance(build_model(lambda rngs: Layered(rngs=rngs), sizes, rngs=nnx.Rngs(0)), Layered)
    check_shapes(own.Linear, sizes)
    for given, said in {
        Linear: r"Linear's prediction|dot_general|contracting|shapes",
        dict: "its class is not a flax.nnx.Module",
        "my_models:Linear": "there is no module 'my_models'",
        "lst": "unknown model 'lst'; did you mean 'lstm', or module:name of your own",
    }.items():
        with pytest.raises((ValueError, TypeError), match=said):
            check_shapes(given, sizes)
    with pytest.raises(ValueError, match="horizons = 3, but the data give 2; leave it out"):
        build_model({"name": "compact", "lags": 2, "horizons": 3}, sizes, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"<lambda> made dict, which is not a flax\.nnx\.Module"):
        build_model(lambda: {}, sizes, rngs=nnx.Rngs(0))


class Asks(nnx.Module):
    """Asks for some of the sizes only."""

    def __init__(self, outputs, horizons, *, rngs):
        self.said = nnx.data({"horizons": horizons, "outputs": outputs})


class Package:
    """Stands for a logging package, and for what its functions return: it notes every call."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **more: self.calls.append((name, args, more)) or self


LOGGERS = {
    "tensorboard_logger:TensorBoard": ("tensorboardX", {"folder": "logs"}, "add_scalar", "close"),
    "wandb_logger:WandB": ("wandb", {"project": "p"}, "log", "finish"),
}


@pytest.mark.parametrize("name", LOGGERS)
def test_the_loggers_of_the_example_log_or_say_what_they_need(name, monkeypatch):
    package, arguments, writes, ends = LOGGERS[name]
    with code_folder(EXAMPLE):
        recipe = TrainConfig.model_validate({"callbacks": [{"name": name, **arguments}], "metrics": ["mae"], **SHORT})
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ModuleNotFoundError, match=f"needs {package}: pip install {package}"):
            train(Linear(rngs=nnx.Rngs(0)), windows(), recipe, key=KEY)
        monkeypatch.setitem(sys.modules, package, fake := Package())
        history = train(Linear(rngs=nnx.Rngs(0)), windows(), recipe, key=KEY).history
    written = [call for call in fake.calls if call[0] == writes]
    text = str(written[-1])
    for number in (history[-1].validation_loss, history[-1].metrics["mae"], history[-1].step):
        assert str(number) in str(written), text
    assert fake.calls[-1][0] == ends
