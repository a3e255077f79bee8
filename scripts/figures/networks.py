"""Figures of networks."""

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from jneuro import simulate
from jneuro.report.style import EXCITATORY, INHIBITORY, INK, panels
from jneuro.simulators import Brunel, IzhikevichReservoir, RingNetwork

__all__ = ["brunel", "izhikevich_reservoir", "ring_network"]

# Panel of Figure 8 of Brunel (2000): g, external over threshold rate, what it is called, ms shown.
BRUNEL_PANELS = {
    "A": (3.0, 2.0, "synchronous regular", 60),
    "B": (6.0, 4.0, "fast oscillation, irregular", 100),
    "C": (5.0, 2.0, "asynchronous irregular", 200),
    "D": (4.5, 0.9, "slow oscillation, irregular", 200),
}


def brunel() -> Figure:
    """The four regimes of Brunel (2000), full size: 50 neurons' spikes and the rate of all."""
    figure, axes = panels(6.4, 4, 2, height_ratios=(2, 1, 2, 1))
    places = ((0, 2), (1, 3), (4, 6), (5, 7))
    for (raster, rate), (panel, (g, eta, regime, shown)) in zip(places, BRUNEL_PANELS.items(), strict=True):
        network = Brunel.original(g=g, eta=eta).connect(jax.random.key(0))
        recording = simulate(
            network, duration=1000.0, warmup=500.0, record=("spikes",), record_every=0.5, key=jax.random.key(1)
        )
        spikes = np.asarray(recording.values["spikes"])
        frames = round(shown / recording.dt)
        time = recording.time - recording.time[0]
        _raster(axes[raster], time[:frames], spikes[:frames, :50], "|")
        axes[raster].set_title(
            f"{panel} (g = {g:g}, η = {eta:g}): {spikes.mean() / recording.dt * 1e3:.1f} Hz\n{regime}",
            fontsize=9,
            color=INK,
        )
        population = spikes[:frames].mean(1) / recording.dt * 1e3
        axes[rate].fill_between(time[:frames], population, color=EXCITATORY, linewidth=0, step="mid")
        axes[rate].set(xlim=(0, shown), ylim=(0, None))
        axes[raster].set(xlim=(0, shown), yticks=())
        axes[raster].tick_params(labelbottom=False)
        if panel in "AC":
            axes[raster].set_ylabel("50 neurons")
            axes[rate].set_ylabel("rate [Hz]")
    for ax in axes[-2:]:
        ax.set_xlabel("time [ms]")
    return figure


def izhikevich_reservoir() -> Figure:
    """The reservoir through 180 s: how its plastic weights are distributed, and its rates."""
    network = IzhikevichReservoir.polychronization().connect(jax.random.key(0))
    recording = simulate(
        network,
        duration=180_000.0,
        record=("spikes", "weight_histogram", "weight_mean"),
        record_every=1000.0,
        key=jax.random.key(1),
    )
    shares = np.asarray(recording.values["weight_histogram"])
    seconds = recording.time / 1e3
    figure, (weights, rates) = panels(4.6, 2, sharex=True, height_ratios=(1.5, 1))
    edges = np.linspace(0, float(network.weight_max), shares.shape[1] + 1)
    image = weights.pcolormesh(
        np.append(0, seconds), edges, np.maximum(shares.T, 1e-4), norm=LogNorm(1e-3, 1), cmap="viridis", rasterized=True
    )
    weights.plot(seconds, recording.values["weight_mean"], color="white", linewidth=1.4)
    weights.annotate("mean", (120, 6.1), fontsize=9, color="white")
    weights.set_ylabel("weight [pA]")
    weights.grid(visible=False)
    bar = figure.colorbar(image, ax=weights, pad=0.02)
    bar.set_label("share of weights", fontsize=9)
    bar.ax.tick_params(which="both", labelsize=9, color="#888888")
    bar.outline.set_visible(False)
    spikes = np.asarray(recording.values["spikes"])
    excitatory, inhibitory = spikes[:, : network.n_excitatory].mean(1), spikes[:, network.n_excitatory :].mean(1)
    rates.plot(seconds, inhibitory, color=INHIBITORY, linewidth=1, label="inhibitory")
    rates.plot(seconds, excitatory, color=EXCITATORY, linewidth=1, label="excitatory")
    rates.set(xlabel="time [s]", ylabel="rate [Hz]", xlim=(0, 180), ylim=(0, None))
    rates.legend(fontsize=8.5, frameon=False)
    return figure


def ring_network() -> Figure:
    """The ring with delta synapses: spikes, rates, and how irregular each neuron is."""
    network = RingNetwork.xiao_lin()
    recording = simulate(
        network, duration=60_000.0, warmup=500.0, record=("spikes",), record_every=1.0, key=jax.random.key(0)
    )
    spikes = np.asarray(recording.values["spikes"])
    time = recording.time - recording.time[0]
    figure, (raster, rates, irregularity) = panels(6.0, 3, height_ratios=(1.8, 1, 1))
    shown, half = round(500 / recording.dt), network.positions
    for colour, kind in ((EXCITATORY, 0), (INHIBITORY, 1)):
        _raster(raster, time[:shown], spikes[:shown, half * kind :][:, :half], ".", colour, half * kind)
    raster.set(xlim=(0, 500), ylim=(0, 2 * half), ylabel="neuron")
    raster.tick_params(labelbottom=False)
    bins = spikes[:shown].reshape(-1, round(10 / recording.dt), 2, half).sum(1).mean(2) * 100.0
    mean = spikes.reshape(-1, 2, half).mean((0, 2)) / recording.dt * 1e3
    for kind, (name, colour) in enumerate((("excitatory", EXCITATORY), ("inhibitory", INHIBITORY))):
        label = f"{name}, {mean[kind]:.2f} Hz in 60 s"
        rates.step(np.arange(5, 500, 10), bins[:, kind], where="mid", color=colour, linewidth=1, label=label)
        cv = [_cv(time[spikes[:, n] > 0]) for n in range(half * kind, half * (kind + 1))]
        irregularity.hist(
            cv, np.arange(0.5, 0.9, 0.0125), color=colour, alpha=0.6, label=f"{name}, mean {np.mean(cv):.3f}"
        )
    rates.set(xlim=(0, 500), ylim=(0, None), xlabel="time [ms]", ylabel="rate [Hz]")
    rates.legend(fontsize=8.5, frameon=False, ncols=2)
    irregularity.set(xlabel="CV of a neuron's interspike intervals in 60 s", ylabel="neurons", xlim=(0.5, 0.9))
    irregularity.legend(fontsize=8.5, frameon=False)
    return figure


def _raster(ax: Axes, time: np.ndarray, spikes: np.ndarray, marker: str, colour: str = INK, first: int = 0) -> None:
    """A mark for every spike."""
    frame, neuron = np.nonzero(spikes)
    ax.plot(time[frame], neuron + first, marker, color=colour, markersize=3 if marker == "|" else 1.5)
    ax.grid(visible=False)


def _cv(times: np.ndarray) -> float:
    """Coefficient of variation of the intervals between spikes."""
    intervals = np.diff(times)
    return intervals.std() / intervals.mean()
