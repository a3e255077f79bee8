"""One compilation, no hidden transfers, and results that do not depend on where calls end."""

import jax
import jax.monitoring
import numpy as np
import pytest
from flax import nnx
from training_problems import Layered, Linear, Noisy, assert_same, config, weights, windows

from jneuro.models.base import Prediction
from jneuro.training import Adam, TrainingDiverged, predict, train

KEY = jax.random.key(1)


class Listener:
    """Keeps what it hears, and how many programs were compiled by then."""

    def __init__(self):
        self.heard, self.records, self.compiled, self.by_call = [], [], [], []
        self._count = 0

    def count(self, event, duration, **_):
        self._count += event == "/jax/core/compile/backend_compile_duration"

    def on_steps(self, progress):
        self.heard.append(progress)
        self.by_call.append(self._count)

    def on_epoch(self, record):
        self.records.append(record)
        self.compiled.append(self._count)


@pytest.mark.parametrize(
    ("model", "mode"), [(Linear, "single"), (Noisy, "jit"), (Layered, "pmap")], ids=["single", "jit", "pmap"]
)
def test_one_compilation_and_no_implicit_transfer(model, mode):
    model, data, listener = model(rngs=nnx.Rngs(0)), windows(), Listener()
    settings, device = config(parallel="auto" if mode == "single" else mode), jax.devices()[0]
    jax.monitoring.register_event_duration_secs_listener(listener.count)
    try:
        with jax.transfer_guard("disallow"), jax.default_device(device if mode == "single" else None):
            result = train(model, data, settings, key=KEY, callbacks=[listener])
    finally:
        jax.monitoring.unregister_event_duration_listener(listener.count)
    assert listener.compiled[0] >= 2
    assert listener.by_call[:3] == listener.by_call[:1] * 3, "the first call compiles for all, the odd last one too"
    assert listener.compiled == listener.compiled[:1] * 4, "nothing is compiled after the first epoch"
    assert [p.step for p in listener.heard[:6]] == [5, 10, 14, 19, 24, 28]
    assert listener.heard[2].loss == result.history[0].train_loss
    assert listener.heard[5].steps_per_second > 0
    assert tuple(listener.records) == result.history


def test_result_does_not_depend_on_call_boundaries():
    results = [train(Noisy(rngs=nnx.Rngs(0)), windows(), config(steps_per_call=n), key=KEY) for n in (3, 100)]
    assert_same(*results)


def test_the_given_model_is_not_changed_and_the_best_weights_are_returned():
    model, data = Noisy(rngs=nnx.Rngs(0)), windows()
    before = weights(model)
    settings = config(epochs=6, optimizer=Adam(learning_rate=0.3), plateau=None)
    result = train(model, data, settings, key=KEY)
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, before[name])
    losses = [record.validation_loss for record in result.history]
    assert result.best_epoch == int(np.argmin(losses)) < 5
    truth = np.array(data.gather(data.starts["validation"]).targets)
    # 114 windows in batches of 8: the padding of the last one must not count.
    mean = np.mean((predict(result.model, data, data.starts["validation"]) - truth) ** 2)
    assert mean == pytest.approx(min(losses), rel=1e-6)


def test_every_window_once_and_a_new_order_each_epoch():
    # A model whose loss tells which windows it saw: it sums the first feature, without learning.
    class Witness(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(jax.numpy.ones(()))
            self.seen = nnx.BatchStat(jax.numpy.zeros((2, 112)))
            self.count = nnx.BatchStat(jax.numpy.zeros((), int))

        def __call__(self, batch, *, train):
            if train:
                row, column = self.count[...] // 14, self.count[...] % 14 * 8
                seen = jax.lax.dynamic_update_slice(self.seen[...], batch.inputs[None, :, 0, 0], (row, column))
                self.seen.set_value(seen)
                self.count.set_value(self.count[...] + 1)
            return Prediction(batch.inputs[:, -1:] * self.scale[...])

    data = windows()
    quiet = config(epochs=2, warmup_from=1e-3, optimizer=Adam(learning_rate=1e-3))
    result = train(Witness(), data, quiet, key=KEY)
    first, second = np.array(result.model.seen[...])
    all_windows = np.array(data.values)[np.array(data.starts["train"]), 0]
    assert result.best_epoch == 1
    for seen in (first, second):
        assert len(np.unique(seen)) == 112
        assert np.isin(seen, all_windows).all()
    assert (first != second).mean() > 0.9


def test_dropout_follows_the_key_whatever_its_stream_is_called():
    class Dropped(nnx.Module):
        def __init__(self, rngs):
            self.drop, self.linear = nnx.Dropout(0.5, rngs=rngs), Linear(rngs=nnx.Rngs(0))

        def __call__(self, batch, *, train):
            return self.linear(batch._replace(inputs=self.drop(batch.inputs, deterministic=not train)), train=train)

    one_batch = config(batch_size=114, epochs=2, warmup_from=1e-9)
    for rngs in (nnx.Rngs(3), nnx.Rngs(dropout=3)):
        losses = [
            [r.train_loss for r in train(Dropped(rngs), windows(), one_batch, key=jax.random.key(seed)).history]
            for seed in (0, 0, 1)
        ]
        assert losses[0] == losses[1]
        assert abs(losses[0][0] - losses[2][0]) > 1e-3
        assert abs(losses[0][0] - losses[0][1]) > 1e-3, "each step has its own mask"


def test_early_stopping_and_cosine():
    settings = config(
        epochs=50, schedule="cosine", plateau=None, early_stopping=3, optimizer=Adam(learning_rate=0.5), warmup_epochs=0
    )
    result = train(Linear(rngs=nnx.Rngs(0)), windows(), settings, key=KEY)
    assert result.stopped == "early_stopping"
    assert len(result.history) == result.best_epoch + 4
    last = result.history[-1]
    assert last.learning_rate == pytest.approx(0.25 * (1 + np.cos(np.pi * (last.step - 1) / 700)), rel=1e-5)


def test_divergence_without_checkpoints():
    with pytest.raises(TrainingDiverged, match=r"the loss is not finite at step 1 \(epoch 0, learning rate 1e\+30"):
        train(
            Linear(rngs=nnx.Rngs(0)),
            windows(),
            config(warmup_epochs=0, optimizer=Adam(learning_rate=1e30, clip_norm=None, weight_decay=0.0)),
            key=KEY,
        )


def test_refuses_before_tracing():
    model, data = Linear(rngs=nnx.Rngs(0)), windows()
    with pytest.raises(ValueError, match=r"at least 115 windows in the split 'train', got 114; .* lower batch_size"):
        train(model, data, config(batch_size=115), key=KEY)
    lacking = data.starts | {"validation": data.starts["validation"][:0]}
    with pytest.raises(ValueError, match="at least 1 windows in the split 'validation', got 0"):
        train(model, type(data)(**(vars(data) | {"starts": lacking})), config(), key=KEY)
    with pytest.raises(ValueError, match="typed key"):
        train(model, data, config(), key=0)
    with pytest.raises(ValueError, match="batch_size ≥ 1"):
        predict(model, data, data.starts["test"][:0])


@pytest.mark.parametrize("batch_size", [1, 50, 114, 1000])
def test_predict_is_the_model_in_order(batch_size):
    model, data = Noisy(rngs=nnx.Rngs(0)), windows()
    starts = data.starts["test"][::-1]
    expected = model(data.gather(starts), train=False).mean
    ours = predict(model, data, starts, batch_size=batch_size)
    assert type(ours) is np.ndarray
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
