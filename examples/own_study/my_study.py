"""A small paper's own parts: a noisy resonator whose spectrum is known in closed form, and an analysis of errors."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.signal import welch

import jneuro as jn


class Resonators(jn.SteppedSimulator):
    r"""Subthreshold resonators, each on its own: a leaky potential with a slow restoring current, driven by noise.

    \[ \tau \dot v = -v - g w + \sigma \sqrt{2\tau}\, \xi(t), \qquad \tau_w \dot w = v - w, \]

    by forward Euler. The spectrum of v peaks near \(\sqrt{g / (\tau \tau_w)} / 2\pi\) where g is large (Richardson,
    Brunel & Hakim, J. Neurophysiol. 89 (2003) 2538).
    """

    tau: jn.Param = jn.param(10.0, unit="ms", bounds=jn.POSITIVE, doc="time constant of the potential")
    tau_w: jn.Param = jn.param(20.0, unit="ms", bounds=jn.POSITIVE, doc="time constant of the restoring current")
    g: jn.Param = jn.param(8.0, bounds=jn.NON_NEGATIVE, doc="strength of the restoring current")
    sigma: jn.Param = jn.param(1.0, unit="mV", bounds=jn.NON_NEGATIVE, doc="strength of the noise")
    n: int = jn.param(4, bounds=jn.Bounds(1), static=True, doc="number of resonators")
    dt: float = jn.param(0.5, unit="ms", bounds=jn.POSITIVE, static=True, doc="time step")

    class State(NamedTuple):
        """Potential and restoring variable of every resonator."""

        v: jn.Array
        w: jn.Array

    def init(self, key):
        """At rest."""
        return self.State(jnp.zeros(self.n), jnp.zeros(self.n))

    def draw(self, key, step):
        """The noise of a step, by its absolute number."""
        return jax.random.normal(jax.random.fold_in(key, step), (self.n,))

    def step(self, y, drive, noise):
        """Forward Euler."""
        v = (
            y.v
            + self.dt / self.tau * (drive - y.v - self.g * y.w)
            + self.sigma * jnp.sqrt(2 * self.dt / self.tau) * noise
        )
        return self.State(v, y.w + self.dt / self.tau_w * (y.v - y.w)), {}


class ErrorSpectrum(jn.Analysis):
    """At which frequencies a model errs, beside those of what it forecasts."""

    model: str

    def check(self, windows, models):
        """Needs its model."""
        if self.model not in models:
            raise ValueError(f"ErrorSpectrum: model = {self.model!r} is none of {', '.join(models)}")

    def compute(self, study):
        """Welch's spectra at the nearest horizon, over the windows of the test runs in their order."""
        windows = study.windows_of[self.model]
        starts = np.asarray(windows.starts["test"])
        truth = jn.evaluation.targets(windows, starts)[:, 0]
        rate = 1e3 / (windows.dt * float(np.diff(starts).min()))
        spectrum = lambda x: welch(x, rate, nperseg=128, axis=0)[1].mean(1)  # noqa: E731
        error, signal = spectrum(study.predictions[self.model][:, 0] - truth), spectrum(truth)
        frequency = np.fft.rfftfreq(128, 1 / rate)
        numbers = {
            "signal_peak": jn.Quantity(float(frequency[signal.argmax()]), "Hz", 1),
            "error_peak": jn.Quantity(float(frequency[error.argmax()]), "Hz", 1),
        }
        return jn.Findings(numbers, {"frequency": (("frequency",), frequency), "error": (("frequency",), error)})

    def section(self, findings):
        """Both peaks, and the spectrum of the error."""
        text = "What is forecast peaks at {{ signal_peak }}, the error at {{ error_peak }}."
        plot = jn.report.lines(findings, "error", xlabel="frequency [Hz]", ylabel="power of the error", log="y")
        return jn.Section("Error spectrum", text, [plot])


class Resonator(jn.ODESimulator):
    """One resonator without noise, to be fitted."""

    tau: jn.Param = jn.param(10.0, unit="ms", bounds=jn.POSITIVE, doc="time constant of the potential")
    tau_w: jn.Param = jn.param(20.0, unit="ms", bounds=jn.POSITIVE, doc="time constant of the restoring current")
    g: jn.Param = jn.param(8.0, bounds=jn.NON_NEGATIVE, doc="strength of the restoring current")

    class State(NamedTuple):
        """Potential and restoring variable."""

        v: jn.Array = jn.state(0.0, unit="mV", doc="potential")
        w: jn.Array = jn.state(0.0, unit="mV", doc="restoring variable")

    def vector_field(self, y, drive):
        """The equations of `Resonators`."""
        return self.State((drive - y.v - self.g * y.w) / self.tau, (y.v - y.w) / self.tau_w)


@jn.measure(unit="mV", needs=("v",))
def swings(recording):
    """How far the potential overshoots, falls back and settles after a step: what an experimenter reads off."""
    v = recording["v"]
    return {"peak": v.max(), "trough": v[v.shape[0] // 10 :].min(), "plateau": v[-200:].mean()}
