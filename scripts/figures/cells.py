"""Figures of single cells."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jneuro import simulate
from jneuro.report.style import EXCITATORY, INHIBITORY, INK, panels
from jneuro.simulators import CA1Pyramidal, HodgkinHuxley, Izhikevich, excitability, stimuli

__all__ = ["ca1_pyramidal", "hodgkin_huxley", "izhikevich"]

REFERENCES = Path(__file__).resolve().parents[2] / "tests" / "reference"
KEY = jax.random.key(0)
# Currents [µA/cm²] and rates [Hz] of Plaster & Kumar (2019).
CA1_BANDS = (
    ("bursting", (0.24, 0.79), (8, 52), "#009E73"),
    ("irregular", (0.79, 2.3), (53, 164), "#CC79A7"),
    ("regular spiking", (2.3, 3.0), (165, 187), INHIBITORY),
)
GREY = "#777777"


def ca1_pyramidal() -> Figure:
    """CA1: rate over current beside a reference and the paper's bands; the voltage in each regime."""
    cell = CA1Pyramidal()
    currents = jnp.linspace(0.0, 3.0, 121)
    found = excitability(cell, currents, duration=500.0, warmup=500.0)
    reference = np.load(REFERENCES / "ca1.npz")
    figure, (curve, *traces) = panels(6.2, 5, height_ratios=(4.2, 1, 1, 1, 1))
    for name, (low, high), (slow, fast), colour in CA1_BANDS:
        curve.fill_between((low, high), slow, fast, color=colour, alpha=0.22, linewidth=0)
        curve.annotate(name, (0.5 * (low + high), fast + 2), fontsize=9, color=INK, ha="center")
    curve.plot(currents, found.rate, color=INK, linewidth=1.2, label="jneuro")
    curve.plot(
        reference["f_i_current"], 2.0 * reference["f_i_late_count"], ".", color=EXCITATORY, markersize=4, label="LSODA"
    )
    curve.set(xlabel="current [µA/cm²]", ylabel="rate [Hz]", xlim=(0, 3.02), ylim=(-4, 203))
    curve.legend(fontsize=8.5, frameon=False, loc="lower right")
    shown = (("rest", 0.2, GREY), *((n, i, c) for (n, *_, c), i in zip(CA1_BANDS, (0.5, 1.5, 2.6), strict=True)))
    recording = simulate(
        cell,
        stimuli.Step([i for _, i, _ in shown], onset=20.0),
        duration=400.0,
        record=("v",),
        record_every=0.2,
        key=KEY,
    )
    for k, (ax, (name, current, colour)) in enumerate(zip(traces, shown, strict=True)):
        ax.plot(recording.time, recording.values["v"][:, k], color=colour, linewidth=0.7)
        ax.set(xlim=(0, 400), ylim=(-90, 40), yticks=(-60, 0), ylabel="[mV]")
        ax.set_title(f"{current} µA/cm²: {name}", fontsize=9, color=INK, loc="left", pad=2)
        ax.tick_params(labelbottom=ax is traces[-1])
    traces[-1].set_xlabel("time [ms]")
    return figure


def hodgkin_huxley() -> Figure:
    """Hodgkin–Huxley: a step and a sine of current, beside a reference."""
    start = HodgkinHuxley.State(*map(jnp.asarray, (-70.0, 0.05, 0.54, 0.34)))
    reference = np.load(REFERENCES / "hodgkin_huxley.npz")
    time = 0.05 * np.arange(reference["v"].shape[1])
    waves = ((stimuli.Step(20.0, onset=17.8), 6), (stimuli.Sine(80.0, frequency=100.0), 9))
    figure, axes = panels(5.6, 4, sharex=True, height_ratios=(3, 1, 3, 1))
    for voltage, current, (wave, run) in zip(axes[::2], axes[1::2], waves, strict=True):
        recording = simulate(HodgkinHuxley(), wave, duration=80.0, initial_state=start, key=KEY)
        voltage.plot(recording.time, recording.values["v"], color=INK, linewidth=1.1, label="jneuro")
        voltage.plot(time[::10], reference["v"][run, ::10], ".", color=EXCITATORY, markersize=3.5, label="LSODA")
        voltage.set(ylabel="[mV]", xlim=(0, 80))
        current.plot(recording.time, recording.values["current"], color=GREY, linewidth=1.0)
        current.set_ylabel("[µA/cm²]")
    axes[0].legend(fontsize=8.5, frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.98))
    axes[-1].set_xlabel("time [ms]")
    figure.align_ylabels(axes)
    return figure


def izhikevich() -> Figure:
    """The seven cells of Izhikevich (2003), each under a current that shows what it is known for."""
    step, settled = stimuli.Step(10.0, onset=240.0), 200.0
    nudged = stimuli.Step(0.2, onset=240.0) + stimuli.Step(2.0, onset=360.0, end=364.0)
    cells = (
        ("RS, regular spiking: 10 from 40 ms", Izhikevich.regular_spiking(), step, EXCITATORY),
        ("IB, intrinsically bursting: 10", Izhikevich.intrinsically_bursting(), step, EXCITATORY),
        ("CH, chattering: 10", Izhikevich.chattering(), step, EXCITATORY),
        ("FS, fast spiking: 10", Izhikevich.fast_spiking(), step, INHIBITORY),
        ("LTS, low-threshold spiking: 10", Izhikevich.low_threshold_spiking(), step, INHIBITORY),
        (
            "TC, thalamo-cortical: −10 until 100 ms",
            Izhikevich.thalamo_cortical(),
            stimuli.Step(-10.0, end=300.0),
            EXCITATORY,
        ),
        ("RZ, resonator: 0.2 from 40 ms, and 2 more from 160 to 164 ms", Izhikevich.resonator(), nudged, INK),
    )
    figure, axes = panels(6.2, 7, sharex=True)
    for ax, (name, cell, current, colour) in zip(axes, cells, strict=True):
        recording = simulate(cell, current, duration=260.0, warmup=settled, record=("v", "spikes"), key=KEY)
        # Potentials are recorded after the reset: a spike is drawn up to where it is cut.
        v = np.where(recording.values["spikes"], cell.v_peak, recording.values["v"])
        ax.plot(recording.time - settled, v[:, 0], color=colour, linewidth=0.8)
        ax.set(xlim=(0, 260), ylim=(-90, 40), yticks=(-60, 0))
        ax.set_title(name, fontsize=9, color=INK, loc="left", pad=2)
    axes[-1].set_xlabel("time [ms]")
    axes[3].set_ylabel("potential [mV]")
    return figure
