"""The page says what the metrics say, stands alone, and survives what a run may lack."""

import copy
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from jneuro.report import write_report
from jneuro.report.figures import FIGURES
from jneuro.report.prose import verdict

VOID = {"meta", "img", "br", "link", "input", "hr"}
EVERY = {kind.name for kind in FIGURES}


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

    monkeypatch.setattr("jneuro.report.figures.save", sketch)


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
    fields = ("r2", "rmse_mv", "mae_mv", "share_of_ceiling", "skill", "parameters", "train_seconds")
    names = {"ar": "AR", "var": "VAR"}
    for name, scores in {**data.metrics["baselines"], **data.metrics["test"]}.items():
        assert page.rows[names.get(name, name)]["cells"] == [scores.get(f) for f in fields]
    assert page.rows["noise ceiling"]["cells"] == [0.786, None, None, 1.0, None, None, None]
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
    text = " ".join(verdict(data)).replace("\N{NO-BREAK SPACE}", " ")
    numbers = ("0.7684 ± 0.0021", "0.0084 above", "0.7600", "3.5 %", "97.8 %", "0.7860", "+0.0142")
    for part in ("compact", "lookup", *numbers):
        assert part in text


def test_verdict_admits_defeat_and_doubts_miracles(data):
    test = data.metrics["test"]
    worse = replace(data, metrics={**data.metrics, "test": {"cnn_lstm": test["cnn_lstm"]}})
    assert "0.0190 below: it does not beat" in verdict(worse)[0]
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
