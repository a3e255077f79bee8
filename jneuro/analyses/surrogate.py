"""What a surrogate of a neuron is good for: spikes, waveforms it was not trained on, speed, and gradients."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from jneuro.core.config import Config
from jneuro.core.random import stream
from jneuro.core.types import Float
from jneuro.datasets import WindowConfig, Windows
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.comparison import compare, holm
from jneuro.evaluation.forecasts import forecast, targets
from jneuro.evaluation.metrics import f1_by_run, interval, match_traces, spike_scores
from jneuro.evaluation.protocols import SupportsReceptiveField
from jneuro.evaluation.surrogate_cost import gradients, respond, timings, waveform
from jneuro.recordings import open_recording
from jneuro.report.components import Plot, Section, Table, estimate, number, quantity
from jneuro.report.data import BASELINES
from jneuro.report.style import EXCITATORY, GREY, INHIBITORY, INK, panels
from jneuro.simulators.stimuli import PulseTrain, Ramp, Sine, Step
from jneuro.spikes.detection import crossings, peaks
from jneuro.spikes.distances import Matching

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SurrogateAnalysis", "ValidityMap", "families", "nearest"]

SINE_HZ = tuple(np.unique(np.round(np.geomspace(1, 2000, 34), 1)).tolist())
"""Frequencies at which the lowest and the highest that spike are sought."""

_TEXT = """
{% set mine = steps[best] %}
Held-out steps: {{ best }} predicts {{ mine.recall | percent(1) }} (± {{ (100 * (mine.recall_se or 0)) | fixed(1) }},
standard error over runs) of {{ mine.true | fixed(0) }} spikes within {{ "%g" | format(tolerance_ms) }} ms;
{{ mine.precision | percent(1) }} of its own are true, {{ mine.timing_ms | fixed(3) }} ms off on average.
It {{ verb[best_against[rival].verdict] }} the best baseline, {{ label[rival] | default(rival) }}, which predicts
{{ steps[rival].recall | percent(1) }}: F1 {{ mine.f1 | fixed(3) }} against {{ steps[rival].f1 | fixed(3) }}, a
difference of {{ best_against[rival] | bounds(3) }} (95 %, {{ best_against[rival].n }} runs).

A step of {{ asked.step }} after {{ asked.onset }} ms: the simulator spikes {{ step.true | fixed(0) }} times in the
window, {{ best }} {{ step.predicted | fixed(0) }} times, of which {{ step.recall | percent(1) }} are matched; the
voltage is off by {{ step.rmse | fixed(1) }} mV (root mean square). The first peaks are
{{ step.peaks_true[:3] | map("fixed", 1) | join(", ") or "none" }} mV and
{{ step.peaks_predicted[:3] | map("fixed", 1) | join(", ") or "none" }} mV.

Sines of {{ asked.sine }} from 1 Hz to 2 kHz: lowest and highest frequency that spike are
{{ sine.true.lowest_hz | fixed(1) }} and {{ sine.true.highest_hz | fixed(1) }} Hz of the simulator,
{{ sine.predicted.lowest_hz | fixed(1) }} and {{ sine.predicted.highest_hz | fixed(1) }} Hz of the surrogate (a dash:
none does).

White noise of SD {{ asked.noise }}, mean ± SD over draws: the simulator has
{{ noise.true.count | estimate(noise.true.count_sd, 2) }} spikes of
{{ noise.true.height | estimate(noise.true.height_sd, 1) }} mV, the surrogate
{{ noise.predicted.count | estimate(noise.predicted.count_sd, 2) }} spikes of
{{ noise.predicted.height | estimate(noise.predicted.height_sd, 1) }} mV; {{ noise.recall | percent(1) }} of the spikes
are matched.

The receptive field of the encoder, and of its first two layers alone:
{% for name, field in receptive_field.items() if field %}
{{ name }} {{ "{:,}".format(field.samples) }} samples ({{ field.ms | fixed(1) }} ms) and {{ field.two_layers }}
({{ field.two_layers_ms | fixed(1) }} ms)
{{- "." if loop.last else ";" }}
{% else %}
no model says.
{% endfor %}

Validity: trained on currents of at most {{ trained_to | fixed(0) }} {{ unit }}, the surrogate errs, root mean square
averaged over each family's points, by
{% for name, found in families.items() %}
{{ name | replace("_", " ") }} {{ found.rmse | fixed(1) }} mV ({{ found.against_nearest.verdict }})
{{- "." if loop.last else ";" }}
{% endfor %}
In brackets: against the nearest training run, over the points of a family. A surrogate is a model of its training set:
where the map marks a point as outside, its voltage is not evidence.

Cost: the simulator's time divided by the surrogate's, for the same windows, by batch:
{% for t in timings if t.simulator_s and t.surrogate_s %}
{{ (t.simulator_s / t.surrogate_s) | fixed(2) }} at {{ "{:,}".format(t.batch) }}
{{- ";" if loop.last else "," }}
{% else %}
none was timed on both sides;
{% endfor %}
{{ "it pays at " ~ (faster | listed) if faster else "it saves nothing that could be told from chance" }} (95 %).
Compilation is not counted.

{% for name, found in gradients.items() %}
Gradient of {{ "the mean voltage" if name == "mean_v" else "the time of the first spike" }} with respect to a step's
amplitude, at {{ found.amplitudes }} amplitudes: through the
surrogate it correlates with that through the simulator by {{ found.correlation | fixed(2) }}, its sign agrees in
{{ found.same_sign | percent(1) }}, and its median relative error is {{ found.relative_error | percent(1) }}.

{% endfor %}
"""


Values = Annotated[tuple[float, ...], Field(min_length=1)]


class ValidityMap(Config):
    """Where each family of waveforms is probed. Currents are in the simulator's unit: the defaults suit µA/cm².

    Attributes:
        step: amplitudes of steps.
        sine_hz: frequencies of sines [Hz].
        sine: their amplitudes.
        noise: standard deviations of white noise.
        ramp: ends of ramps.
        pulse_hz: rates of pulse trains [Hz].
        pulse: their amplitude.
        pulse_ms: length of a pulse [ms].
    """

    step: Values = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0)
    sine_hz: Values = (2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)
    sine: Values = (20.0, 40.0, 80.0)
    noise: Values = (5.0, 10.0, 20.0, 40.0, 80.0)
    ramp: Values = (10.0, 20.0, 40.0, 60.0, 80.0)
    pulse_hz: Values = (10.0, 20.0, 40.0, 60.0, 100.0)
    pulse: float = 40.0
    pulse_ms: float = Field(default=2.0, gt=0)


_CURRENTS = {"step_amplitude", "sine_amplitude", "noise_sd", "map", "gradient_amplitudes"}
"""Settings in the unit of the current."""


class SurrogateAnalysis(Analysis):
    """How far a surrogate stands in for its neuron: under waveforms, as a map of validity, in cost and in gradients.

    All models are scored on the spikes of held-out runs; the rest is asked of the one with the lowest squared error on
    the validation runs.

    Attributes:
        tolerance_ms: how near a predicted spike must be [ms].
        threshold: of spikes [mV].
        step_amplitude: of the step that is asked for spike times and heights, in the simulator's unit.
        step_onset_ms: its beginning [ms]; also of the steps for times and gradients.
        sine_amplitude: of the sines that are asked which frequencies spike.
        noise_sd: standard deviation of the white noise that is asked for number and height of spikes.
        noise_draws: draws of white noise.
        map: where the validity map is probed.
        draws: waveforms at each of its points.
        gradient_amplitudes: of the steps whose derivatives are compared.
        batches: sizes of the batches that are timed.
        repeats: timed calls of each, of which the median counts.
        longest_s: the first batch that takes longer is the last to be timed [s].
    """

    name: Literal["surrogate"] = "surrogate"
    tolerance_ms: float = Field(default=0.5, gt=0)
    threshold: float = 0.0
    step_amplitude: float = 20.0
    step_onset_ms: float = Field(default=17.8, ge=0)
    sine_amplitude: float = 80.0
    noise_sd: float = Field(default=20.0, gt=0)
    noise_draws: int = Field(default=100, ge=2)
    map: ValidityMap = ValidityMap()
    draws: int = Field(default=8, ge=1)
    gradient_amplitudes: Values = tuple(float(a) for a in range(8, 60, 4))
    batches: tuple[int, ...] = Field(default=(1, 4, 16, 64, 256, 1024, 4096), min_length=1)
    repeats: int = Field(default=5, ge=1)
    longest_s: float = Field(default=2.0, gt=0)

    def check(self, windows: WindowConfig, models: Sequence[str]) -> None:
        """Needs the voltage predicted from the current that drives it, a run at a time."""
        if windows.targets != ("v",) or windows.observed != ("current",):
            raise ValueError("surrogate needs windows.inputs = [current] and windows.targets = [v]")
        if windows.discard_ms:
            raise ValueError("surrogate needs windows that begin with the run; set windows.discard_ms to 0")

    def compute(self, study: Study) -> Findings:
        """Ask everything."""
        if study.source is None:
            raise ValueError("surrogate needs the simulator behind the recording; give 'simulation', not 'recording'")
        windows, unit = study.windows, open_recording(study.recording)["current"].attrs["units"]
        if unit != "µA/cm²" and (unset := _CURRENTS - self.model_fields_set):
            raise ValueError(
                f"surrogate: its default currents are in µA/cm², this cell's in {unit}; give {', '.join(sorted(unset))}"
            )
        best = min(study.models, key=lambda name: _validation_error(study, name))
        model, own = study.models[best][0], study.windows_of[best]
        rng = np.random.default_rng(np.asarray(jax.random.key_data(stream(study.key, "surrogate"))))
        asked = _Asked(study, best, rng)
        numbers: dict[str, Any] = {
            "tolerance_ms": self.tolerance_ms,
            "unit": unit,
            "best": best,
            "trained_to": float(np.max(_trained(windows)[0])),
            "receptive_field": {n: _receptive_field(m[0], windows.dt) for n, m in study.models.items()},
        }
        numbers |= self._steps(study, best)
        more, arrays = self._questions(asked)
        numbers |= more | self._map(asked, unit)
        study.tell("surrogate: timings and gradients")
        onset = self.step_onset_ms
        numbers["timings"], numbers["time_against_simulator"] = timings(
            study.source, model, own, self.batches, onset=onset, repeats=self.repeats, longest=self.longest_s
        )
        numbers["gradients"], drawn = gradients(
            study.source, model, own, self.gradient_amplitudes, onset=onset, threshold=self.threshold
        )
        return Findings(numbers, arrays | drawn)

    def _matched(self, truth: np.ndarray, prediction: np.ndarray, dt: float) -> list[Matching]:
        return match_traces(truth, prediction, dt, tolerance=self.tolerance_ms, threshold=self.threshold)

    def _scores(self, truth: np.ndarray, prediction: np.ndarray, dt: float) -> dict[str, float]:
        """Spikes and voltages."""
        scores = spike_scores(self._matched(truth, prediction, dt))
        error = np.mean(np.square(prediction - truth, dtype=np.float64))
        spread = np.mean(np.square(truth - truth.mean(), dtype=np.float64))
        return scores | {"rmse": float(np.sqrt(error)), "r2": float(1 - error / spread) if spread else np.nan}

    def _steps(self, study: Study, best: str) -> dict[str, Any]:
        """Every predictor on the held-out runs, and the best model against each other one."""
        windows = study.windows
        starts = np.asarray(windows.starts["test"])
        truth, dt = _volts(windows, targets(windows, starts)), windows.dt
        volts = {"nearest neighbour": [nearest(*_trained(windows), _currents(windows, starts))]}
        volts |= {name: [_volts(windows, study.predictions[name])] for name in study.baselines}
        for name, seeds in study.models.items():
            own = study.windows_of[name]
            volts[name] = [_volts(own, forecast(m, own, starts)) for m in seeds]
        found, f1 = {}, {}
        for name, seeds in volts.items():
            scores = [self._scores(truth, v, dt) for v in seeds]
            recalls = [s["recall"] for s in scores]
            over_seeds = {"recalls": recalls, "recall_ci95": interval(recalls), "seeds": {"recall": recalls}}
            found[name] = scores[0] | (over_seeds if name in study.models else {})
            f1[name] = f1_by_run(self._matched(truth, seeds[0], dt), starts // windows.frames_per_trial)
        against = {n: compare(f1[best], other, paired_by="run") for n, other in f1.items() if n != best}
        return {"steps": found, "best_against": holm(against)}

    def _questions(self, asked: "_Asked") -> tuple[dict[str, Any], dict[str, Any]]:
        """A step, for the heights of spikes; strong sines, for which spike; white noise, for number and height."""
        windows, hertz = asked.windows, np.asarray(SINE_HZ)
        noise = asked.rng.standard_normal((self.noise_draws, windows.length))
        step = waveform(Step, windows, amplitude=self.step_amplitude, onset=self.step_onset_ms)
        sines = waveform(Sine, windows, amplitude=self.sine_amplitude, frequency=hertz)
        answers = {"step": asked(step[None]), "sine": asked(sines), "noise": asked(self.noise_sd * noise)}
        numbers: dict[str, Any] = {name: self._scores(*volts[:2], windows.dt) for name, volts in answers.items()}
        arrays = {"step_current": (("frame",), step), "target_ms": (("target",), asked.target_ms)}
        arrays["sine_hz"] = (("sine",), hertz)
        for place, who in enumerate(("true", "predicted")):
            volts = {name: answer[place] for name, answer in answers.items()}
            counts = {n: np.array([len(crossings(v, windows.dt, self.threshold)) for v in volts[n]]) for n in volts}
            heights = {name: np.concatenate([peaks(v, self.threshold) for v in volts[name]]) for name in volts}
            fires, many, high = hertz[counts["sine"] > 0].tolist(), counts["noise"], heights["noise"]
            numbers["step"][f"peaks_{who}"] = heights["step"].tolist()
            numbers["sine"][who] = {"lowest_hz": min(fires, default=None), "highest_hz": max(fires, default=None)}
            numbers["noise"][who] = {
                "count": float(many.mean()),
                "count_sd": float(many.std(ddof=1)),
                "height": float(high.mean()) if len(high) else np.nan,
                "height_sd": float(high.std(ddof=1)) if len(high) > 1 else np.nan,
            }
            arrays[f"step_{who}"] = (("target",), volts["step"][0])
            arrays[f"sine_{who}"] = (("sine",), counts["sine"])
            arrays[f"noise_counts_{who}"] = (("noise",), many)
            arrays[f"noise_heights_{who}"] = ((f"height_{who}",), high)
        return numbers, arrays

    def _map(self, asked: "_Asked", unit: str) -> dict[str, Any]:
        """Voltage and spikes over families of waveforms, each point inside or outside what was trained on."""
        points = families(asked.windows, self.map, self.draws, asked.rng)
        inputs, voltage = _trained(asked.study.windows)
        truth, prediction, currents = asked(np.concatenate([drawn for *_, drawn in points]))
        neighbour = nearest(inputs, voltage, currents)
        # The largest amplitude drawn lies a little below the limit of the range.
        low, high = inputs.min() - 0.01 * inputs.max(), 1.01 * inputs.max()
        found, groups = [], {}
        for k, (family, x, series, _) in enumerate(points):
            at = slice(k * self.draws, (k + 1) * self.draws)
            level = bool(currents[at].min() >= low and currents[at].max() <= high)
            scores, others = (self._scores(truth[at], v[at], asked.windows.dt) for v in (prediction, neighbour))
            found.append(
                {"family": family, "x": x, "series": f"{series:g} {unit}" if series else ""}
                | {"level_inside": level, "inside": level and family == "step"}
                | {key: scores[key] for key in ("rmse", "recall", "precision", "f1", "true", "predicted")}
                | {"neighbour_rmse": others["rmse"], "neighbour_f1": others["f1"]}
            )
            place = f"steps_{'within' if level else 'beyond'}_the_trained_range" if family == "step" else family
            groups.setdefault(place, []).append((scores["rmse"], others["rmse"]))
        pairs = {place: np.transpose(errors) for place, errors in groups.items()}
        lower = {"paired_by": "point", "unit": "mV", "higher_is_better": False}
        apart = holm({place: compare(*errors, **lower) for place, errors in pairs.items()})
        means = {p: {"rmse": float(pairs[p][0].mean()), "against_nearest": c} for p, c in apart.items()}
        return {"map": found, "families": means}

    def section(self, findings: Findings) -> Section:
        """The answers, question by question, and the map of validity."""
        numbers = findings.numbers
        steps, unit = numbers["steps"], numbers["unit"]
        rivals = [n for n, s in steps.items() if "recalls" not in s]  # what is no model
        names = {
            "rival": max(rivals, key=lambda n: np.nan_to_num(number(steps[n]["f1"]))),
            "verb": {"better": "beats", "worse": "does worse than", "not told apart": "is not told apart from"},
            "label": BASELINES,
            "asked": {
                "step": f"{self.step_amplitude:g} {unit}",
                "onset": f"{self.step_onset_ms:g}",
                "sine": f"{self.sine_amplitude:g} {unit}",
                "noise": f"{self.noise_sd:g} {unit}",
            },
            "faster": [n for n, c in numbers["time_against_simulator"].items() if c.verdict == "better"],
        }
        parts = (
            _spike_table(numbers),
            _time_table(numbers),
            Plot(
                "surrogate_questions",
                "A step, sines and noise",
                "Voltage traces under a step, spike counts against the frequency of a sine, and histograms of the "
                "number and height of spikes under white noise, of the simulator and of the surrogate.",
                "What is not of the family that was trained on, such as sines and noise beside steps, the surrogate "
                "has to carry over.",
                _draw_questions(findings, names["asked"]),
            ),
            Plot(
                "surrogate_map",
                "Validity map",
                "Root-mean-square error of the voltage against the parameter of each family of stimuli; points inside "
                "the training range are marked.",
                "Only blue points are interpolation. Where the surrogate lies no lower than the nearest training run "
                "(grey; for sines, of the largest amplitude), it has learned nothing that carries over.",
                _draw_map(numbers["map"], unit),
            ),
            Plot(
                "surrogate_timings",
                "Time of a call",
                "Time of one call of the simulator and of the surrogate against the number of runs in the batch.",
                "Where the curves cross, the surrogate begins to pay.",
                _draw_timings(numbers["timings"]),
            ),
            Plot(
                "surrogate_gradients",
                "Gradients",
                "Derivatives of the mean voltage and of the time of the first spike with respect to the amplitude of a "
                "step, through the simulator and through the surrogate.",
                "Whoever optimises through the surrogate follows the orange curve.",
                _draw_gradients(findings, unit),
            ),
        )
        return Section("What the surrogate is good for", _TEXT, parts, names)


class _Asked:
    """Simulator and surrogate, asked for the same waveforms."""

    def __init__(self, study: Study, best: str, rng: np.random.Generator):
        self.study, self.rng = study, rng
        self.model, self.windows = study.models[best][0], study.windows_of[best]
        ends = np.asarray(self.windows.horizons) + self.windows.length
        self.target_ms = self.windows.dt * ends
        self.respond = respond(study.source, self.windows.dt)  # type: ignore[arg-type]

    def __call__(self, currents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True and predicted voltages [mV] at the horizons, and the currents as they were recorded."""
        volts, current = (np.asarray(x) for x in self.respond(jnp.asarray(currents, jnp.float32)))
        # Windows over the answers, one a run, scaled as those that the model was trained on.
        both = jnp.asarray(np.stack([current, volts], -1).reshape(-1, 2), jnp.float32)
        asked = eqx.tree_at(lambda w: w.values, self.windows, self.windows.scaling.apply(both))
        starts = np.arange(len(current), dtype=np.int32) * current.shape[1]
        truth = _volts(asked, targets(asked, starts))
        return truth, _volts(asked, forecast(self.model, asked, starts)), current


def families(
    windows: Windows, where: ValidityMap, draws: int, rng: np.random.Generator
) -> list[tuple[str, float, float, Float[np.ndarray, "draw frame"]]]:
    """The waveforms of the validity map.

    Args:
        windows: tell the frames of a waveform.
        where: the points of each family.
        draws: waveforms at each point; they differ in onset, phase or noise.
        rng: draws them.

    Returns:
        Family, what is varied along its axis, the amplitude where several are tried (else zero), and the waveforms of
        each point: steps, sines, noise, ramps, and pulse trains.
    """
    total = windows.length * windows.dt

    def between(kind: type, amplitude: float) -> np.ndarray:
        onset, end = rng.uniform([0.02, 0.6], [0.3, 1.0], (draws, 2)).T * total
        return waveform(kind, windows, amplitude=amplitude, onset=onset, end=end)

    def sine(amplitude: float, frequency: float) -> np.ndarray:
        phase = rng.uniform(0, 2 * np.pi, draws)
        return waveform(Sine, windows, amplitude=amplitude, frequency=frequency, phase=phase)

    def pulses(frequency: float) -> np.ndarray:
        onset = rng.uniform(0.02, 0.3, draws) * total
        count = int(total * max(where.pulse_hz) / 1e3) + 1  # more than there is time for: one program for all
        drawn = {"amplitude": where.pulse, "frequency": frequency, "width": where.pulse_ms, "onset": onset}
        return waveform(PulseTrain, windows, count=count, **drawn)

    points = [("step", a, 0.0, between(Step, a)) for a in where.step]
    points += [("sine", f, a, sine(a, f)) for a in where.sine for f in where.sine_hz]
    points += [("noise", sd, 0.0, sd * rng.standard_normal((draws, windows.length))) for sd in where.noise]
    points += [("ramp", a, 0.0, between(Ramp, a)) for a in where.ramp]
    return points + [("pulses", f, 0.0, pulses(f)) for f in where.pulse_hz]


def nearest(
    inputs: Float[np.ndarray, "known frame"],
    outputs: Float[np.ndarray, "known horizon"],
    queries: Float[np.ndarray, "query frame"],
) -> Float[np.ndarray, "query horizon"]:
    """Answer each query with the output of the nearest known input, in the sense of least squares.

    Args:
        inputs: known waveforms.
        outputs: what they gave.
        queries: new waveforms.
    """
    distance = np.square(inputs).sum(1)[None] - 2 * queries @ inputs.T
    return outputs[distance.argmin(1)]


def _volts(windows: Windows, scaled: np.ndarray) -> Float[np.ndarray, "window horizon"]:
    return np.asarray(windows.target_scaling.invert(jnp.asarray(scaled)))[..., 0]


def _currents(windows: Windows, starts: np.ndarray) -> Float[np.ndarray, "window frame"]:
    scaling = windows.scaling.of(windows.input_columns)
    at = starts[:, None] + np.arange(windows.length)
    scaled = np.asarray(windows.values)[at][..., np.asarray(windows.input_columns)]
    return np.asarray(scaling.invert(jnp.asarray(scaled)))[..., 0]


def _trained(windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """Currents and voltages of the training windows."""
    starts = np.asarray(windows.starts["train"])
    return _currents(windows, starts), _volts(windows, targets(windows, starts))


def _validation_error(study: Study, name: str) -> float:
    own = study.windows_of[name]
    starts = np.asarray(own.starts["validation"])
    error = _volts(own, forecast(study.models[name][0], own, starts)) - _volts(own, targets(own, starts))
    return float(np.mean(np.square(error)))


def _receptive_field(model: Any, dt: float) -> dict[str, float] | None:
    """Input samples that reach the deepest layer, of the whole encoder and of its first two layers, and their time."""
    if not isinstance(model, SupportsReceptiveField):
        return None
    whole, first = model.receptive_field(), model.receptive_field(2)
    return {"samples": whole, "ms": whole * dt, "two_layers": first, "two_layers_ms": first * dt}


def _spike_table(numbers: Mapping[str, Any]) -> Table:
    """Predictors on held-out runs."""
    columns = ("predictor", "recall ± SE", "seeds, mean ± 95 %", "precision", "timing [ms]", "RMSE [mV]", "R²")
    share = lambda x, half=None: f"{estimate(100 * number(x), 100 * number(half), 1)}\u00a0%"  # noqa: E731
    rows = []
    for name, s in numbers["steps"].items():
        recalls = s.get("recalls", ())
        seeds = f"{share(np.mean(recalls), s['recall_ci95'])} ({len(recalls)})" if len(recalls) > 1 else "–"
        rest = [quantity(s[key], digits) for key, digits in (("timing_ms", 3), ("rmse", 2), ("r2", 3))]
        label = BASELINES.get(name, name)
        rows.append((label, share(s["recall"], s["recall_se"]), seeds, share(s["precision"]), *rest))
    within = f"{numbers['tolerance_ms']:g} ms"
    return Table(f"Held-out steps: spikes within {within}, and the voltage over the whole window", columns, rows)


def _time_table(numbers: Mapping[str, Any]) -> Table:
    kinds = ("simulator_s", "surrogate_s", "simulator_compile_s", "surrogate_compile_s")
    rows = [(f"{t['batch']:,}", *(quantity(1e3 * number(t[kind]), 1) for kind in kinds)) for t in numbers["timings"]]
    columns = ("batch", "simulator [ms]", "surrogate [ms]", "compiling simulator [ms]", "compiling surrogate [ms]")
    return Table("Time of one call, median; a dash marks what was left out as too slow", columns, rows)


_TRUE: dict[str, Any] = {"color": INK, "label": "simulator"}
_PREDICTED: dict[str, Any] = {"color": EXCITATORY, "label": "surrogate"}


def _draw_questions(findings: Findings, asked: Mapping[str, str]) -> "Figure":
    """The step, the sines and the noise: simulator beside surrogate."""
    arrays = {name: values for name, (_, values) in findings.arrays.items()}
    figure, (step, sine, counts, heights) = panels(7.2, rows=4)
    step.plot(arrays["target_ms"], arrays["step_true"], linewidth=1.2, **_TRUE)
    step.plot(arrays["target_ms"], arrays["step_predicted"], linewidth=1.0, linestyle="--", **_PREDICTED)
    step.set(xlabel=f"time [ms], step of {asked['step']} from {asked['onset']} ms", ylabel="V [mV]")
    step.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    sine.plot(arrays["sine_hz"], arrays["sine_true"], marker="o", markersize=3, **_TRUE)
    sine.plot(arrays["sine_hz"], arrays["sine_predicted"], marker="s", markersize=3, linestyle="--", **_PREDICTED)
    sine.set(xscale="log", xlabel=f"sine of {asked['sine']} [Hz]", ylabel="spikes")
    both = [arrays[f"noise_counts_{who}"] for who in ("true", "predicted")]
    counts.hist(both, np.arange(-0.5, max(b.max() for b in both) + 1.5).tolist(), color=[INK, EXCITATORY])
    counts.set(xlabel=f"spikes under white noise of SD {asked['noise']}", ylabel="draws")
    both = [arrays[f"noise_heights_{who}"] for who in ("true", "predicted")]
    heights.hist(both, 20, color=[INK, EXCITATORY])
    heights.set(xlabel="height of these spikes [mV]", ylabel="spikes")
    return figure


def _draw_map(points: Sequence[Mapping[str, Any]], unit: str) -> "Figure":
    """Voltage error over the families of stimuli."""
    figure, (*axes, key) = panels(7.2, rows=3, columns=2)
    labels = {"noise": f"noise, SD [{unit}]", "pulses": "pulses [Hz]", "sine": "sine [Hz]"}
    kinds = {
        "inside the training range": (True, True, INHIBITORY, INHIBITORY),
        "unseen waveform, trained level": (False, True, EXCITATORY, EXCITATORY),
        "unseen waveform or level,\nlevel beyond the trained": (False, False, EXCITATORY, "white"),
    }

    def draw(ax: "Axes", part: Sequence[Mapping[str, Any]], what: str, style: str, **more: Any) -> None:
        ax.plot([p["x"] for p in part], [p[what] for p in part], style, **more)

    for ax, family in zip(axes, ("step", "ramp", "noise", "pulses", "sine"), strict=True):
        mine = [p for p in points if p["family"] == family]
        for series, style in zip(dict.fromkeys(p["series"] for p in mine), ("-", "--", ":"), strict=False):
            part = [p for p in mine if p["series"] == series]
            draw(ax, part, "rmse", style, color=EXCITATORY, label=series or None)
        for inside, level, colour, face in kinds.values():
            part = [p for p in mine if (p["inside"], p["level_inside"]) == (inside, level)]
            draw(ax, part, "rmse", "o", color=colour, markerfacecolor=face, markersize=4.5)
        draw(
            ax, [p for p in mine if p["series"] == mine[-1]["series"]], "neighbour_rmse", "-", color=GREY, linewidth=0.9
        )
        ax.set(xlabel=labels.get(family, f"{family} [{unit}]"), ylabel="RMSE [mV]", ylim=(0, None))
    axes[-1].set_xscale("log")
    axes[-1].legend(frameon=False, fontsize=7)
    for text, (*_, colour, face) in kinds.items():
        key.plot([], [], "o", color=colour, markerfacecolor=face, label=text)
    key.plot([], [], color=GREY, label="nearest neighbour\nin the training set")
    key.set_axis_off()
    said = key.legend(frameon=False, fontsize=8, loc="center left", handlelength=1, borderpad=0, labelspacing=1.2)
    said.set_in_layout(False)
    return figure


def _draw_timings(timed: Sequence[Mapping[str, Any]]) -> "Figure":
    """Time of one call against the size of the batch."""
    figure, (ax,) = panels(2.8)
    for kind, style in (("simulator", _TRUE), ("surrogate", _PREDICTED)):
        known = [t for t in timed if t[f"{kind}_s"]]
        ax.plot([t["batch"] for t in known], [1e3 * t[f"{kind}_s"] for t in known], marker="o", markersize=4, **style)
    ax.set(xscale="log", yscale="log", xlabel="runs in a batch", ylabel="time of a call [ms]")
    ax.legend(frameon=False, fontsize=9)
    return figure


def _draw_gradients(findings: Findings, unit: str) -> "Figure":
    """Derivatives with respect to the amplitude of a step."""
    figure, axes = panels(4.4, rows=2)
    titles = {"mean_v": "∂⟨V⟩/∂a [mV]", "latency": "∂t/∂a [ms]"}
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        for kind, style in (("simulator", _TRUE), ("surrogate", _PREDICTED)):
            slopes = findings.arrays[f"{name}_{kind}"][1]
            ax.plot(findings.arrays["amplitude"][1], slopes, marker="o", markersize=4, **style)
        ax.set(xlabel=f"amplitude a of the step [{unit}]", ylabel=f"{title} per {unit}")
    axes[0].legend(frameon=False, fontsize=9)
    return figure
