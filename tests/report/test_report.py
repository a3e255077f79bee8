"""The page says what the metrics say, stands alone, and survives what a run may lack."""

import copy
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from rich.console import Console

from jneuro.console import print_scores
from jneuro.report import write_report
from jneuro.report.data import compared
from jneuro.report.figures import density_figure, forecast_figure, neuron_figure
from jneuro.report.summary import paragraph, verdict

VOID = {"meta", "img", "br", "link", "input", "hr"}
EVERY = {"scores", "horizons", "learning", "neurons", "forecast", "density", "raster", "traces"}


class Page(HTMLParser):
    """Collects what is loaded, the table's rows and all text; fails on unbalanced tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.rows, self.images, self.text = [], [], {}, [], ""
        self._row = None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        assert tag not in {"script", "link", "b"}
        self.loads += [attrs[k] for k in ("src", "href", "srcset", "data") if k in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs)
        if tag == "tr":
            self._row = {"name": "", "class": attrs.get("class"), "cells": []}
        if tag == "td":
            self._row["cells"].append(None)
        if tag == "data":
            self._row["cells"][-1] = float(attrs["value"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "tr":
            self.rows[self._row["name"]] = self._row

    def handle_data(self, data):
        self.text += data
        if "tr" in self.open and "th" in self.open and "span" not in self.open:
            self._row["name"] += data


def render(data, folder):
    path = write_report(data, folder)
    return Page(path.read_text(encoding="utf-8")), {p.stem for p in (folder / "figures").glob("*.svg")}


def without(data, *path):
    """The run with one entry of its metrics set to None."""
    metrics = copy.deepcopy(dict(data.metrics))
    place = metrics
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = None
    return replace(data, metrics=metrics)


@pytest.fixture
def sketched(monkeypatch):
    """Draw figures, for their warnings and errors, but write only a token of each: most of a report's time is files."""

    def sketch(figure, path):
        figure.canvas.draw()
        path.with_suffix(".svg").write_bytes(b"<svg/>")
        return b"", b"<svg/>"

    monkeypatch.setattr("jneuro.report.page.save", sketch)


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, *render(data, folder)


def test_stands_alone(written):
    folder, page, _ = written
    assert page.loads
    assert all(source.startswith("data:image/") for source in page.loads)
    source = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|https?://", source)
    assert len(source) < 3e6


def test_every_figure_is_written_and_described(written):
    folder, page, drawn = written
    assert drawn == EVERY
    for name in EVERY:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        ElementTree.parse(folder / "figures" / f"{name}.svg")
    assert len(page.images) == len(EVERY)
    assert all(len(image["alt"]) > 30 for image in page.images)


def test_table_repeats_the_metrics(data, written):
    _, page, _ = written
    fields = ("r2", "over seeds", "rmse", "mae", "share_of_ceiling", "skill", "parameters", "train_seconds")
    names = {"ar": "AR", "var": "VAR"}
    for name, scores in {**data.metrics["baselines"], **data.metrics["test"]}.items():
        shown = scores | {"over seeds": scores.get("seeds", {}).get("mean")}
        assert page.rows[names.get(name, name)]["cells"] == [shown.get(f) for f in fields]
    assert page.rows["compact"]["cells"][1] == 0.7681
    assert "0.7681 ± 0.0009 (3)" in page.text
    assert page.rows["noise ceiling"]["cells"] == [0.786, None, None, None, 1.0, None, None, None]
    rows = [r for r in page.rows if r not in {"Predictor"} and page.rows[r]["cells"]]
    assert rows[-1] == "noise ceiling"
    assert page.rows["compact"]["class"] == "model best"
    assert "0.7684 ± 0.0021" in page.text


def test_leaky_models_are_marked(written):
    folder, page, _ = written
    assert page.rows["cnn_lstm (leaky split)"]["class"] == "leaky"
    assert page.text.count("leaky") > 3
    assert 'class="badge leak">leaky<' in (folder / "report.html").read_text(encoding="utf-8")


def test_verdict_has_the_numbers(data):
    text = " ".join(verdict(data))
    numbers = ("0.7684 ± 0.0021", "0.0084 above", "it is better", "n = 4", "0.7600", "3.5 %", "97.8 %", "0.7860")
    numbers += ("+0.0142", "owed to the leak")
    for part in ("compact", "lookup", *numbers):
        assert part in text


def test_verdict_admits_defeat_and_doubts_miracles(data):
    test = data.metrics["test"]
    worse = replace(data, metrics={**data.metrics, "test": {"cnn_lstm": test["cnn_lstm"]}})
    assert "0.0190 below the best baseline, lookup, at 0.7600 ± 0.0021: it is worse" in verdict(worse)[0]
    better = replace(data, metrics={**data.metrics, "test": {"oracle": {**test["compact"], "r2": 0.9}}})
    assert "look for a leak" in verdict(better)[1]


@pytest.mark.usefixtures("sketched")
def test_names_and_config_are_escaped(data, tmp_path):
    test = {"<b>x</b>": data.metrics["test"]["compact"], r"$\frac$ & _y": data.metrics["test"]["cnn_lstm"]}
    strange = replace(
        data,
        metrics={**data.metrics, "test": test},
        history=dict.fromkeys(test, data.history["compact"]),
        forecast={**data.forecast, "prediction": {"<b>x</b>": data.forecast["target"]}},
    )
    page, drawn = render(strange, tmp_path)  # Page refuses <b> and <script>
    assert {"<b>x</b>", r"$\frac$ & _y"} <= set(page.rows)
    assert "<script>alert(1)</script>" in page.text
    assert drawn == EVERY


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize(
    ("change", "lost", "said"),
    [
        (lambda d: without(d, "ceiling"), set(), "ceiling is unknown"),
        (
            lambda d: replace(without(d, "test"), history={}, forecast={}),
            {"learning", "forecast", "density"},
            "No model has been trained yet",
        ),
        (
            lambda d: replace(d, example={k: v for k, v in d.example.items() if "spike" not in k}),
            {"raster"},
            "The best model",
        ),
        (lambda d: without(d, "test", "compact", "r2"), set(), "The best model, cnn_lstm"),
        (lambda d: without(d, "baselines"), set(), "The best model, compact"),
        (lambda d: replace(d, metrics={}, history={}, example={}, forecast={}), EVERY, "No model has been trained"),
    ],
    ids=["ceiling", "models", "spikes", "diverged", "baselines", "everything"],
)
def test_what_is_missing_is_left_out(data, tmp_path, change, lost, said):
    page, drawn = render(change(data), tmp_path)
    assert drawn == EVERY - lost
    assert said in page.text


@pytest.mark.usefixtures("sketched")
def test_only_leaky_models_compete_with_nobody(data, tmp_path):
    test = {"cnn_lstm (leaky split)": data.metrics["test"]["cnn_lstm (leaky split)"]}
    windows = {**data.metrics["windows"], "split": "report"}
    page, drawn = render(replace(data, metrics={**data.metrics, "test": test, "windows": windows}), tmp_path)
    assert "No model was tested on unseen runs." in page.text
    assert "it leaks" in page.text
    assert drawn == EVERY


def with_targets(data, targets, own=()):
    """The run with other targets, and the best model with these further scores."""
    test = {**data.metrics["test"], "compact": {**data.metrics["test"]["compact"], **dict(own)}}
    windows = {**data.metrics["windows"], "targets": targets}
    return replace(data, metrics={**data.metrics, "test": test, "windows": windows})


def printed(data):
    console = Console(width=160, record=True, quiet=False, file=io.StringIO())
    print_scores(console, data.metrics)
    return console.export_text()


@pytest.mark.usefixtures("sketched")
@pytest.mark.parametrize(
    ("targets", "named", "unit"),
    [
        ({"v": "mV"}, "v", "mV"),
        ({"spikes": "1"}, "spikes", "1"),
        ({"population_rate": "Hz"}, "population_rate", "Hz"),
        ({"v": "mV", "spikes": "1"}, "v and spikes", "mixed units"),
    ],
)
def test_targets_have_their_name_and_unit(data, tmp_path, targets, named, unit):
    run = with_targets(data, targets)
    assert f"forecasts {named} 1, 2, 5 and 10 ms ahead" in paragraph(run)
    page, _ = render(run, tmp_path)
    assert page.text.count(f"[{unit}]") == 2
    assert (unit == "mV") == ("[mV]" in page.text)
    assert f"RMSE {unit}" in printed(run)
    assert (unit == "mV") == ("RMSE mV" in printed(run))
    forecast, density = forecast_figure(run), density_figure(run)
    assert forecast.get_supylabel() == f"{', '.join(targets)} [{unit}]"
    assert [ax.get_xlabel() for ax in density.axes[:2]] == [f"predicted [{unit}]"] * 2
    assert neuron_figure(run).axes[1].get_ylabel() == f"RMSE [{unit}]"


@pytest.mark.usefixtures("sketched")
def test_windows_of_its_own_have_no_skill_over_the_tables_baselines(data, tmp_path):
    own = {"baselines": {"mean": {"r2": 0.0}}, "targets": {"rate": "Hz"}, "skill": 0.4321}
    run = with_targets(data, {"v": "mV"}, own)
    page, _ = render(run, tmp_path)
    cells = dict(
        zip(("r2", "over seeds", "rmse", "mae", "share", "skill"), page.rows["compact"]["cells"], strict=False)
    )
    assert cells["r2"] == 0.7684
    assert cells["skill"] is None
    assert page.rows["cnn_lstm"]["class"] == "model best"
    assert page.rows["cnn_lstm"]["cells"][5] is not None
    for text in (page.text, printed(run)):
        assert "43.2" not in text
        assert "2.810 Hz" in text
    assert "own windows" in page.text
    assert [s.name for s in compared(run, run.metrics["test"] | run.metrics["baselines"])] == ["cnn_lstm", "lookup"]


def test_a_best_model_with_windows_of_its_own_beats_no_baseline(data):
    own = {**data.metrics["test"]["compact"], "baselines": {}, "share_of_ceiling": None, "horizons_ms": [50.0]}
    said = " ".join(verdict(replace(data, metrics={**data.metrics, "test": {"compact": own}})))
    assert "50 ms ahead" in said
    assert "none compares" in said
    for word in ("lookup", "above", "skill", "noise ceiling"):
        assert word not in said


@pytest.mark.usefixtures("sketched")
def test_one_horizon(data, tmp_path):
    metrics = copy.deepcopy(dict(data.metrics))
    metrics["windows"]["horizons_ms"] = [1.0]
    for scores in (*metrics["test"].values(), *metrics["baselines"].values(), metrics["ceiling"]):
        scores["per_horizon"] = {key: values[:1] for key, values in scores["per_horizon"].items()}
    forecast = data.forecast
    forecast = {
        "time_ms": forecast["time_ms"],
        "target": forecast["target"][:, :1],
        "prediction": {name: values[:, :1] for name, values in forecast["prediction"].items()},
        "horizons_ms": [1.0],
    }
    _, drawn = render(replace(data, metrics=metrics, forecast=forecast), tmp_path)
    assert drawn == EVERY - {"horizons"}


def test_same_run_same_bytes(data, written, tmp_path):
    folder, *_ = written
    write_report(data, tmp_path)
    for path in sorted(tmp_path.rglob("*.*")):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes(), path.name
