"""All figures of a report: what each is called, what to look at in it, and how it is written."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from jneuro.report.data import ReportData
from jneuro.report.score_figures import horizon_figure, learning_figure, neuron_figure, score_figure
from jneuro.report.style import save
from jneuro.report.voltage_figures import density_figure, forecast_figure, raster_figure, trace_figure

__all__ = ["FIGURES", "DrawnFigure", "FigureKind", "draw_figures"]


class FigureKind(NamedTuple):
    """One kind of figure.

    Attributes:
        name: of its files.
        section: of the page.
        title: heading of the figure.
        alt: what is drawn, for readers who cannot see it.
        caption: what to look at.
        draw: returns the figure, or `None` where the run lacks the data.
        ceiling: what else to look at, if the run has a noise ceiling.
    """

    name: str
    section: str
    title: str
    alt: str
    caption: str
    draw: Callable[[ReportData], Figure | None]
    ceiling: str = ""


class DrawnFigure(NamedTuple):
    """A figure that was written.

    Attributes:
        kind: what it shows.
        png: the bytes of its PNG file.
        svg: the bytes of its SVG file.
    """

    kind: FigureKind
    png: bytes
    svg: bytes


FIGURES = (
    FigureKind(
        "scores",
        "Scores",
        "Every predictor against the ceiling",
        "Horizontal bars of the test R² of every predictor; the numbers are those of the score table.",
        "How far does the best model rise above the best baseline (grey)? Hatched, hollow marks are leaky and do not "
        "compete.",
        score_figure,
        "The noise ceiling (dashed, band ± one standard error) shows how much room is left.",
    ),
    FigureKind(
        "horizons",
        "Scores",
        "How far ahead",
        "Lines of test R² against the forecast horizon in milliseconds, for every predictor and the noise ceiling.",
        "All curves fall with the horizon. Below zero a forecast is worse than the mean; curves that leave the plot "
        "are worse still.",
        horizon_figure,
        "The ceiling falls too: what matters is the gap to it at each horizon.",
    ),
    FigureKind(
        "learning",
        "Scores",
        "Learning curves",
        "Lines of training and validation error by epoch for every model.",
        "Validation (solid) should level off; training (dotted) falling on below it is overfitting. Training error is "
        "measured with dropout and before each update, so it can lie above validation.",
        learning_figure,
        "An honest validation curve cannot stay below the ceiling’s error (dashed); a leaky one may.",
    ),
    FigureKind(
        "neurons",
        "Scores",
        "Error by neuron",
        "Points of test R² and of root-mean-square error for every neuron, grouped into excitatory and inhibitory.",
        "Does the score rest on a few easy neurons? Neurons are sorted within each population; R² should lie "
        "above the baseline (crosses).",
        neuron_figure,
        "They should stay below the ceiling (dashes), which is known per neuron within its bars only.",
    ),
    FigureKind(
        "forecast",
        "Forecast",
        "Predicted and true traces",
        "Traces of the target for a few neurons: true, predicted by the best model and by the best baseline.",
        "Between spikes a good forecast follows the drift; the jumps come from unseen input and stay unpredicted. "
        "A copy of the trace shifted by the horizon is persistence.",
        forecast_figure,
    ),
    FigureKind(
        "density",
        "Forecast",
        "Predicted against true",
        "Two-dimensional histograms of true against predicted targets, for the best model and the best baseline.",
        "On the dashed line the forecast is unbiased: at every predicted value the true ones should scatter evenly "
        "around it. In a voltage, a level streak at the reset is spikes that the forecast did not see coming.",
        density_figure,
    ),
    FigureKind(
        "raster",
        "Recording",
        "Spikes and population rates",
        "Raster of spikes by neuron over time, with the mean rate of excitatory and inhibitory neurons below.",
        "Rows that are empty or solid are silent or runaway neurons; vertical stripes are synchrony. The rates "
        "below should be steady: a drift would let a split by time leak.",
        raster_figure,
    ),
    FigureKind(
        "traces",
        "Recording",
        "Voltages",
        "Voltage traces of a few excitatory and inhibitory neurons with their spikes as ticks.",
        "This is what the models see. Ticks mark spikes; an integrate-and-fire voltage shows of them only the fall to "
        "the reset value, and the pause.",
        trace_figure,
    ),
)
"""The figures in the order of the page."""


def draw_figures(data: ReportData, folder: Path) -> list[DrawnFigure]:
    """Draw every figure for which the run has data, and write each as PNG and SVG.

    Args:
        data: the run.
        folder: where the files go; created if missing.

    Returns:
        The figures in the order of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = ((kind, kind.draw(data)) for kind in FIGURES)
    return [DrawnFigure(kind, *save(figure, folder / kind.name)) for kind, figure in figures if figure is not None]
