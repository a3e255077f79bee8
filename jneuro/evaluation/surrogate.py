"""What a surrogate of a neuron is good for: spikes, waveforms it was not trained on, speed, and gradients."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from jneuro.core.random import stream
from jneuro.core.types import Float
from jneuro.datasets import WindowConfig, Windows
from jneuro.evaluation.analysis import Analysis, Findings, Study
from jneuro.evaluation.forecasts import forecast, targets
from jneuro.evaluation.metrics import interval, spike_scores
from jneuro.evaluation.protocols import SupportsReceptiveField
from jneuro.evaluation.stimulus_families import families, sine, step
from jneuro.evaluation.surrogate_cost import gradients, timings
from jneuro.evaluation.surrogate_probe import probe, simulator_response
from jneuro.spikes.detection import crossings, peaks

__all__ = ["SurrogateAnalysis", "nearest"]

SINE_HZ = tuple(np.unique(np.round(np.geomspace(1, 2000, 34), 1)).tolist())
"""Frequencies at which the lowest that spikes is sought."""


class SurrogateAnalysis(Analysis):
    """The questions of the laboratory, the validity map, the cost and the gradients of a surrogate.

    All models are scored on the spikes of held-out steps; the rest is asked of the one with the lowest squared error on
    the validation runs.

    Attributes:
        tolerance_ms: how near a predicted spike must be [ms].
        threshold: of spikes [mV].
        noise_draws: draws of white noise.
        draws: waveforms at each point of the validity map.
        batches: sizes of the batches that are timed.
        repeats: timed calls of each, of which the median counts.
        longest_s: the first batch that takes longer is the last to be timed [s].
    """

    name: Literal["surrogate"] = "surrogate"
    tolerance_ms: float = Field(default=0.5, gt=0)
    threshold: float = 0.0
    noise_draws: int = Field(default=100, ge=2)
    draws: int = Field(default=8, ge=1)
    batches: tuple[int, ...] = Field(default=(1, 4, 16, 64, 256, 1024, 4096), min_length=1)
    repeats: int = Field(default=5, ge=1)
    longest_s: float = Field(default=2.0, gt=0)

    def check(self, windows: WindowConfig, models: Sequence[str]) -> None:
        """Needs the voltage predicted from the current that drives it, a run at a time."""
        if windows.targets != ("v",) or windows.observed != ("current",):
            raise ValueError("surrogate needs windows.inputs = [current] and windows.targets = [v]")
        if windows.discard_ms:
            raise ValueError("surrogate needs windows that begin with the run; set windows.discard_ms to 0")

    def analyse(self, study: Study) -> Findings:
        """Ask everything."""
        if study.source is None:
            raise ValueError("surrogate needs the simulator behind the recording; give 'simulation', not 'recording'")
        windows = study.windows
        best = min(study.models, key=lambda name: _validation_error(study, name))
        model, own = study.models[best][0], study.windows_of[best]
        rng = np.random.default_rng(np.asarray(jax.random.key_data(stream(study.key, "surrogate"))))
        asked = _Asked(study, best, rng)
        numbers: dict[str, Any] = {
            "tolerance_ms": self.tolerance_ms,
            "best": best,
            "trained_to": float(np.max(_trained(windows)[0])),
            "steps": self._steps(study),
            "receptive_field": {n: _receptive_field(m[0], windows.dt) for n, m in study.models.items()},
        }
        arrays: dict[str, Any] = {}
        for found in (self._step, self._sines, self._noise, self._map):
            more, drawn = found(asked)
            numbers |= more
            arrays |= drawn
        study.tell("surrogate: timings and gradients")
        numbers["timings"] = timings(
            study.source, model, own, self.batches, repeats=self.repeats, longest=self.longest_s
        )
        numbers["gradients"], drawn = gradients(study.source, model, own, self.threshold)
        return Findings(numbers, arrays | drawn)

    def _scores(self, truth: np.ndarray, prediction: np.ndarray, dt: float) -> dict[str, float]:
        """Spikes and voltages."""
        scores = spike_scores(truth, prediction, dt, tolerance=self.tolerance_ms, threshold=self.threshold)
        error = np.mean(np.square(prediction - truth, dtype=np.float64))
        spread = np.mean(np.square(truth - truth.mean(), dtype=np.float64))
        return scores | {"rmse": float(np.sqrt(error)), "r2": float(1 - error / spread) if spread else np.nan}

    def _steps(self, study: Study) -> dict[str, Any]:
        """Every predictor on the held-out steps."""
        windows = study.windows
        starts = np.asarray(windows.starts["test"])
        truth = _volts(windows, targets(windows, starts))
        found = {}
        inputs, voltage = _trained(windows)
        found["nearest neighbour"] = self._scores(
            truth, nearest(inputs, voltage, _currents(windows, starts)), windows.dt
        )
        for name in study.baselines:
            found[name] = self._scores(truth, _volts(windows, study.predictions[name]), windows.dt)
        for name, seeds in study.models.items():
            own = study.windows_of[name]
            scores = [self._scores(truth, _volts(own, forecast(m, own, starts)), windows.dt) for m in seeds]
            recalls = [s["recall"] for s in scores]
            found[name] = scores[0] | {"recalls": recalls, "recall_ci95": interval(recalls)}
        return found

    def _step(self, asked: "_Asked") -> tuple[dict, dict]:
        """Questions 2 and 3: one step, the spikes and their heights."""
        current = step(asked.time, 20.0, 17.8)[None]
        truth, prediction, _ = asked(current)
        heights = [peaks(v[0], self.threshold).tolist() for v in (truth, prediction)]
        scores = self._scores(truth, prediction, asked.dt)
        drawn = {"step_current": current[0], "step_true": truth[0], "step_predicted": prediction[0]}
        arrays = {k: (("frame" if "current" in k else "target",), v) for k, v in drawn.items()}
        arrays["target_ms"] = (("target",), asked.target_ms)
        return {"step": scores | {"peaks_true": heights[0], "peaks_predicted": heights[1]}}, arrays

    def _sines(self, asked: "_Asked") -> tuple[dict, dict]:
        """Question 4: which frequencies of a strong sine spike."""
        truth, prediction, _ = asked(np.stack([sine(asked.time, 80.0, f) for f in SINE_HZ]))
        counts = {"true": self._counts(truth, asked.dt), "predicted": self._counts(prediction, asked.dt)}
        fires = {who: [f for f, n in zip(SINE_HZ, c, strict=True) if n] for who, c in counts.items()}
        numbers = {w: {"lowest_hz": min(f, default=None), "highest_hz": max(f, default=None)} for w, f in fires.items()}
        arrays = {f"sine_{who}": (("sine",), np.asarray(c)) for who, c in counts.items()}
        return {"sine": numbers}, arrays | {"sine_hz": (("sine",), np.asarray(SINE_HZ))}

    def _noise(self, asked: "_Asked") -> tuple[dict, dict]:
        """Question 5: number and height of spikes under white noise."""
        truth, prediction, _ = asked(20.0 * asked.rng.standard_normal((self.noise_draws, len(asked.time))))
        numbers: dict[str, Any] = self._scores(truth, prediction, asked.dt)
        arrays = {}
        for who, volts in {"true": truth, "predicted": prediction}.items():
            counts = self._counts(volts, asked.dt)
            heights = np.concatenate([peaks(v, self.threshold) for v in volts])
            numbers[who] = {
                "count": float(np.mean(counts)),
                "count_sd": float(np.std(counts, ddof=1)),
                "height": float(heights.mean()) if len(heights) else np.nan,
                "height_sd": float(heights.std(ddof=1)) if len(heights) > 1 else np.nan,
            }
            arrays[f"noise_counts_{who}"] = (("noise",), np.asarray(counts))
            arrays[f"noise_heights_{who}"] = ((f"height_{who}",), heights)
        return {"noise": numbers}, arrays

    def _counts(self, volts: np.ndarray, dt: float) -> list[int]:
        return [len(crossings(v, dt, self.threshold)) for v in volts]

    def _map(self, asked: "_Asked") -> tuple[dict, dict]:
        """Voltage and spikes over families of waveforms, each point inside or outside what was trained on."""
        points = families(len(asked.time), asked.dt, self.draws, asked.rng)
        inputs, voltage = _trained(asked.study.windows)
        truth, prediction, currents = asked(np.concatenate([p.currents for p in points]))
        neighbour = nearest(inputs, voltage, currents)
        # The largest amplitude drawn lies a little below the limit of the range.
        low, high = inputs.min() - 0.01 * inputs.max(), 1.01 * inputs.max()
        found = []
        for k, point in enumerate(points):
            at = slice(k * self.draws, (k + 1) * self.draws)
            level = bool(currents[at].min() >= low and currents[at].max() <= high)
            scores = self._scores(truth[at], prediction[at], asked.dt)
            others = self._scores(truth[at], neighbour[at], asked.dt)
            found.append(
                {"family": point.family, "x": point.x, "series": point.series, "level_inside": level}
                | {"inside": level and point.family == "step"}
                | {key: scores[key] for key in ("rmse", "recall", "precision", "f1", "true", "predicted")}
                | {"neighbour_rmse": others["rmse"], "neighbour_f1": others["f1"]}
            )
        return {"map": found}, {}


class _Asked:
    """Simulator and surrogate, asked for the same waveforms."""

    def __init__(self, study: Study, best: str, rng: np.random.Generator):
        self.study, self.rng = study, rng
        self.model, self.windows = study.models[best][0], study.windows_of[best]
        self.dt = self.windows.dt
        self.time = self.dt * np.arange(1, self.windows.length + 1)
        self.target_ms = self.time[np.asarray(self.windows.horizons) + self.windows.length - 1]
        self.respond = simulator_response(study.source, self.dt)  # type: ignore[arg-type]

    def __call__(self, currents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """True and predicted voltages [mV] at the horizons, and the currents as they were recorded."""
        volts, current = (np.asarray(x) for x in self.respond(jnp.asarray(currents, jnp.float32)))
        asked, starts = probe(self.windows, current, volts)
        truth = _volts(asked, targets(asked, starts))
        return truth, _volts(asked, forecast(self.model, asked, starts)), current


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


class _Field(NamedTuple):
    """Question 6: input samples that reach the deepest layer, of the whole encoder and of its first two layers."""

    samples: int
    ms: float
    two_layers: int
    two_layers_ms: float


def _receptive_field(model: Any, dt: float) -> dict[str, float] | None:
    if not isinstance(model, SupportsReceptiveField):
        return None
    whole, first = model.receptive_field(), model.receptive_field(2)
    return _Field(whole, whole * dt, first, first * dt)._asdict()
