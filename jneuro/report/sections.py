"""The sections of a report that show analyses, by the analysis's name."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from jneuro.report.ablation_section import draw_ablation, say_ablation, tabulate_ablation
from jneuro.report.connectivity_section import draw_connectivity, say_connectivity, tabulate_connectivity
from jneuro.report.count_section import draw_counts, draw_sizes, say_counts, tabulate_counts
from jneuro.report.data import ReportData
from jneuro.report.error_section import draw_errors, say_errors
from jneuro.report.interpretability_section import (
    draw_importance,
    draw_lags,
    draw_memory,
    draw_synapses,
    say_interpretability,
    tabulate_interpretability,
)
from jneuro.report.quantile_section import draw_calibration, say_quantiles, tabulate_quantiles
from jneuro.report.reconstruction_section import draw_reconstruction, say_reconstruction

__all__ = ["SECTIONS", "Section", "SectionFigure", "Table", "section_of"]


class SectionFigure(NamedTuple):
    """A figure of a section.

    Attributes:
        name: of its files.
        title: heading of the figure.
        alt: what is drawn, for readers who cannot see it.
        caption: what to look at.
        draw: from the report and the analysis's arrays to the figure, or to `None` where there is nothing to see.
    """

    name: str
    title: str
    alt: str
    caption: str
    draw: Callable[[ReportData, Mapping[str, np.ndarray]], Figure | None]


class Table(NamedTuple):
    """A table of a section.

    Attributes:
        caption: what it holds.
        columns: headings; the first column names the rows.
        rows: texts.
    """

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Section(NamedTuple):
    """How an analysis is told.

    Attributes:
        title: heading.
        say: from its numbers to sentences.
        figures: its figures.
        tables: from its numbers to tables.
    """

    title: str
    say: Callable[[Mapping[str, Any]], list[str]]
    figures: tuple[SectionFigure, ...] = ()
    tables: Callable[[Mapping[str, Any]], list[Table]] = lambda numbers: []


SECTIONS: dict[str, Section] = {
    "ablation": Section(
        "What each part is worth",
        say_ablation,
        (
            SectionFigure(
                "ablation",
                "Worth of each part",
                "Difference in test R² between the whole model and the same without a part, one line a part, with 95 % "
                "bounds and one tick for each pair of seeds.",
                "Right of zero, the part helps. Bounds that hold zero leave it open.",
                draw_ablation,
            ),
        ),
        lambda numbers: [Table(*table) for table in tabulate_ablation(numbers)],
    ),
    "connectivity_recovery": Section(
        "What attention says of the connections",
        say_connectivity,
        (
            SectionFigure(
                "connectivity_recovery",
                "Who drives whom",
                "Chance that a connected pair of neurons scores higher than another, for every matrix of scores, with "
                "bounds and the range of shuffled neurons, one panel for each kind of pair.",
                "Blue: how alike two neurons attend to their pasts. Grey: what does not need attention. A point within "
                "its band says no more than which population the neurons belong to.",
                draw_connectivity,
            ),
        ),
        lambda numbers: [Table(*table) for table in tabulate_connectivity(numbers)],
    ),
    "count_scores": Section(
        "How well spike counts are predicted",
        say_counts,
        (
            SectionFigure(
                "count_scores",
                "Bits per spike",
                "Bits per spike over the mean rate of every baseline (grey) and model (blue) on the neurons that all "
                "predict, with the range of the ceiling.",
                "Right of zero, a predictor knows more than each neuron's mean rate. The ceiling knows the full state.",
                draw_counts,
            ),
            SectionFigure(
                "count_sizes",
                "Bits per spike by size",
                "Bits per spike on the neurons that all models predict, against how many neurons a model observes and "
                "predicts.",
                "More neurons hold more information. Where the bits fall all the same, this training does not make use "
                "of it.",
                draw_sizes,
            ),
        ),
        lambda numbers: [Table(*table) for table in tabulate_counts(numbers)],
    ),
    "error_analysis": Section(
        "Where the forecast is wrong",
        say_errors,
        (
            SectionFigure(
                "error_analysis",
                "Error by what the neuron was doing",
                "Root-mean-square error of the best model and the best baseline against the time since the last spike "
                "and against the distance to threshold.",
                "Error should be largest just below threshold, where a spike may or may not come, and a model that "
                "listens to other neurons should gain there most.",
                draw_errors,
            ),
        ),
    ),
    "interpretability": Section(
        "What the models learned, and from whom",
        say_interpretability,
        (
            SectionFigure(
                "importance",
                "Whose past the forecast needs",
                "R² that is lost when the past of a group of neurons is taken from another window, for every model, "
                "with 95 % bounds; the groups are the neuron itself, others by population, synaptic partners and "
                "strangers.",
                "The axis is linear near zero and logarithmic beyond. A model that knows who talks to whom needs "
                "partners, not strangers.",
                draw_importance,
            ),
            SectionFigure(
                "attribution_lags",
                "Over which lags",
                "Mean absolute attribution, by integrated gradients, of the neuron’s own past, of its partners and of "
                "strangers against the time before the last sample, one panel for each model.",
                "Solid: own past and partners; dotted: strangers. Spikes take 1.5 ms, so those of the last "
                "milliseconds are still under way.",
                draw_lags,
            ),
            SectionFigure(
                "attribution_synapses",
                "Do attributions find the synapses?",
                "Chance that a pair of neurons with a synapse scores higher than one without, for the attributions of "
                "every model, the weights of a vector autoregression and the cross-correlation of spikes, with bounds "
                "and the range of shuffled neurons.",
                "Blue: models. Grey: what needs no model of voltages. Bars of grey: shuffled neurons.",
                draw_synapses,
            ),
            SectionFigure(
                "lstm_parts",
                "Memory of the LSTM, and reach of the convolutions",
                "Share of LSTM units whose memory is shorter than a time, for every layer, and, where there are "
                "convolutions, the share of their squared weights by the offset of the neuron’s index.",
                "Memory is what a unit’s mean forget gate keeps. Weights off zero mix neurons whose numbers are close, "
                "which no network here cares for.",
                draw_memory,
            ),
        ),
        lambda numbers: [Table(*table) for table in tabulate_interpretability(numbers)],
    ),
    "quantile_scores": Section(
        "Quantiles of rates",
        say_quantiles,
        (
            SectionFigure(
                "calibration",
                "Calibration",
                "Share of what came below each forecast quantile against its level, for every model beside the linear "
                "forecast and the usual quantiles.",
                "Calibrated quantiles lie on the diagonal. A bar spans what came strictly below and what came not "
                "above: rates are counts, and several may be equal to the quantile.",
                draw_calibration,
            ),
        ),
        lambda numbers: [Table(*table) for table in tabulate_quantiles(numbers)],
    ),
    "reconstruction": Section(
        "What the code keeps",
        say_reconstruction,
        (
            SectionFigure(
                "reconstruction",
                "Reconstruction by lag, and the variance of the code",
                "R² of each reconstructed frame of the autoencoder and of principal components, and the cumulative "
                "variance of the code beside the R² of ever more components.",
                "Where the dotted line crosses the orange curve, so many components do as well as the autoencoder.",
                draw_reconstruction,
            ),
        ),
    ),
}
"""Every analysis's section."""


def section_of(name: str) -> Section:
    """Find how an analysis is told; one without a section of its own shows its numbers as a table.

    Args:
        name: under which its numbers are stored.
    """
    if name in SECTIONS:
        return SECTIONS[name]
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name.rpartition(".")[2]).lower()
    return Section(words[:1].upper() + words[1:], lambda numbers: [], tables=_plain_table)


def _plain_table(numbers: Mapping[str, Any]) -> list[Table]:
    """Every number of an analysis, a line each."""
    rows = [(name, _shown(value)) for name, value in _leaves(numbers)]
    return [Table("All that it found.", ("quantity", "value"), rows)] if rows else []


def _leaves(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{above} {key}".strip())
    else:
        yield above, value


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)
