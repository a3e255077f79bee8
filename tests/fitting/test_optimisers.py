"""The optimisers on functions whose minima are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jneuro.core.progress import Task
from jneuro.fitting import Trainable
from jneuro.fitting.methods.evolution import cma_es, nelder_mead
from jneuro.fitting.methods.gradient import adam, scale_by_polyak
from jneuro.fitting.methods.levenberg_marquardt import levenberg_marquardt
from jneuro.fitting.parameters import random_starts

pytestmark = pytest.mark.usefixtures("x64")

KEY = jax.random.key(0)
MINIMUM = jnp.asarray([1.0, 1.0])


def rosenbrock(q, nudge=0.0):
    """Residuals in a bent valley; a pull makes it a bowl."""
    bend = 10.0 / (1 + nudge)
    return jnp.stack([bend * (q[1] - q[0] ** 2), 1 - q[0]])


def holed(q):
    """Not finite to the right of a wall."""
    return jnp.where(q > 3, jnp.nan, q - 1)


def loss(q):
    return jnp.mean(jnp.square(rosenbrock(q)))


STARTS = jnp.asarray([[-1.2, 1.0], [2.0, -2.0], [0.0, 0.0]])


class Heard(Task):
    """Remembers what it was told."""

    def __init__(self):
        self.told = []

    def update(self, done=None, total=None, text=None, **values):
        assert text
        self.told.append((done, values["cost"]))

    def check(self, count, cost):
        """So often at least, forward, and to the best cost."""
        shares = [share for share, _ in self.told]
        assert len(shares) >= count
        assert shares == sorted(shares)
        assert 0 < shares[-1] <= 1
        assert self.told[-1][1] == pytest.approx(float(cost))


@pytest.mark.parametrize("nudges", [(), (10.0, 1.0)], ids=["plain", "pulled first"])
def test_levenberg_marquardt(nudges):
    heard = Heard()
    found = levenberg_marquardt(rosenbrock, STARTS, steps=60, tolerance=1e-8, nudges=nudges, stage=3, progress=heard)
    heard.check(1 + len(nudges), found.cost.min())
    np.testing.assert_allclose(found.q, np.broadcast_to(MINIMUM, (3, 2)), atol=1e-6)
    assert found.finished.all()
    taken = np.isfinite(found.history).sum()
    assert found.simulations == 3 * taken  # one run and two columns a step
    assert np.all(np.asarray(found.cost) < 1e-12)


def test_starts_that_are_not_finite_are_the_worst_and_disturb_nobody():
    found = levenberg_marquardt(holed, jnp.asarray([[5.0], [2.9], [-4.0]]))
    assert np.isinf(found.cost[0])
    np.testing.assert_allclose(found.q[1:, 0], 1.0, atol=1e-4)
    assert found.best in (1, 2)


def test_too_few_steps_are_told():
    found = levenberg_marquardt(rosenbrock, STARTS[:1], steps=2)
    assert not found.finished[0]


@pytest.mark.parametrize("unknowns", [2, 20], ids=["forward mode", "reverse mode"])
def test_adam(unknowns):
    def bowl(q, key):
        noise = 1e-3 * jax.random.normal(key)
        return jnp.sum(jnp.square(q - 1)) + noise

    heard = Heard()
    found = adam(bowl, jnp.zeros((2, unknowns)), steps=310, learning_rate=0.1, key=KEY, progress=heard)
    heard.check(20, found.history[:, -1].min())
    assert found.history.shape == (2, 310)
    assert np.isfinite(found.history).all()
    np.testing.assert_allclose(found.q, 1.0, atol=0.05)
    assert found.simulations == 2 * 310 * 3  # one run and two columns, or a gradient backwards
    again = adam(bowl, jnp.zeros((2, unknowns)), steps=310, learning_rate=0.1, key=KEY)
    np.testing.assert_array_equal(found.q, again.q)


def test_adam_judges_only_what_is_not_pulled():
    # The pulled loss is smallest at 0, where the free one is large.
    found = adam(
        lambda q, key, pull: jnp.sum(jnp.square(q - jnp.where(pull > 0, 0.0, 2.0))),
        jnp.zeros((1, 2)),
        steps=300,
        learning_rate=0.3,
        nudge=10.0,
        key=KEY,
    )
    assert found.cost[0] == pytest.approx(float(jnp.sum(jnp.square(found.q[0] - 2))), rel=1e-9)
    assert np.all(np.asarray(found.q[0]) > 0.5)


def test_polyak_scaling():
    rule = scale_by_polyak(0.5)
    scaled, _ = rule.update(jnp.asarray([3.0, 4.0]), rule.init(None))
    np.testing.assert_allclose(scaled, np.asarray([3.0, 4.0]) / np.sqrt(5))
    assert np.isfinite(rule.update(jnp.zeros(2), optax.EmptyState())[0]).all()


def test_gradient_free_methods():
    heard, listened = Heard(), Heard()
    evolved = cma_es(loss, STARTS[0], key=KEY, evaluations=2000, sigma=0.5, progress=heard)
    simplex = nelder_mead(loss, STARTS[0], evaluations=2000, progress=listened)
    heard.check(20, evolved.cost[0])
    listened.check(20, simplex.cost[0])
    for found in (evolved, simplex):
        np.testing.assert_allclose(found.q[0], MINIMUM, atol=1e-2)
        assert found.finished[0]
        assert 20 < found.simulations < 2000
        assert np.all(np.diff(found.history[0]) <= 0)
    again = cma_es(loss, STARTS[0], key=KEY, evaluations=2000, sigma=0.5)
    np.testing.assert_array_equal(evolved.q, again.q)
    assert not nelder_mead(loss, STARTS[0], evaluations=10).finished[0]
    assert not cma_es(loss, STARTS[0], key=KEY, evaluations=12).finished[0]


def test_random_starts_lie_within_their_factor_and_do_not_depend_on_their_number():
    trainable = Trainable(("g", "e", "v"), ((0.0, np.inf), (-100.0, 50.0), (-np.inf, 0.0)), (10.0, 70.0, 60.0))
    values = jnp.asarray([10.0, -70.0, -60.0])
    drawn = trainable.constrain(random_starts(trainable, values, 200, spread=2.0, key=KEY))
    g, e, v = np.asarray(drawn).T
    assert (g.min() > 5, g.max() < 20, np.median(np.log(g / 10))) == (True, True, pytest.approx(0, abs=0.15))
    assert (e.min() > -100, e.max() < 50, e.max() > 30) == (True, True, True)
    assert v.max() < 0
