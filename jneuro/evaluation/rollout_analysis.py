"""Forecasters of a driven cell rolled out far beyond their horizon, regime by regime, beside what needs no model."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from pydantic import Field, model_validator

from jneuro.core.config import Config
from jneuro.core.random import stream
from jneuro.core.types import Float
from jneuro.datasets import WindowConfig, Windows
from jneuro.evaluation.analysis import Analysis, Findings, Source, Study
from jneuro.evaluation.lyapunov import lyapunov_of_currents
from jneuro.evaluation.metrics import interval
from jneuro.evaluation.protocols import SupportsReadingOrder
from jneuro.evaluation.repetition import nearest, period, repeat_period
from jneuro.evaluation.rollout_scores import Predict, RolloutScores, Sample, score_rollouts
from jneuro.evaluation.rollouts import rollout
from jneuro.simulators import ODESimulator, simulate
from jneuro.simulators.stimuli import Constant

__all__ = ["Regime", "RolloutAnalysis"]


class Regime(Config):
    """A band of currents in which a cell behaves alike.

    Attributes:
        name: of the behaviour.
        low: the lowest current.
        high: the highest.
    """

    name: str
    low: float
    high: float


_PLASTER_KUMAR = (
    Regime(name="bursting", low=0.24, high=0.79),
    Regime(name="irregular", low=0.79, high=2.3),
    Regime(name="spiking", low=2.3, high=3.0),
)


class RolloutAnalysis(Analysis):
    """How far forecasters of a cell under constant currents see, and what limits them.

    New currents are drawn in every regime, simulated, and rolled out from random moments. Models see their own windows;
    `last_period` sees `past_ms`, `nearest` looks up the training state nearest to the present one (states and current,
    in z-scores) and predicts what followed it, and `mean` is the mean of the training runs of the regime.

    Attributes:
        regimes: bands of currents.
        currents: drawn in each regime.
        states: moments from which each current's trajectory is predicted.
        rollout_ms: how far [ms].
        past_ms: what precedes every moment [ms].
        spread_ms: the moments lie this far apart at most [ms].
        at_ms: the times at which errors are stated [ms]: each a mean over the tenth before it.
        valid_error: a forecast is valid until the root mean square over all z-scored states exceeds this.
        tolerance_ms: spikes farther apart do not match [ms].
        tau_ms: time constant of van Rossum's distance [ms].
        cost_per_ms: q of Victor and Purpura's distance [1/ms]; spikes farther apart than 2/q do not match.
        batch_size: examples rolled out together.
        candidates: most training states among which the nearest is sought.
        lyapunov_currents: currents of each regime, spread evenly, for which the largest Lyapunov exponent is computed.
        lyapunov_ms: time over which growth is averaged [ms], after 500 ms.
        timed: examples rolled out together when time is taken.
    """

    name: Literal["rollout"] = "rollout"
    regimes: tuple[Regime, ...] = Field(default=_PLASTER_KUMAR, min_length=1)
    currents: int = Field(default=50, ge=2)
    states: int = Field(default=100, ge=1)
    rollout_ms: float = Field(default=500.0, gt=0)
    past_ms: float = Field(default=400.0, gt=0)
    spread_ms: float = Field(default=300.0, gt=0)
    at_ms: tuple[float, ...] = Field(default=(1.0, 10.0, 100.0, 500.0), min_length=1)
    valid_error: float = Field(default=0.4, gt=0)
    tolerance_ms: float = Field(default=2.0, gt=0)
    tau_ms: float = Field(default=10.0, gt=0)
    cost_per_ms: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=1000, ge=1)
    candidates: int = Field(default=500_000, ge=1)
    lyapunov_currents: int = Field(default=10, ge=1)
    lyapunov_ms: float = Field(default=4000.0, gt=0)
    timed: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _within(self) -> Self:
        if max(self.at_ms) > self.rollout_ms:
            raise ValueError(f"at_ms holds {max(self.at_ms):g}, which lies beyond rollout_ms = {self.rollout_ms:g}")
        return self

    def check(self, windows: WindowConfig, models) -> None:
        """Needs states that are fed back, the potential first, and one current that is known ahead."""
        if windows.targets[0] != "v" or windows.known != ("current",) or windows.variables != windows.observed:
            raise ValueError("rollout needs targets that begin with v, known: [current], and both among the inputs")
        if windows.horizons_ms != "next_window" or windows.scaling != "zscore":
            raise ValueError("rollout needs horizons_ms: next_window and, for errors in z-scores, scaling: zscore")

    def analyse(self, study: Study) -> Findings:
        """Roll out all models and what needs none; compare by regime."""
        source, windows = study.source, study.windows
        if source is None or not isinstance(source.simulator, ODESimulator) or source.simulator.has_reset:
            raise ValueError("rollout needs the simulator behind the recording, one of ordinary differential equations")
        steps = round(self.rollout_ms / windows.dt)
        if steps >= windows.frames_per_trial:
            raise ValueError(f"rollout_ms = {self.rollout_ms:g} must be shorter than the recording's runs")
        sample = self._sample(study, source)
        predictors = {f"{n}": [p] for n, p in self._baselines(windows, sample, steps).items()}
        for name, models in study.models.items():
            predictors[name] = [_roller(m, study.windows_of[name], sample, steps, self.batch_size) for m in models]
        scores: dict[str, list[RolloutScores]] = {}
        traces = {"truth": self._examples(sample, lambda i: sample.cut(i, 1, steps))}
        for name, many in predictors.items():
            study.tell(f"rollout of {name}")
            scores[name] = [self._score(p, sample, windows, steps) for p in many]
            traces[name] = self._examples(sample, many[0])
        study.tell("Lyapunov exponents")
        numbers = {
            "settings": {"dt": windows.dt, **self.model_dump(exclude={"name", "regimes"})},
            "states": list(study.config.targets),
            "predictors": {n: _described(study, n) for n in predictors},
            "scores": self._numbers(scores, sample.regime),
            "lyapunov": self._lyapunov(source, sample, stream(study.key, "lyapunov")),
        }
        study.tell("times of rollouts")
        numbers["timing"] = self._times(study, source, sample, steps)
        arrays: dict[str, Any] = {f"trace.{n}": (("regime", "step"), t) for n, t in traces.items()}
        for name, seeds in scores.items():
            rmse = np.sqrt(np.mean([[s.squared[sample.regime == r].mean(0) for r in self._each] for s in seeds], 0))
            arrays[f"rmse_by_state.{name}"] = (("regime", "bin", "state"), rmse)
        return Findings(numbers, arrays)

    @property
    def _each(self) -> range:
        return range(len(self.regimes))

    def _sample(self, study: Study, source: Source) -> Sample:
        """Simulate new currents of every regime, and choose moments."""
        rng = np.random.default_rng(np.asarray(jax.random.key_data(stream(study.key, "rollout"))))
        drawn = np.sort([rng.uniform(r.low, r.high, self.currents) for r in self.regimes]).reshape(-1)
        dt, config = study.windows.dt, study.config
        past, spread, ahead = (round(ms / dt) for ms in (self.past_ms, self.spread_ms, self.rollout_ms))
        recording = simulate(
            source.simulator,
            Constant(jnp.asarray(drawn, jnp.float32)),
            duration=(past + spread + ahead) * dt,
            key=stream(study.key, "rollout"),
            dt=source.dt,
            solver=source.solver,
            record=config.variables,
            record_every=source.record_every,
        )
        values = np.stack([np.asarray(recording.values[n]).T for n in config.variables], axis=2)
        regime, current = np.repeat(self._each, self.currents), np.repeat(np.arange(len(drawn)), self.states)
        return Sample(values, regime, current, past - 1 + rng.integers(spread, size=len(current)))

    def _baselines(self, windows: Windows, sample: Sample, steps: int) -> dict[str, Predict]:
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

    def _score(self, predict: Predict, sample: Sample, windows: Windows, steps: int) -> RolloutScores:
        return score_rollouts(
            predict, sample, np.asarray(windows.target_scaling.scale), windows.dt, steps,
            batch_size=self.batch_size, valid_error=self.valid_error, tolerance=self.tolerance_ms, tau=self.tau_ms,
            cost=self.cost_per_ms,
        )  # fmt: skip

    def _examples(self, sample: Sample, predict: Predict) -> Float[np.ndarray, "regime step"]:
        """Potentials of one example of each regime: the first moment of its middle current."""
        middle = (np.arange(len(self.regimes)) * self.currents + self.currents // 2) * self.states
        return np.asarray(predict(middle)[..., 0], np.float32)

    def _numbers(self, scores: Mapping[str, list[RolloutScores]], regime: np.ndarray) -> dict[str, Any]:
        """Scores by regime and predictor, with 95 % intervals over currents, and against the last period repeated."""
        found: dict[str, Any] = {}
        for i, r in enumerate(self.regimes):
            of = {n: np.stack([s.squared[regime == i] for s in seeds]) for n, seeds in scores.items()}
            rmse = {n: {f"{t:g}": _around(v, t) for t in self.at_ms} for n, v in of.items()}
            found[r.name] = {}
            for name, seeds in scores.items():
                entry: dict[str, Any] = {"rmse": {}, "against_last_period": {}}
                for at, by_current in rmse[name].items():
                    mean = by_current.mean(0)
                    entry["rmse"][at] = {"mean": mean.mean(), "ci95": interval(mean), "seeds": by_current.mean(1)}
                    less = rmse["last_period"][at].mean(0) - mean
                    entry["against_last_period"][at] = {"gain": less.mean(), "ci95": interval(less)}
                entry["v_rmse_mv"] = {
                    f"{t:g}": _around(of[name][..., :1] * seeds[0].scale[0] ** 2, t).mean() for t in self.at_ms
                }
                entry["rmse_whole"] = np.sqrt(of[name].mean((2, 3))).mean()
                entry |= {k: _mean([s.by_current[k][regime == i] for s in seeds]) for k in _BY}
                found[r.name][name] = _plain(entry)
        return found

    def _lyapunov(self, source: Source, sample: Sample, key: jax.Array) -> dict[str, Any]:
        chosen = np.linspace(0, self.currents - 1, min(self.lyapunov_currents, self.currents)).round().astype(int)
        places = np.arange(len(self.regimes))[:, None] * self.currents + chosen
        currents = sample.values[places, 0, -1]
        exponents = lyapunov_of_currents(
            source, currents.reshape(-1), warmup=500.0, duration=self.lyapunov_ms, block=5.0, key=key
        ).reshape(currents.shape)
        return {
            r.name: {"currents": c.tolist(), "per_ms": e.tolist()}
            for r, c, e in zip(self.regimes, currents, exponents, strict=True)
        }

    def _times(self, study: Study, source: Source, sample: Sample, steps: int) -> dict[str, Any]:
        """Seconds for a batch of rollouts, and for the same job by the simulator: the least of five."""
        index = np.arange(self.timed) % len(sample.current)
        drive = Constant(jnp.asarray(sample.cut(index, 0, 1)[:, 0, -1]))

        def simulator(_: np.ndarray) -> Any:
            run = simulate(
                source.simulator, drive, duration=self.rollout_ms, key=study.key, dt=source.dt, solver=source.solver,
                record=study.config.targets, record_every=source.record_every,
            )  # fmt: skip
            return jax.block_until_ready(run.values)

        jobs: dict[str, Callable] = {"simulator": simulator}
        for name, models in study.models.items():
            jobs[name] = _roller(models[0], study.windows_of[name], sample, steps, self.batch_size)
        for job in jobs.values():
            job(index)
        rounds = [{name: _seconds(job, index) for name, job in jobs.items()} for _ in range(5)]
        return {"examples": self.timed, "seconds": {name: min(r[name] for r in rounds) for name in jobs}}


_BY = ("valid_ms", "coincidence", "spike_error_ms", "van_rossum", "victor_purpura", "spikes", "true_spikes")
"""Scores that are one number for each example."""


def _around(squared: Float[np.ndarray, "seed current bin state"], at: float) -> Float[np.ndarray, "seed current"]:
    """Root mean square over the tenth of the time before `at` ms, in bins of 1 ms; the nearest bin at least."""
    last = max(1, round(at))
    first = min(last - 1, round(0.9 * at))
    return np.sqrt(squared[:, :, first:last].mean((2, 3)))


def _mean(values: list[np.ndarray]) -> float:
    """Mean of what is finite; NaN if nothing is."""
    finite = np.concatenate(values)[np.isfinite(np.concatenate(values))]
    return float(finite.mean()) if len(finite) else float("nan")


def _plain(value: Any) -> Any:
    """Python numbers and lists, for JSON."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _seconds(job: Callable[[np.ndarray], Any], index: np.ndarray) -> float:
    began = time.perf_counter()
    job(index)
    return time.perf_counter() - began


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
