"""Forecasters of a driven cell rolled out far beyond their horizon, regime by regime, beside what needs no model."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import Field, model_validator

from jneuro.core.config import Config
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Key
from jneuro.datasets import WindowConfig, Windows
from jneuro.evaluation.analysis import Analysis, Findings, Source, Study
from jneuro.evaluation.comparison import Comparison, compare, holm
from jneuro.evaluation.lyapunov import lyapunov_of_currents
from jneuro.evaluation.metrics import interval
from jneuro.evaluation.protocols import SupportsReadingOrder
from jneuro.evaluation.repetition import nearest, period, repeat_period
from jneuro.evaluation.rollouts import Predict, RolloutScores, Sample, rollout, score_rollouts
from jneuro.report.components import Plot, Section, Table, estimate, number, quantity
from jneuro.report.style import COLOURS, INK, panels
from jneuro.simulators import ODESimulator, simulate
from jneuro.simulators.stimuli import Constant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Regime", "RolloutAnalysis"]


_TEXT = """
{% for regime, found in scores.items() %}
{% set mine, standard, standing = found[lead], found["last_period"], found["mean"] %}
{% set apart, better = mine.against_last_period[at], {"better": "beats", "worse": "does not beat"} %}
{{ regime | capital }}, {{ at }} ms ahead: {{ lead }} (a horizon of {{ horizons[lead] }} frames)
{{ better[apart.verdict] | default("is not told apart from") }} the last period repeated: RMSE
{{ mine.rmse[at].mean | estimate(mine.rmse[at].ci95, 2) }} against
{{ standard.rmse[at].mean | estimate(standard.rmse[at].ci95, 2) }} standard deviations, a difference of
{{ apart | bounds(2) }} (95 % intervals over currents; judged together with all other predictors). It
{{ better[mine.against_mean[at].verdict] | default("is not told apart from") }} the regime's mean,
{{ standing.rmse[at].mean | fixed(2) }}. Over the whole rollout it fires {{ mine.spikes | fixed(1) }} spikes and
repetition {{ standard.spikes | fixed(1) }}, where the cell fires {{ mine.true_spikes | fixed(1) }};
{{ mine.coincidence | percent(0) }} and {{ standard.coincidence | percent(0) }} are matched.
{% if apart.verdict != "better" and mine.true_spikes %}
{% set ours, theirs = (mine.spikes / mine.true_spikes - 1) | abs, (standard.spikes / mine.true_spikes - 1) | abs %}
Why: the model's rate is off by {{ ours | percent(1) }}, which adds up to
{{ (ours * mine.true_spikes * (at | float) / settings.rollout_ms) | fixed(2) }} spikes in {{ at }} ms, repetition's by
{{ theirs | percent(1) }}, and repetition measures the period on a past of {{ "%g" | format(settings.past_ms) }} ms.
{% endif %}

{% endfor %}
{% if pairs.horizon %}
Longer horizons: mean RMSE over the whole rollout for {{ horizons.values() | join(", ") }} frames:
{{ along("rmse_whole", 2) }}. Of each two horizons, the longer is better in {{ longer.count("better") }} of
{{ longer | length }} comparisons by regime, worse in {{ longer.count("worse") }}, and not told apart in the rest (95 %
for all together). But RMSE forgives a forecast that falls silent more than one that fires out of phase. Between the
spike trains, van Rossum's D² is {{ along("van_rossum", 1) }}; Victor and Purpura's distance, at
{{ "%g" | format(settings.cost_per_ms) }} for moving a spike by 1 ms, {{ along("victor_purpura", 1) }}.
{% endif %}

{% for first, others in pairs.order.items() %}
{% for second, apart in others.items() %}
Reading the window newest first: RMSE of {{ first }} against {{ second }}, of the same horizon:
{% for regime, found in scores.items() %}
{{ regime }}
{% for t in times[:2] %}
{{ found[first].rmse[t].mean | fixed(3) }} against {{ found[second].rmse[t].mean | fixed(3) }} at {{ t }} ms
({{ apart[regime][t].verdict }})
{{- ", " if not loop.last -}}
{% endfor %}
{{- "." if loop.last else ";" }}
{% endfor %}

{% endfor %}
{% endfor %}
{% for first, others in pairs.scaling.items() %}
{% for second, apart in others.items() %}
Loss of scaled states ({{ first }}) and of states in their own units ({{ second }}), in the first {{ times[0] }} ms:
{% for regime, found in scores.items() %}
{{ regime }} {{ found[first].v_rmse_mv[times[0]] | fixed(2) }} and
{{ found[second].v_rmse_mv[times[0]] | fixed(2) }} mV,
{{ found[first].rmse[times[0]].mean | fixed(2) }} and {{ found[second].rmse[times[0]].mean | fixed(2) }} standard
deviations over all states ({{ apart[regime][times[0]].verdict }})
{{- "." if loop.last else ";" }}
{% endfor %}
A loss in their own units does not see states that are small in theirs.

{% endfor %}
{% endfor %}
Largest Lyapunov exponent, from the simulator's tangent in double precision:
{% for regime, found in lyapunov.items() %}
{{ regime }} between {{ found.range_per_s[0] | fixed(1) }} and {{ found.range_per_s[1] | fixed(1) }} per second
{% if found.chaotic %}
({{ found.chaotic }} of {{ found.per_ms | length }} currents chaotic: errors double in
{{ found.doubling_ms | fixed(0) }} ms, and from a hundredth of a standard deviation to a whole in
{{ (found.doubling_ms * 6.644) | fixed(0) }} ms)
{%- else %}
(none told apart from zero: errors of the phase stay, they do not grow)
{%- endif %}
{{- "." if loop.last else ";" }}
{% endfor %}

{% set own, took = timing.seconds.simulator, timing.seconds[fastest] %}
Time for {{ timing.examples }} examples of {{ "%g" | format(settings.rollout_ms) }} ms in one batch: the simulator takes
{{ own | fixed(3) }} s, the fastest model, {{ fastest }}, {{ took | fixed(3) }} s:
{% if timing.against_simulator[fastest].verdict == "better" %}
{{ (own / took) | fixed(1) }} times less, so the model saves time here.
{% elif timing.against_simulator[fastest].verdict == "worse" %}
{{ (took / own) | fixed(1) }} times as long, so the model is not worth it for speed here.
{% else %}
the two are not told apart.
{% endif %}
"""


class Regime(Config):
    """A band of currents in which a cell behaves alike.

    Attributes:
        name: of the behaviour, such as `bursting`.
        low: the lowest current, in the simulator's unit.
        high: the highest.
    """

    name: str
    low: float
    high: float

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"regime {self.name}: low = {self.low:g} must be below high = {self.high:g}")
        return self


class RolloutAnalysis(Analysis):
    """How far forecasters of a cell under constant currents see, and what limits them.

    New currents are drawn in every regime, simulated, and rolled out from random moments. Models see their own windows;
    `last_period` sees `past_ms`, `nearest` looks up the training state nearest to the present one (states and current,
    in z-scores) and predicts what followed it, and `mean` is the mean of the training runs of the regime.

    Models are compared with `last_period` and `mean`, and with each other where they differ in one thing: their
    horizon, the order in which they read, or whether their states are scaled. Pairs are the seeds where both have
    several, else the currents.

    Attributes:
        regimes: bands of currents.
        currents: drawn in each regime.
        states: moments from which each current's trajectory is predicted.
        rollout_ms: how far [ms].
        past_ms: what precedes every moment [ms].
        spread_ms: the moments lie this far apart at most [ms].
        at_ms: the times at which errors are stated [ms]: each a mean over the tenth before it.
        judged_ms: of those, the text speaks of the one nearest to this [ms].
        valid_error: a forecast is valid until the root mean square over all z-scored states exceeds this.
        tolerance_ms: spikes farther apart do not match [ms].
        tau_ms: time constant of van Rossum's distance [ms].
        cost_per_ms: q of Victor and Purpura's distance [1/ms]; spikes farther apart than 2/q do not match.
        batch_size: examples rolled out together.
        candidates: most training states among which the nearest is sought.
        lyapunov_currents: currents of each regime, spread evenly, for which the largest Lyapunov exponent is computed.
        lyapunov_ms: time over which growth is averaged [ms], after 500 ms.
        chaotic_per_ms: an exponent above this is not mistaken for zero, which it is on a limit cycle, over a time of
            some seconds [1/ms].
        timed: examples rolled out together when time is taken.
    """

    name: Literal["rollout"] = "rollout"
    regimes: tuple[Regime, ...] = Field(min_length=1)
    currents: int = Field(default=50, ge=2)
    states: int = Field(default=100, ge=1)
    rollout_ms: float = Field(default=500.0, gt=0)
    past_ms: float = Field(default=400.0, gt=0)
    spread_ms: float = Field(default=300.0, gt=0)
    at_ms: tuple[float, ...] = Field(default=(1.0, 10.0, 100.0, 500.0), min_length=1)
    judged_ms: float = Field(default=100.0, gt=0)
    valid_error: float = Field(default=0.4, gt=0)
    tolerance_ms: float = Field(default=2.0, gt=0)
    tau_ms: float = Field(default=10.0, gt=0)
    cost_per_ms: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=1000, ge=1)
    candidates: int = Field(default=500_000, ge=1)
    lyapunov_currents: int = Field(default=10, ge=1)
    lyapunov_ms: float = Field(default=4000.0, gt=0)
    chaotic_per_ms: float = Field(default=0.005, ge=0)
    timed: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _within(self) -> Self:
        if max(self.at_ms) > self.rollout_ms:
            raise ValueError(f"at_ms holds {max(self.at_ms):g}, which lies beyond rollout_ms = {self.rollout_ms:g}")
        if len({r.name for r in self.regimes}) < len(self.regimes):
            raise ValueError("regimes must have names of their own")
        return self

    def check(self, windows: WindowConfig, models) -> None:
        """Needs states that are fed back, the potential first, and one current that is known ahead."""
        if windows.targets[0] != "v" or windows.known != ("current",) or windows.variables != windows.observed:
            raise ValueError("rollout needs targets that begin with v, known: [current], and both among the inputs")
        if windows.horizons_ms != "next_window" or windows.scaling != "zscore":
            raise ValueError("rollout needs horizons_ms: next_window and, for errors in z-scores, scaling: zscore")

    def compute(self, study: Study) -> Findings:
        """Roll out all models and what needs none; compare by regime."""
        source, windows = study.source, study.windows
        if source is None or not isinstance(source.simulator, ODESimulator) or source.simulator.has_reset:
            raise ValueError("rollout needs the simulator behind the recording, one of ordinary differential equations")
        steps = round(self.rollout_ms / windows.dt)
        if steps >= windows.frames_per_trial:
            raise ValueError(f"rollout_ms = {self.rollout_ms:g} must be shorter than the recording's runs")
        sample = self._sample(study, source)
        predictors = {name: [predict] for name, predict in self._without_model(windows, sample, steps).items()}
        for name, models in study.models.items():
            predictors[name] = [_roller(m, study.windows_of[name], sample, steps, self.batch_size) for m in models]
        # One example of each regime: the first moment of its middle current.
        examples = (np.arange(len(self.regimes)) * self.currents + self.currents // 2) * self.states
        traces = {"truth": sample.cut(examples, 1, steps)[..., 0]}
        scale = np.asarray(windows.target_scaling.scale)
        scored: dict[str, list[RolloutScores]] = {}
        for name, seeds in predictors.items():
            study.tell(f"rollout of {name}")
            scored[name] = [
                score_rollouts(
                    predict, sample, scale, windows.dt, steps, batch_size=self.batch_size,
                    valid_error=self.valid_error, tolerance=self.tolerance_ms, tau=self.tau_ms, cost=self.cost_per_ms,
                )
                for predict in seeds
            ]  # fmt: skip
            traces[name] = seeds[0](examples)[..., 0]
        study.tell("Lyapunov exponents")
        known = {name: _described(study, name) for name in predictors}
        numbers = {
            "settings": {"dt": windows.dt, **self.model_dump(exclude={"name"})},
            "states": list(study.config.targets),
            "predictors": known,
            **self._compared(scored, known, scale[0]),
            "lyapunov": self._lyapunov(source, sample, stream(study.key, "lyapunov")),
        }
        study.tell("times of rollouts")
        numbers["timing"] = self._times(study, source, sample, steps)
        arrays: dict[str, Any] = {f"trace.{n}": (("regime", "step"), np.float32(t)) for n, t in traces.items()}
        for name, seeds in scored.items():
            rmse = np.sqrt(np.mean([[s.squared[of].mean(0) for _, of in self._each] for s in seeds], 0))
            arrays[f"rmse_by_state.{name}"] = (("regime", "bin", "state"), rmse)
        return Findings(numbers, arrays)

    @property
    def _each(self) -> list[tuple[str, slice]]:
        """Names of the regimes, and where their currents are."""
        return [(r.name, slice(i * self.currents, (i + 1) * self.currents)) for i, r in enumerate(self.regimes)]

    def _sample(self, study: Study, source: Source) -> Sample:
        """Simulate new currents of every regime, and choose moments."""
        rng = np.random.default_rng(np.asarray(jax.random.key_data(stream(study.key, "rollout"))))
        drawn = np.sort([rng.uniform(r.low, r.high, self.currents) for r in self.regimes]).reshape(-1)
        dt, config = study.windows.dt, study.config
        past, spread, ahead = (round(ms / dt) for ms in (self.past_ms, self.spread_ms, self.rollout_ms))
        key = stream(study.key, "rollout")
        run = _simulate(source, drawn, (past + spread + ahead) * dt, key, config.variables)
        values = np.stack([np.asarray(run[n]).T for n in config.variables], axis=2)
        regime = np.repeat(np.arange(len(self.regimes)), self.currents)
        current = np.repeat(np.arange(len(drawn)), self.states)
        return Sample(values, regime, current, past - 1 + rng.integers(spread, size=len(current)))

    def _without_model(self, windows: Windows, sample: Sample, steps: int) -> dict[str, Predict]:
        """What needs no model."""
        past, states = round(self.past_ms / windows.dt), windows.outputs
        trials, frames = windows.trials("train"), windows.frames_per_trial
        values = np.asarray(windows.values).reshape(-1, frames, windows.values.shape[1])
        scale, mean = np.asarray(windows.scaling.scale), np.asarray(windows.scaling.mean)
        driven = values[trials, 0, -1] * scale[-1] + mean[-1]
        means = np.full((len(self.regimes), states), mean[:states])
        for i, r in enumerate(self.regimes):
            if (inside := trials[(driven >= r.low) & (driven <= r.high)]).size:
                means[i] += values[inside][..., :states].mean((0, 1), dtype=np.float64) * scale[:states]
        stride = max(1, -(-len(trials) * (frames - steps) // self.candidates))
        starts = (trials[:, None] * frames + np.arange(0, frames - steps, stride)).reshape(-1)
        flat = values.reshape(-1, values.shape[2])
        candidates = jnp.asarray(flat[starts])

        def last_period(index: np.ndarray) -> np.ndarray:
            seen = sample.cut(index, 1 - past, past)[..., :states]
            return np.stack([repeat_period(x, period(x[:, 0]), steps) for x in seen])

        def look_up(index: np.ndarray) -> np.ndarray:
            present = (sample.cut(index, 0, 1)[:, 0] - mean) / scale
            at = starts[np.asarray(nearest(candidates, jnp.asarray(present, candidates.dtype)))]
            return flat[at[:, None] + 1 + np.arange(steps), :states] * scale[:states] + mean[:states]

        def constant(index: np.ndarray) -> np.ndarray:
            return np.repeat(means[sample.regime[sample.current[index]]][:, None], steps, axis=1)

        return {"mean": constant, "last_period": last_period, "nearest": look_up}

    def _rmse(self, squared: Float[np.ndarray, "seed current bin state"]) -> dict[str, np.ndarray]:
        """Root mean square `[seed, current]` over the tenth of the time before each stated one, and over all of it."""
        found = {"whole": np.sqrt(squared.mean((2, 3)))}
        for at in self.at_ms:
            last = max(1, round(at))  # bins are of 1 ms; the nearest at least
            found[f"{at:g}"] = np.sqrt(squared[:, :, min(last - 1, round(0.9 * at)) : last].mean((2, 3)))
        return found

    def _compared(
        self, scored: Mapping[str, list[RolloutScores]], known: Mapping[str, Mapping], volts: float
    ) -> dict[str, Any]:
        """Scores by regime, with 95 % intervals over currents; and who is better, each time judged as one table."""
        squared = {name: np.stack([s.squared for s in seeds]) for name, seeds in scored.items()}
        rmse = {name: self._rmse(values) for name, values in squared.items()}
        of_v = {name: self._rmse(values[..., :1] * volts**2) for name, values in squared.items()}
        models = {n: (p["steps"], p["order"] or "", p["scaled"]) for n, p in known.items() if p["kind"] == "model"}
        lead = max(models, key=lambda n: (models[n][2], models[n][0]))
        row = sorted((n for n in models if models[n][1:] == models[lead][1:]), key=lambda n: models[n][0])
        kinds, pairs = ("horizon", "order", "scaling"), []
        for a, b in itertools.permutations(models, 2):
            apart = [(kind, x > y) for kind, x, y in zip(kinds, models[a], models[b], strict=True) if x != y]
            if len(apart) == 1 and apart[0][1]:
                pairs.append((apart[0][0], a, b))
        scores: dict[str, Any] = {}
        table: dict[tuple[str, str], dict] = {}
        for regime, of in self._each:
            part = {name: {at: values[:, of] for at, values in by.items()} for name, by in rmse.items()}
            scores[regime] = {
                name: {
                    "rmse": {
                        at: {"mean": float(e.mean(0).mean()), "ci95": interval(e.mean(0)), "seeds": e.mean(1).tolist()}
                        for at, e in by.items()
                    },
                    "v_rmse_mv": {at: float(values[:, of].mean()) for at, values in of_v[name].items()},
                    "rmse_whole": float(by["whole"].mean()),
                    **{k: _mean([s.by_current[k][of] for s in scored[name]]) for k in scored[name][0].by_current},
                }
                for name, by in part.items()
            }
            for at, other in itertools.product(rmse[lead], ("last_period", "mean")):
                apart = {name: _compare(by[at], part[other][at]) for name, by in part.items() if name != other}
                for name, comparison in holm(apart).items():
                    scores[regime][name].setdefault(f"against_{other}", {})[at] = comparison
            for at, (kind, a, b) in itertools.product(rmse[lead], pairs):
                table.setdefault((kind, at), {})[a, b, regime] = _compare(part[a][at], part[b][at])
        nested: dict[str, Any] = {kind: {} for kind in kinds}
        for (kind, at), together in table.items():
            for (a, b, regime), comparison in holm(together).items():
                nested[kind].setdefault(a, {}).setdefault(b, {}).setdefault(regime, {})[at] = comparison
        horizons = {name: models[name][0] for name in row}
        return {"scores": scores, "lead": lead, "horizons": horizons, "pairs": nested}

    def _lyapunov(self, source: Source, sample: Sample, key: jax.Array) -> dict[str, Any]:
        """Largest exponents over currents of each regime, and how fast errors double where they are chaotic."""
        chosen = np.linspace(0, self.currents - 1, min(self.lyapunov_currents, self.currents)).round().astype(int)
        places = np.arange(len(self.regimes))[:, None] * self.currents + chosen
        currents = sample.values[places, 0, -1]
        exponents = lyapunov_of_currents(
            source, currents.reshape(-1), warmup=500.0, duration=self.lyapunov_ms, block=5.0, key=key
        ).reshape(currents.shape)
        found = {}
        for (regime, _), drive, growth in zip(self._each, currents, exponents, strict=True):
            chaotic = growth[growth > self.chaotic_per_ms]
            found[regime] = {
                "currents": drive.tolist(),
                "per_ms": growth.tolist(),
                "range_per_s": [1e3 * float(growth.min()), 1e3 * float(growth.max())],
                "chaotic": len(chaotic),
                "doubling_ms": float(np.log(2) / chaotic.mean()) if len(chaotic) else None,
            }
        return found

    def _times(self, study: Study, source: Source, sample: Sample, steps: int) -> dict[str, Any]:
        """Seconds for a batch of rollouts, and for the same job by the simulator: the least of five rounds."""
        index = np.arange(self.timed) % len(sample.current)
        currents, targets = sample.cut(index, 0, 1)[:, 0, -1], study.config.targets

        def simulator(_: np.ndarray) -> Any:
            return jax.block_until_ready(_simulate(source, currents, self.rollout_ms, study.key, targets))

        def seconds(job: Callable[[np.ndarray], Any]) -> float:
            began = time.perf_counter()
            job(index)
            return time.perf_counter() - began

        jobs: dict[str, Callable] = {"simulator": simulator}
        for name, models in study.models.items():
            jobs[name] = _roller(models[0], study.windows_of[name], sample, steps, self.batch_size)
        for job in jobs.values():
            job(index)
        rounds = [{name: seconds(job) for name, job in jobs.items()} for _ in range(5)]
        took = {name: [r[name] for r in rounds] for name in jobs}
        apart = {
            name: compare(took[name], took["simulator"], paired_by="round", unit="s", higher_is_better=False)
            for name in study.models
        }
        least = {name: min(t) for name, t in took.items()}
        return {"examples": self.timed, "seconds": least, "against_simulator": holm(apart)}

    def section(self, findings: Findings) -> Section:
        """Each regime against repetition, each thing in which models differ, chaos, and what it costs."""
        numbers = findings.numbers
        scores, seconds = numbers["scores"], dict(numbers["timing"]["seconds"])
        row, longer = list(numbers["horizons"]), numbers["pairs"]["horizon"]
        at = f"{min(self.at_ms, key=lambda t: abs(t - self.judged_ms)):g}"

        def along(key: str, digits: int) -> str:
            return "; ".join(f"{r} {', '.join(quantity(s[n][key], digits) for n in row)}" for r, s in scores.items())

        own = seconds.pop("simulator")
        names = {
            "along": along,
            "at": at,
            "fastest": min(seconds, key=lambda n: seconds[n]),
            "longer": [c["whole"].verdict for b in longer.values() for r in b.values() for c in r.values()],
            "times": [f"{t:g}" for t in self.at_ms],
        }
        rows = [(n, quantity(t, 3), quantity(t / own, 2)) for n, t in numbers["timing"]["seconds"].items()]
        title = f"Time for {numbers['timing']['examples']} examples of {numbers['settings']['rollout_ms']:g} ms"
        parts = [
            *(_table(regime, found, names["times"], at) for regime, found in scores.items()),
            Table(title, ("what", "seconds", "times the simulator's"), rows),
            Plot(
                "rollout_errors",
                "Error against time",
                "Root-mean-square error over all z-scored states against the time ahead, for every model and baseline, "
                "one panel for each regime; a thick grey line grows with the largest Lyapunov exponent.",
                "A model is of use while it lies below the baselines (grey and black). The thick line starts at the "
                "least error of any model in the first millisecond: where the cell is chaotic, errors grow at least so "
                "fast; where it is not, it is flat, and all growth above it is the model's own.",
                _draw_errors(findings, self.chaotic_per_ms),
            ),
            Plot(
                "rollout_traces",
                "Traces",
                "Potential against the time ahead in one example of each regime: the true one in grey, and the last "
                "period repeated, the shortest and the longest horizon in colour.",
                "What goes wrong first is the time of the spikes.",
                _draw_traces(findings),
            ),
        ]
        return Section("Rolled out beyond the horizon", _TEXT, parts, names)


def _compare(first: Float[np.ndarray, "seed current"], second: Float[np.ndarray, "other current"]) -> Comparison:
    """Compare errors in pairs: of seeds where both predictors have several, else of currents."""
    count = min(len(first), len(second))
    by, axis = ("seed", 1) if count > 1 else ("current", 0)
    if count > 1:
        first, second = first[:count], second[:count]
    return compare(first.mean(axis), second.mean(axis), paired_by=by, unit="SD", higher_is_better=False)


def _simulate(
    source: Source, currents: np.ndarray, duration: float, key: Key[Array, ""], record: Sequence[str]
) -> Mapping[str, Array]:
    """Cells of one population, each with a current of its own."""
    drive = Constant(jnp.asarray(currents, jnp.float32))
    how = {"dt": source.dt, "solver": source.solver, "record_every": source.record_every}
    return simulate(source.simulator, drive, duration=duration, key=key, record=record, **how).values


def _mean(values: list[np.ndarray]) -> float:
    """Mean of what is finite; NaN if nothing is."""
    finite = np.concatenate(values)[np.isfinite(np.concatenate(values))]
    return float(finite.mean()) if len(finite) else float("nan")


def _roller(model: nnx.Module, windows: Windows, sample: Sample, steps: int, batch_size: int) -> Predict:
    """A model's rollouts, from its own windows."""
    known = np.asarray(windows.known_columns)
    seen = slice(None) if windows.input_columns is None else np.asarray(windows.input_columns)

    def predict(index: np.ndarray) -> np.ndarray:
        past = windows.scaling.apply(jnp.asarray(sample.cut(index, 1 - windows.length, windows.length)))
        ahead = windows.scaling.apply(jnp.asarray(sample.cut(index, 1, steps)))[..., known]
        out = rollout(
            model, past[..., seen], ahead, steps, horizons=windows.horizons, input_columns=windows.input_columns,
            target_columns=windows.target_columns, known_columns=windows.known_columns, batch_size=batch_size,
        )  # fmt: skip
        return np.asarray(windows.target_scaling.invert(out))

    return predict


def _described(study: Study, name: str) -> dict[str, Any]:
    """What distinguishes a predictor."""
    if name not in study.models:
        return {"kind": "baseline"}
    model, windows = study.models[name][0], study.windows_of[name]
    return {
        "kind": "model",
        "steps": windows.length,
        "seeds": len(study.models[name]),
        "scaled": bool(np.any(np.asarray(windows.scaling.scale) != 1)),
        "order": model.reading_order() if isinstance(model, SupportsReadingOrder) else None,
    }


def _table(regime: str, scores: Mapping[str, Any], times: Sequence[str], at: str) -> Table:
    """Every predictor of a regime."""
    columns = ("predictor", *(f"RMSE at {t} ms [SD]" for t in times), f"of v at {at} ms [mV]", "valid for [ms]")
    columns += ("spikes matched", "spike error [ms]", "van Rossum D²", "Victor–Purpura D", "spikes")
    rows = []
    for name, s in scores.items():
        apart = s.get("against_last_period", {})
        rmse = [estimate(s["rmse"][t]["mean"], s["rmse"][t]["ci95"], 2) for t in times]
        stars = ["*" if t in apart and apart[t].verdict == "better" else "" for t in times]
        rest = [quantity(s["v_rmse_mv"][at], 2), quantity(s["valid_ms"], 1), f"{quantity(100 * s['coincidence'], 0)} %"]
        rest += [quantity(s[k], d) for k, d in (("spike_error_ms", 2), ("van_rossum", 1), ("victor_purpura", 1))]
        spikes = f"{quantity(s['spikes'], 1)} of {quantity(s['true_spikes'], 1)}"
        rows.append((name, *map("".join, zip(rmse, stars, strict=True)), *rest, spikes))
    star = "a star: better than the last period repeated, at 95 % for each column"
    return Table(f"Rollouts, {regime}; {star}", columns, rows)


_HIGHEST = 4.0
"""Errors above this are not shown [SD]."""


def _styles(numbers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Colour and line of every predictor."""
    greys = {"mean": ("#b0b0b0", ":"), "last_period": (INK, "-"), "nearest": ("#777777", "--")}
    models = [n for n, p in numbers["predictors"].items() if p["kind"] == "model"]
    coloured = {n: ((*COLOURS, "#D55E00", "#E69F00")[i % 6], "-") for i, n in enumerate(models)}
    return {n: {"color": c, "linestyle": line} for n, (c, line) in (greys | coloured).items()}


def _draw_errors(findings: Findings, chaotic: float) -> "Figure":
    """Error over all states against time, a panel for each regime, with the growth that chaos imposes."""
    numbers, arrays = findings
    regimes = list(numbers["scores"])
    figure, axes = panels(2.3 * len(regimes) + 0.9, rows=len(regimes), sharex=True)
    for i, (regime, ax) in enumerate(zip(regimes, axes, strict=True)):
        curves = {n: np.sqrt(np.square(arrays[f"rmse_by_state.{n}"][1][i]).mean(1)) for n in numbers["predictors"]}
        at = np.arange(1, len(next(iter(curves.values()))) + 1)
        # Root mean square over the tenth of the time before: what scores state.
        before = np.minimum(at - 1, np.round(0.9 * at).astype(int))
        for name, style in _styles(numbers).items():
            if np.nanmin(curves[name]) < _HIGHEST:
                total = np.concatenate([[0.0], np.cumsum(np.square(curves[name]))])
                ax.plot(at, np.sqrt((total[at] - total[before]) / (at - before)), linewidth=1.2, label=name, **style)
        first = min(c[0] for n, c in curves.items() if numbers["predictors"][n]["kind"] == "model")
        rate = 1e-3 * number(numbers["lyapunov"][regime]["range_per_s"][1])
        growth = first * np.exp((rate if rate > chaotic else 0.0) * at)
        ax.plot(at, np.where(growth < 2, growth, np.nan), color=INK, linewidth=2.2, alpha=0.35, label="exp λt")
        ax.set_title(regime, fontsize=10, loc="left")
        ax.set(ylabel="RMSE [SD]", xscale="log", yscale="log", ylim=(0.01, _HIGHEST))
    axes[-1].set_xlabel("time ahead [ms]")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _draw_traces(findings: Findings) -> "Figure":
    """The potential of one example of each regime: true, its last period repeated, and two models'."""
    numbers, arrays = findings
    regimes, styles, dt = list(numbers["scores"]), _styles(numbers), numbers["settings"]["dt"]
    row = list(numbers["horizons"])
    names = list(dict.fromkeys(["last_period", row[0], row[-1]]))
    count = len(regimes) * len(names)
    figure, axes = panels(1.25 * count + 0.6, rows=count, sharex=True, sharey=True)
    for k, ax in enumerate(axes):
        i, name = k // len(names), names[k % len(names)]
        truth, drawn = (arrays[f"trace.{n}"][1][i][: round(200 / dt)] for n in ("truth", name))
        at = dt * np.arange(1, len(truth) + 1)
        ax.plot(at, truth, color="#b0b0b0", linewidth=1.6)
        ax.plot(at, drawn, color=styles[name]["color"], linewidth=0.9)
        ax.set_title(f"{regimes[i]}: {name}", fontsize=9, loc="left")
        ax.set_ylim(-90, 40)
    axes[count // 2].set_ylabel("v [mV]")
    axes[-1].set_xlabel("time ahead [ms]")
    return figure
