"""Each member of an ensemble comes out as if it had trained alone."""

import jax
import numpy as np
import pytest
from flax import nnx
from parallel_child import Terminate
from training_problems import Layered, Linear, assert_same, config, curves, weights, windows

from jneuro.training import Adam, Checkpoints, Plateau, TrainingInterrupted, train, train_ensemble
from jneuro.training.steps import Placement

KEYS = [jax.random.key(seed) for seed in range(4)]
MODELS = [Layered(rngs=nnx.Rngs(seed)) for seed in range(4)]
RECIPES = [
    config(**{"epochs": 6, "batch_size": 16} | changes)
    for changes in (
        {"optimizer": Adam(learning_rate=1e-2)},
        {"optimizer": Adam(learning_rate=3e-2, weight_decay=0.3), "plateau": Plateau(patience=0, factor=0.1)},
        {"optimizer": Adam(learning_rate=0.5, weight_decay=0), "early_stopping": 1},
        {"optimizer": Adam(learning_rate=1e-3), "epochs": 2, "warmup_epochs": 0},
    )
]


def run(recipes=RECIPES, models=MODELS, keys=KEYS, **more):
    return train_ensemble(models, windows(), recipes, keys=keys, **more)


@pytest.fixture(scope="module")
def together():
    return run()


def test_each_member_is_as_if_alone(together):
    for model, recipe, key, member in zip(MODELS, RECIPES, KEYS, together, strict=True):
        with jax.default_device(jax.devices()[0]):
            alone = train(model, windows(), recipe, key=key)
        assert (alone.best_epoch, alone.stopped) == (member.best_epoch, member.stopped)
        np.testing.assert_allclose(curves(member), curves(alone), rtol=1e-5)
        for name, value in weights(alone.model).items():
            np.testing.assert_allclose(weights(member.model)[name], value, rtol=0, atol=1e-5, err_msg=name)
    assert [len(member.history) for member in together][3] == 2
    assert together[2].stopped == "early_stopping"
    assert len(together[2].history) < 6
    assert len({record.learning_rate for record in together[1].history}) > 2, "the plateau acted"


def test_members_side_by_side(together, monkeypatch):
    placement = Placement("members", tuple(jax.devices()), side_by_side=True)
    monkeypatch.setattr("jneuro.training.trainer.place", lambda *_: placement)
    for member, other in zip(run(), together, strict=True):
        np.testing.assert_allclose(curves(member), curves(other), rtol=1e-5)
        assert (member.best_epoch, member.stopped) == (other.best_epoch, other.stopped)


class Heard(list):
    """Keeps what it hears."""

    def on_steps(self, progress):
        self.append((progress.step, progress.epochs))

    on_epoch = list.append


def test_interrupted_and_resumed(tmp_path, together):
    heard = [Heard() for _ in KEYS]
    with pytest.raises(TrainingInterrupted, match="saved step 12"):
        run(callbacks=[[h, Terminate()] for h in heard], checkpoint=Checkpoints(tmp_path))
    assert [h[:2] for h in heard] == [[(5, recipe.epochs), (7, recipe.epochs)] for recipe in RECIPES]
    assert heard[1][2] == together[1].history[0]._replace(seconds=heard[1][2].seconds)
    for resumed, member in zip(run(checkpoint=Checkpoints(tmp_path)), together, strict=True):
        assert_same(resumed, member)
    with pytest.raises(ValueError, match=r"0\.config\.optimizer\.weight_decay was 0\.0001, is 0\.0"):
        run([RECIPES[2], *RECIPES[1:]], checkpoint=Checkpoints(tmp_path))


def test_a_member_that_diverges_leaves_the_others_alone(together):
    wild = RECIPES[2].model_copy(update={"optimizer": Adam(learning_rate=1e30, weight_decay=0), "warmup_epochs": 0})
    results = run([RECIPES[0], wild, *RECIPES[2:]])
    assert results[1].stopped == "diverged"
    assert results[1].best_epoch == -1
    assert [np.isnan(r.validation_loss) for r in results[1].history] == [True]
    for name, value in weights(results[1].model).items():
        np.testing.assert_array_equal(value, weights(MODELS[1])[name], err_msg="the initial weights")
    for k in (0, 2, 3):
        assert_same(results[k], together[k])


def test_refuses_what_is_no_ensemble():
    with pytest.raises(ValueError, match="the number of members = 3 cannot be divided among 2 devices"):
        run(RECIPES[:3], MODELS[:3], KEYS[:3])
    with pytest.raises(ValueError, match=r"models\[3\] is of another configuration than models\[0\]"):
        run(models=[*MODELS[:3], Linear(rngs=nnx.Rngs(0))])
    with pytest.raises(ValueError, match="got 4, 4, 3 and 4"):
        run(keys=KEYS[:3])
    with pytest.raises(ValueError, match=r"batch_size of configs\[3\] is 8, that of configs\[0\] 16; one program"):
        run([*RECIPES[:3], config()])
    with pytest.raises(ValueError, match="typed key"):
        run(keys=[0, 1, 2, 3])
    cosine = [config(schedule="cosine", plateau=None, epochs=n) for n in (3, 4)]
    with pytest.raises(ValueError, match=r"epochs of configs\[1\] is 4"):
        run(cosine, MODELS[:2], KEYS[:2])
