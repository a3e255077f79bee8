"""Other parts of one's own: a simulator with its own time step, a stimulus, a solver, a rule, a reader, a measure."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jneuro as jn
from jneuro.simulators.solvers import Scheme


class Rulkov(jn.SteppedSimulator):
    """Noisy spiking maps, each on its own (Rulkov, Physical Review E 65 (2002) 041922, Equation 2)."""

    alpha: jn.Param = jn.param(4.5, doc="shape of the map")
    sigma: jn.Param = jn.param(-1.0, doc="rest of the slow variable")
    noise: jn.Param = jn.param(0.01, bounds=jn.NON_NEGATIVE, doc="standard deviation of the noise")
    n: int = jn.param(5, bounds=jn.Bounds(1), static=True, doc="number of maps")
    dt: float = jn.param(1.0, unit="ms", bounds=jn.POSITIVE, static=True, doc="time of one iteration")

    class State(NamedTuple):
        """Fast and slow variable of every map."""

        x: jn.Array
        y: jn.Array

    def init(self, key):
        """Fast variables drawn, slow ones alike."""
        return self.State(jax.random.uniform(key, (self.n,), minval=-1.5, maxval=-0.5), jnp.full(self.n, -2.8))

    def draw(self, key, step):
        """The noise of a step, by its absolute number."""
        return jax.random.normal(jax.random.fold_in(key, step), (self.n,))

    def step(self, y, drive, noise):
        """Iterate once; a map spikes where x rises through 0."""
        x = self.alpha / (1 + y.x**2) + y.y + drive + self.noise * noise
        return self.State(x, y.y - 0.001 * (y.x - self.sigma)), {"spikes": (x > 0) & (y.x <= 0)}


class Alpha(jn.Stimulus):
    """One alpha function, a synaptic current that rises to `amplitude` at `onset + tau`."""

    amplitude: jn.Array = eqx.field(converter=jnp.asarray)
    tau: jn.Array = eqx.field(converter=jnp.asarray, default=5.0)
    onset: jn.Array = eqx.field(converter=jnp.asarray, default=0.0)

    def __call__(self, t):
        """Value at time `t` [ms]."""
        s = jnp.maximum(t - self.onset, 0.0) / self.tau
        return self.amplitude * s * jnp.exp(1 - s)

    def jumps(self):
        """Where the slope jumps."""
        return self.onset[None]


class Midpoint(Scheme):
    """The midpoint method, of second order."""

    def order(self, terms):
        """Order of convergence."""
        return 2

    def advance(self, term, t, dt, carry):
        """One step."""
        middle = jax.tree.map(lambda x, f: x + 0.5 * dt * f, carry, term.vf(t, carry, None))
        return jax.tree.map(lambda x, f: x + dt * f, carry, term.vf(t + 0.5 * dt, middle, None))


class Neighbours(jn.Rule):
    """Every neuron reaches the `k` nearest on either side of a ring."""

    k: int = 4

    def row(self, key, pre, n_post):
        """Whom neuron `pre` reaches."""
        apart = jnp.abs(jnp.arange(n_post) - pre)
        apart = jnp.minimum(apart, n_post - apart)
        return (apart > 0) & (apart <= self.k)


def read_csv(path, sweeps=None, *, time="t_ms", v="v", current="i"):
    """Read a table with a header: a column of times [ms], one of potentials, one of injected currents."""
    table = np.genfromtxt(path, delimiter=",", names=True)
    dt = float(np.round(np.diff(table[time]).mean(), 6))
    return jn.recordings.from_arrays(
        v=table[v], current=table[current], dt=dt, units={"current": "µA/cm²"}, about={"file": path.name}
    )


read_csv.suffixes = (".csv",)  # what an installed plugin reads without being named


@jn.measure(unit="1", needs=("v",))
def swing(recording):
    """Highest minus lowest value of v."""
    return recording["v"].max() - recording["v"].min()
