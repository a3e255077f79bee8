"""Does a simulator, a stimulus, a measure or a model of one's own keep what its kind promises?

Each `check_*` runs one suite of small checks, as scikit-learn's `check_estimator` does: gradients against differences in
double precision, vmapped = looped, dtypes, independence of batch and chunk, serialisation. All that fail are listed in
one `ContractError`, each with the promise, what was found, and the remedy.

    def test_my_cell():
        jneuro.testing.check_simulator(MyCell(), stimulus=jn.stimuli.Constant(0.5))
"""

import dataclasses
import functools
import inspect
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree

from jneuro.core.devices import double_precision
from jneuro.core.random import stream
from jneuro.core.types import Array, Float, Key, PyTree
from jneuro.datasets.windows import Batch
from jneuro.models import build_model
from jneuro.models.base import ModelConfig, Prediction
from jneuro.simulators.base import parameters
from jneuro.simulators.ode import ODESimulator
from jneuro.simulators.simulation import first_state, simulate
from jneuro.simulators.stepped import SteppedSimulator
from jneuro.simulators.stimuli import Stimulus

__all__ = ["ContractError", "check_model", "check_simulator", "check_stimulus"]


class ContractError(AssertionError):
    """An object breaks promises of its kind.

    Attributes:
        promises: the names of those that it breaks.
    """

    def __init__(self, about: str, kind: str, broken: "Sequence[tuple[_Promise, str]]"):
        self.promises = tuple(promise.name for promise, _ in broken)
        lines = [f"{about} breaks {len(broken)} promise{'s' * (len(broken) > 1)} of a {kind}:"]
        for promise, found in broken:
            lines.append(f"  {promise.name}: {promise.text}.\n    Found: {found}\n    Remedy: {promise.remedy}.")
        super().__init__("\n".join(lines))


class _Promise(NamedTuple):
    """One promise of a kind, and the check that says what is found where it is broken.

    Attributes:
        name: for `ContractError.promises`.
        text: the promise, in a sentence.
        remedy: what to do about it.
        check: given the case, returns what was found, or None where the promise is kept.
        first: the rest is not asked where this one is broken.
    """

    name: str
    text: str
    remedy: str
    check: Callable[[Any], str | None]
    first: bool


def _promise(suite: list[_Promise], name: str, text: str, remedy: str, first: bool = False):
    """Append a check to a suite."""

    def append(check: Callable[[Any], str | None]):
        suite.append(_Promise(name, text, remedy, check, first))
        return check

    return append


def _verify(about: str, kind: str, suite: Sequence[_Promise], case: Any, skip: Sequence[str]) -> None:
    """Ask all promises; raise one error that lists those that are broken."""
    names = [p.name for p in suite]
    if unknown := [s for s in skip if s not in names]:
        raise ValueError(f"skip: a {kind} has no promise {unknown[0]!r}; it has {', '.join(names)}")
    broken: list[tuple[_Promise, str]] = []
    for promise in suite:
        if promise.name in skip:
            continue
        try:
            found = promise.check(case)
        except Exception as error:  # whatever code of one's own raises is what was found
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        if found is not None:
            broken.append((promise, found))
            if promise.first:
                break
    if broken:
        raise ContractError(about, kind, broken)


def _name(thing: Any) -> str:
    return getattr(thing, "__qualname__", None) or type(thing).__qualname__


# What all kinds share ------------------------------------------------------------------------------------------------


def _double(tree: PyTree) -> PyTree:
    """A tree with its floating-point arrays in double precision; inside `double_precision`."""
    return jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, tree)


def _same(a: PyTree, b: PyTree) -> bool:
    """Whether two trees are the same to the last bit, NaN included."""
    return bool(eqx.tree_equal(*(jax.tree.map(_bits, t) for t in (a, b))))


def _bits(x: Any) -> Any:
    if not isinstance(x, jax.Array | np.ndarray):
        return x
    x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return np.asarray(x).tobytes(), np.shape(x), str(x.dtype)


def _apart(a: PyTree, b: PyTree) -> str | None:
    """How far two trees of arrays are apart, where that is more than single precision explains."""
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if x.shape != y.shape:
            return f"shapes {x.shape} and {y.shape}"
        x, y = x.astype(np.float64), y.astype(np.float64)
        if (np.isfinite(x) != np.isfinite(y)).any():
            return "values that are finite in one and not in the other"
        known = np.isfinite(x)
        off = np.abs(x - y)[known]
        if off.size and off.max() > 2e-5 * max(1e-3, float(np.abs(x[known]).max())):
            return f"values that differ by {off.max():.3g}, of {np.abs(x[known]).max():.3g}"
    return None


def _reloaded(tree: PyTree) -> str | None:
    """What `eqx.tree_serialise_leaves` and its reading back change."""
    arrays, rest = eqx.partition(_plain_keys(tree), eqx.is_array)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, arrays)
    file.seek(0)
    back = eqx.tree_deserialise_leaves(file, jax.tree.map(jnp.zeros_like, arrays))
    if not _same(arrays, back):
        return "arrays that are not those that were written"
    numbers = [x for x in jax.tree.leaves(rest) if isinstance(x, float | complex | np.generic)]
    return f"leaves that are no arrays, and are not written: {numbers[0]!r}" if numbers else None


def _plain_keys(tree: PyTree) -> PyTree:
    """Random keys as the words that stand for them, which can be written."""
    typed = lambda x: eqx.is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: jax.random.key_data(x) if typed(x) else x, tree)


def _slope_fault(f: Callable[[PyTree], Float[Array, ""]], at: PyTree, *, forward: bool = True) -> str | None:
    """How a gradient differs from central differences, along one random direction, in double precision.

    Args:
        f: from the floating-point arrays of something to a number.
        at: those arrays, in double precision; each moves in proportion to its size.
        forward: whether forward mode is asked too.

    Returns:
        What is wrong, or None.
    """
    flat, back = ravel_pytree(at)
    finite = np.isfinite(np.asarray(flat))
    draws = np.random.default_rng(7).uniform(0.5, 1.5, flat.shape)
    way = jnp.where(finite, draws * jnp.abs(jnp.where(finite, flat, 0)), 0)

    @jax.jit
    def slopes(flat, way, h):
        g = lambda e: f(back(jnp.where(way == 0, flat, flat + e * way)))  # noqa: E731
        value, pull = jax.vjp(lambda x: f(back(x)), flat)
        reverse = jnp.vdot(jnp.where(way == 0, 0, pull(jnp.ones_like(value))[0]), way)
        ahead = jax.jvp(g, (jnp.zeros(()),), (jnp.ones(()),))[1] if forward else reverse
        below, above = jax.lax.map(g, jnp.stack([-h, h]))
        return value, reverse, ahead, (above - below) / (2 * h)

    value, reverse, ahead, wanted = (float(x) for x in slopes(flat, way, jnp.asarray(1e-6)))
    margin = 1e-5 * abs(wanted) + 1e-7 * (1 + abs(value))
    for mode, slope in (("reverse", reverse), ("forward", ahead)):
        if not abs(slope - wanted) <= margin:
            return f"{mode} mode says {slope:.8g}, central differences say {wanted:.8g}"
    return None


# Stimuli -------------------------------------------------------------------------------------------------------------

_STIMULUS: list[_Promise] = []


class _StimulusCase:
    """A stimulus, and its values at many times."""

    def __init__(self, stimulus: Any, duration: float):
        self.stimulus, self.duration = stimulus, duration
        # Steps that no stimulus has, so that few of these times fall on an edge.
        self.times = np.linspace(-0.0973, 1.0411, 1001) * duration
        self.many = eqx.filter_jit(lambda stimulus, times: jax.vmap(stimulus)(times))

    @functools.cached_property
    def values(self) -> np.ndarray:
        return np.asarray(self.many(self.stimulus, jnp.asarray(self.times, jnp.float32)))

    @functools.cached_property
    def jumps(self) -> np.ndarray:
        return np.asarray(self.stimulus.jumps(), np.float64)


@_promise(
    _STIMULUS,
    "kind",
    "a stimulus is a jneuro Stimulus, a frozen pytree",
    "derive the class from jneuro.Stimulus, and pass an instance",
    first=True,
)
def _(case):
    return None if isinstance(case.stimulus, Stimulus) else f"{type(case.stimulus).__mro__[-2].__qualname__}"


@_promise(
    _STIMULUS,
    "value",
    "at a time [ms] it is a floating-point array, of one shape at all times",
    "return an array, such as self.amplitude * jnp.sin(t), of the shape of the neurons or ()",
    first=True,
)
def _(case):
    seen = [case.stimulus(jnp.float32(t)) for t in (0.0, case.times[500])]
    for value in seen:
        if not (isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jnp.floating)):
            return f"{type(value).__name__} {value!r}"
    return None if seen[0].shape == seen[1].shape else f"shapes {seen[0].shape} and {seen[1].shape}"


@_promise(
    _STIMULUS,
    "traceable",
    "it can be traced by JAX: jitted, and vmapped over times, it gives what it gives time by time",
    "compute with jax.numpy, and choose with jnp.where rather than `if t > onset`",
    first=True,
)
def _(case):
    some = slice(100, 1000, 225)
    looped = [case.stimulus(jnp.float32(t)) for t in case.times[some]]
    if (found := _apart(jnp.stack(looped), case.values[some])) is not None:
        return found
    copies = jax.tree.map(lambda x: jnp.stack([x, x]), eqx.filter(case.stimulus, eqx.is_array))
    batch = eqx.combine(copies, case.stimulus)
    both = eqx.filter_vmap(lambda s, t: s(t), in_axes=(eqx.if_array(0), None))(batch, jnp.float32(case.times[500]))
    return _apart(both[1], case.values[500])


@_promise(
    _STIMULUS,
    "pure",
    "it depends on nothing but its leaves and t: the same time gives the same value",
    "draw random numbers from a key that is a field, by the number of the time step, as stimuli.WhiteNoise does",
)
def _(case):
    t = jnp.float32(case.times[500])
    first, second = case.stimulus(t), case.stimulus(t)
    return None if _same(first, second) else f"{np.asarray(first)} and then {np.asarray(second)}"


@_promise(
    _STIMULUS,
    "finite",
    "it is finite at all times, before its onset and after its end too",
    "look for a division by zero, and choose the argument, not only the result, with jnp.where",
)
def _(case):
    bad = ~np.isfinite(case.values.reshape(len(case.times), -1)).all(1)
    return f"{case.values[bad][0]} at t = {case.times[bad][0]:.4g} ms" if bad.any() else None


@_promise(
    _STIMULUS,
    "dtype",
    "it keeps the precision of its leaves and of t: float32 without x64, float64 with it",
    "make constants Python numbers, and arrays with jnp.asarray(x, jnp.result_type(float))",
)
def _(case):
    if case.values.dtype != np.float32:
        return f"{case.values.dtype} of float32"
    with double_precision():
        wide = jax.eval_shape(lambda s, t: s(t), _double(case.stimulus), jnp.float64(1.0))
    return None if wide.dtype == jnp.float64 else f"{wide.dtype} of float64"


@_promise(
    _STIMULUS,
    "jumps",
    "jumps() lists the times at which its value jumps, for solvers that choose their own steps",
    "return these times from jumps(), as an array of one axis",
)
def _(case):
    if case.jumps.ndim != 1 or np.isnan(case.jumps).any():
        return f"jumps() of shape {case.jumps.shape}, {case.jumps}"
    signal = np.nan_to_num(case.values.reshape(len(case.times), -1).astype(np.float64))
    spread = np.ptp(signal, 0).max()
    changes = np.where(case.times[:-1] < 0, 0, np.abs(np.diff(signal, axis=0)).max(1))
    at = np.argsort(changes)[-16:]
    low, high = np.float32(case.times[at]), np.float32(case.times[at + 1])
    sizes = changes[at]
    # Halved until the ends are neighbours among floating-point numbers: only a jump is left then.
    for _ in range(26):
        middle = ((low.astype(np.float64) + high) / 2).astype(np.float32)
        pad = np.concatenate([low, middle, high, np.full(len(case.times) - 3 * len(low), high[0], np.float32)])
        seen = np.asarray(case.many(case.stimulus, jnp.asarray(pad)), np.float64).reshape(len(pad), -1)
        left, inner, right = (seen[i * len(low) : (i + 1) * len(low)] for i in range(3))
        first = np.abs(inner - left).max(1) >= np.abs(right - inner).max(1)
        low, high = np.where(first, low, middle), np.where(first, middle, high)
        sizes = np.maximum(np.abs(inner - left).max(1), np.abs(right - inner).max(1))
    for size, when in zip(sizes, high, strict=True):
        listed = np.abs(case.jumps - when).min(initial=np.inf)
        if size > 1e-2 * spread > 0 and listed > 1e-5 * (abs(when) + case.duration):
            return f"a jump by {size:.4g} at t = {when:.6g} ms that jumps() does not list"
    return None


@_promise(
    _STIMULUS,
    "gradient",
    "its derivatives with respect to its leaves (amplitudes, times) are those of its values",
    "check custom_jvp and custom_vjp rules and stop_gradient; make every number a leaf, jnp.asarray, not a static field",
)
def _(case):
    near = np.abs(case.times[:, None] - case.jumps).min(1, initial=np.inf) if case.jumps.size < 1e5 else np.inf
    times = case.times[np.broadcast_to(near > 1e-4 * case.duration, case.times.shape)][::7]
    if not times.size:
        return None
    with double_precision():
        arrays, rest = eqx.partition(_double(case.stimulus), eqx.is_inexact_array)
        if not jax.tree.leaves(arrays):
            return None
        weights = jnp.asarray(np.random.default_rng(3).normal(size=len(times)))
        whole = jnp.asarray(times)
        total = lambda a: jnp.sum(weights @ jax.vmap(eqx.combine(a, rest))(whole).reshape(len(times), -1))  # noqa: E731
        return _slope_fault(total, arrays)


@_promise(
    _STIMULUS,
    "serialisation",
    "all its numbers are array leaves, written and read back by equinox's tree_serialise_leaves",
    "convert numbers with eqx.field(converter=jnp.asarray); what is structure is static",
)
def _(case):
    return _reloaded(case.stimulus)


def check_stimulus(stimulus: Stimulus, *, duration: float = 100.0, skip: Sequence[str] = ()) -> None:
    """Check that a stimulus keeps the promises of its kind.

    They are: kind, value, traceable, pure, finite, dtype, jumps, gradient, serialisation.

    Args:
        stimulus: an instance.
        duration: of the stretch that is looked at [ms], from a little before 0; it should see every part.
        skip: names of promises that are not asked.

    Raises:
        ContractError: naming each promise that is broken, what was found, and the remedy.
        ValueError: if `skip` names an unknown promise.

    Example:
        >>> import jneuro as jn
        >>> jn.testing.check_stimulus(jn.stimuli.Step(2.0, onset=10.0))
    """
    _verify(_name(stimulus), "stimulus", _STIMULUS, _StimulusCase(stimulus, duration), skip)


# Models --------------------------------------------------------------------------------------------------------------

_MODEL: list[_Promise] = []


class _ModelCase:
    """A model, how to build it anew, and a batch; compiled in few programs, since eager calls of models are slow."""

    def __init__(self, build: Callable[[nnx.Rngs], Any], sizes: Mapping[str, int], known: int):
        self.build = build
        rng = np.random.default_rng(11)
        count, horizons = 4, sizes["horizons"]
        draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
        self.batch = Batch(
            draw(count, sizes["length"], sizes["features"]),
            draw(count, horizons, sizes["outputs"]),
            draw(count, horizons, known) if known else None,
        )
        self.graphs: list[Any] = []

    def state(self, key: Any) -> Any:
        """The variables of a new model; to be traced."""
        graph, state = nnx.split(self.build(nnx.Rngs(params=stream(key, "params"), dropout=stream(key, "dropout"))))
        self.graphs.append(graph)
        return state

    @functools.cached_property
    def made(self) -> Callable[[Any], Any]:
        return jax.jit(self.state)

    @functools.cached_property
    def parts(self) -> tuple[Any, Any]:
        """Graph and variables of the model."""
        state = self.made(jax.random.key(0))
        return self.graphs[0], state

    def call(self, graph: Any, state: Any, batch: Batch, train: bool = False) -> tuple[Prediction, Any]:
        """What the model says, and its variables afterwards; to be traced."""
        model = nnx.merge(graph, state, copy=True)
        said = model(batch, train=train)
        return said if isinstance(said, Prediction) else Prediction(said), nnx.split(model)[1]

    @functools.cached_property
    def forward(self) -> Callable[..., Any]:
        return jax.jit(self.call, static_argnames=("graph", "train"))

    def predict(self, **changes: Any) -> Prediction:
        """The prediction of the batch with changes."""
        return self.forward(*self.parts, self.batch._replace(**changes))[0]

    @functools.cached_property
    def prediction(self) -> Prediction:
        return self.predict()


def _twice(trace: Callable[..., Any], *arguments: Any) -> str | None:
    """How a second tracing differs from the first: by something that neither the arguments nor the leaves hold."""
    first, second = (jax.make_jaxpr(lambda *a: jax.tree.leaves(trace(*a)))(*arguments) for _ in range(2))
    if str(first.jaxpr) != str(second.jaxpr) or not _same(first.consts, second.consts):
        return "another computation, or other constants, when it is traced again"
    return None


@_promise(
    _MODEL,
    "kind",
    "it is built from the arguments of its constructor, and is a flax.nnx.Module",
    "derive the class from nnx.Module; let __init__ take `*, rngs` and those of features, length, horizons and outputs "
    "that it needs",
    first=True,
)
def _(case):
    made = []
    jax.eval_shape(lambda key: made.append(case.build(nnx.Rngs(key))), jax.random.key(0))
    return None if isinstance(made[0], nnx.Module) else f"{type(made[0]).__qualname__}"


@_promise(
    _MODEL,
    "prediction",
    "model(batch, train=...) returns the expected values, an array [batch, horizon, target], or a Prediction",
    "take `batch, *, train=False`; reshape the output to (len(batch.inputs), horizons, outputs)",
    first=True,
)
def _(case):
    graph, state = case.parts
    prediction = jax.eval_shape(lambda s, b: case.call(graph, s, b)[0], state, case.batch)
    shape = case.batch.targets.shape
    found = prediction.mean.shape
    return None if found == shape else f"an array of shape {found} where the targets have {shape}"


@_promise(
    _MODEL,
    "traceable",
    "it can be compiled: its computation does not depend on the values of its inputs",
    "compute with jax.numpy, and branch on sizes only, not on values",
    first=True,
)
def _(case):
    return None if case.prediction.mean.size else "nothing predicted"


@_promise(
    _MODEL,
    "finite",
    "its predictions are finite for inputs of unit variance",
    "look for a division by a spread that may be zero, and for logarithms",
)
def _(case):
    bad = int((~np.isfinite(np.asarray(case.prediction.mean, np.float32))).sum())
    return f"{bad} of {case.prediction.mean.size} values that are not" if bad else None


@_promise(
    _MODEL,
    "dtype",
    "its predictions have the precision of its inputs, whatever it computes in",
    "cast the output: y.astype(batch.inputs.dtype)",
)
def _(case):
    found = case.prediction.mean.dtype
    return None if found == jnp.float32 else f"{found} of float32"


@_promise(
    _MODEL,
    "seeded",
    "its weights come from `rngs` alone: the same seed gives the same model",
    "draw with rngs.params(), not with numpy or a key of its own",
)
def _(case):
    found = _twice(case.state, jax.random.key(0))
    return found or (None if case.graphs[-1] == case.graphs[-2] else "attributes that are drawn anew")


@_promise(
    _MODEL,
    "pure",
    "outside training it changes nothing, and the same batch gives the same prediction",
    "drop values and update statistics only where train is True; draw from rngs, never from numpy",
)
def _(case):
    graph, state = case.parts
    if (found := _twice(lambda s, b: case.call(graph, s, b)[0], state, case.batch)) is not None:
        return found
    after = case.forward(graph, state, case.batch)[1]
    return None if _same(_plain_keys(state), _plain_keys(after)) else "variables that a prediction has changed"


@_promise(
    _MODEL,
    "batch",
    "the prediction of a window does not depend on which others are in the batch",
    "normalise over features or time, or by statistics that training has kept; never over the batch",
)
def _(case):
    others = case.batch.inputs.at[2:].multiply(3.0)
    return _apart(case.predict(inputs=others).mean[:2], case.prediction.mean[:2])


@_promise(
    _MODEL,
    "blind",
    "it does not read the targets of the batch, which are what it should predict",
    "use batch.inputs, and batch.future for what is known ahead",
)
def _(case):
    other = case.predict(targets=case.batch.targets + 1)
    return None if _same(other.mean, case.prediction.mean) else "predictions that follow them"


@_promise(
    _MODEL,
    "quantiles",
    "quantiles are [batch, horizon, target, quantile], one for each level between 0 and 1",
    "return Prediction(mean, quantiles, levels=levels)",
)
def _(case):
    quantiles, levels = case.prediction.quantiles, case.prediction.levels
    if quantiles is None:
        return None if levels is None else "levels without quantiles"
    if levels is None or quantiles.shape != (*case.prediction.mean.shape, len(levels)):
        return f"quantiles of shape {quantiles.shape} for levels {levels}"
    return None if bool(((levels > 0) & (levels < 1)).all()) else f"levels {np.asarray(levels)}"


@_promise(
    _MODEL,
    "training",
    "with train=True it predicts alike in shape, finite, and keeps its variables' structure",
    "draw masks from rngs.dropout (nnx.Dropout does); keep running statistics in nnx.BatchStat, made in __init__",
)
def _(case):
    graph, state = case.parts
    if (found := _twice(lambda s, b: case.call(graph, s, b, True)[0], state, case.batch)) is not None:
        return found
    said, after = case.forward(graph, state, case.batch, train=True)
    if said.mean.shape != case.prediction.mean.shape:
        return f"shape {said.mean.shape}, and {case.prediction.mean.shape} outside training"
    if jax.tree.structure(after) != jax.tree.structure(state):
        return "variables that appear or vanish in training"
    return None if np.isfinite(np.asarray(said.mean, np.float32)).all() else "values that are not finite"


@_promise(
    _MODEL,
    "gradient",
    "its derivatives with respect to its weights and its inputs are those of its predictions, and finite",
    "check custom_vjp rules; keep weights in nnx.Param",
)
def _(case):
    graph, weights, rest = nnx.split(nnx.merge(*case.parts, copy=True), nnx.Param, ...)
    with double_precision():
        at, others, batch = _double(weights), _double(rest), _double(case.batch)
        if not jax.tree.leaves(at):
            return "no nnx.Param, nothing to train"
        pull = jnp.asarray(np.random.default_rng(5).normal(size=batch.targets.shape))

        def total(varied):
            model = nnx.merge(graph, varied[0], others, copy=True)
            said = model(batch._replace(inputs=varied[1]), train=False)
            mean = said.mean if isinstance(said, Prediction) else said
            return jnp.sum(mean * pull.astype(mean.dtype))

        if jax.eval_shape(total, (at, batch.inputs)).dtype != jnp.float64:
            return "a prediction in single precision although all weights and inputs are double"
        return _slope_fault(total, (at, batch.inputs), forward=False)


@_promise(
    _MODEL,
    "serialisation",
    "its variables are all that it knows: written and read back into a new model, they give the same predictions",
    "keep arrays in nnx.Param or nnx.Variable, not in numpy arrays or Python numbers that are drawn at random",
)
def _(case):
    graph, state = case.parts
    kept = nnx.state(nnx.merge(graph, state, copy=True), nnx.Not(nnx.RngState))
    if (found := _reloaded(nnx.to_pure_dict(kept))) is not None:
        return found
    other = case.made(jax.random.key(1))
    fresh = nnx.merge(case.graphs[-1], other, copy=True)
    nnx.update(fresh, kept)
    graph, state = nnx.split(fresh)
    return _apart(case.forward(graph, state, case.batch)[0].mean, case.prediction.mean)


def _constructor(model: Any) -> Callable[..., Any]:
    """What says which arguments a model takes; flax's metaclass hides those of a class."""
    return model.__init__ if inspect.isclass(model) else model


def check_model(
    model: Any,
    *,
    features: int = 3,
    length: int = 8,
    horizons: int = 2,
    outputs: int = 2,
    known: int = 0,
    arguments: Mapping[str, Any] | None = None,
    skip: Sequence[str] = (),
) -> None:
    """Check that a model keeps the promises of its kind.

    They are: kind, prediction, traceable, finite, dtype, seeded, pure, batch, blind, quantiles, training, gradient,
    serialisation.

    Args:
        model: a class, built from its constructor's arguments; a typed configuration of ours, whose own sizes then hold;
            or an instance, of which it is not asked how it is built.
        features: columns that are observed.
        length: frames of a window.
        horizons: times that are predicted.
        outputs: columns that are predicted.
        known: columns that are known ahead, in `batch.future`.
        arguments: further arguments of the constructor.
        skip: names of promises that are not asked.

    Raises:
        ContractError: naming each promise that is broken, what was found, and the remedy.
        ValueError: if `skip` names an unknown promise.

    Example:
        >>> import jneuro as jn
        >>> jn.testing.check_model(MyModel, length=20, arguments={"hidden": 8})  # doctest: +SKIP
    """
    sizes = {"features": features, "length": length, "horizons": horizons, "outputs": outputs}
    if isinstance(model, ModelConfig):
        sizes = {"features": model.features, "length": model.length, "horizons": model.horizons}
        case = _ModelCase(lambda rngs: build_model(model, rngs=rngs), sizes | {"outputs": model.targets}, known)
    elif isinstance(model, nnx.Module):
        case = _ModelCase(lambda rngs: nnx.clone(model), sizes, known)
    else:
        given = {k: v for k, v in sizes.items() if k in inspect.signature(_constructor(model)).parameters} | dict(arguments or {})
        case = _ModelCase(lambda rngs: model(**given, rngs=rngs), sizes, known)
    _verify(_name(model), "model", _MODEL, case, skip)


# Simulators ----------------------------------------------------------------------------------------------------------

_SIMULATOR: list[_Promise] = []

_STEPS = 24


class _SimulatorCase:
    """A simulator with its connections, and short runs of it from one compiled program each."""

    def __init__(self, simulator: Any, stimulus: Stimulus | None, key: Any):
        self.given, self.stimulus, self.key = simulator, stimulus, key

    @functools.cached_property
    def simulator(self) -> Any:
        return self.given.connect(stream(self.key, "connect"))

    @property
    def is_ode(self) -> bool:
        return isinstance(self.given, ODESimulator)

    @functools.cached_property
    def dt(self) -> float:
        return float(self.simulator.default_dt if self.is_ode else self.simulator.dt)

    def scaled(self, scale: Any, simulator: Any = None) -> Any:
        """The simulator with all its numbers multiplied."""
        simulator = self.simulator if simulator is None else simulator
        return jax.tree.map(lambda x: x * scale.astype(x.dtype) if eqx.is_inexact_array(x) else x, simulator)

    def run(self, steps: int) -> Callable[..., Any]:
        """A function of a factor of all parameters, and of the state to start from."""
        names = tuple(self.simulator.recordables)

        def run(scale, start):
            return simulate(
                self.scaled(scale),
                self.stimulus,
                duration=steps * self.dt,
                key=self.key,
                record=names,
                initial_state=start,
                throw=False,
            )

        return run

    @functools.cached_property
    def half(self) -> Callable[..., Any]:
        return jax.jit(self.run(_STEPS // 2))

    @functools.cached_property
    def one(self) -> Any:
        return jnp.ones((), jnp.float32)

    @functools.cached_property
    def start(self) -> Any:
        return first_state(self.simulator, self.key, stimulus=self.stimulus)

    @functools.cached_property
    def first(self) -> Any:
        return self.half(self.one, self.start)

    @functools.cached_property
    def state(self) -> Any:
        """A state a little off the initial one, so that it is no point of rest."""
        y = self.simulator.init(stream(self.key, "init"))
        return jax.tree.map(lambda x: x * 1.013 + 0.007 if eqx.is_inexact_array(x) else x, y)


@_promise(
    _SIMULATOR,
    "kind",
    "a simulator is an ODESimulator or a SteppedSimulator, a frozen pytree, of which connect(key) makes the network",
    "derive the class from jneuro.ODESimulator or jneuro.SteppedSimulator, and pass an instance",
    first=True,
)
def _(case):
    kinds = ODESimulator | SteppedSimulator
    if not isinstance(case.given, kinds):
        return f"{_name(case.given)}, " + ("a class" if inspect.isclass(case.given) else "of another kind")
    return None if isinstance(case.simulator, kinds) else f"connect(key) gave {case.simulator!r}"


@_promise(
    _SIMULATOR,
    "state",
    "init(key) makes the same finite State from the same key",
    "draw from the key that init gets; give each variable of State a value, v: jn.Array = jn.state(-65.0)",
    first=True,
)
def _(case):
    first, second = (case.simulator.init(stream(case.key, "init")) for _ in range(2))
    if not isinstance(first, tuple):
        return f"{type(first).__qualname__}, no NamedTuple"
    bad = [n for n, x in zip(first._fields, first, strict=True) if not _finite(x)]
    if bad:
        return f"{bad[0]} = {getattr(first, bad[0])}"
    return None if _same(first, second) else "two states that differ"


def _finite(tree: PyTree) -> bool:
    numbers = (x for x in jax.tree.leaves(tree) if not eqx.is_array(x) or jnp.issubdtype(x.dtype, jnp.inexact))
    return all(bool(np.isfinite(np.asarray(x)).all()) for x in numbers)


@_promise(
    _SIMULATOR,
    "equations",
    "vector_field (or step) returns a State like the one that it gets, with finite values",
    "return self.State(...) with one value for each variable, computed with jax.numpy",
    first=True,
)
def _(case):
    if not case.is_ode:
        y = case.simulator.init(stream(case.key, "init"))
        noise = case.simulator.draw(case.key, jnp.int32(0))
        found = case.simulator.step(y, jnp.zeros(()), noise)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
            return f"step returned {type(found).__qualname__}, not a state and a dict of what can be recorded"
        y, after = y, found[0]
    else:
        y, after = case.state, case.simulator.vector_field(case.state, jnp.zeros(()))
    if type(after) is not type(y):
        return f"a {type(after).__qualname__}"
    for name, x, new in zip(y._fields, y, after, strict=True):
        if np.shape(x) != np.shape(new) and np.shape(x) != ():
            return f"{name} of shape {np.shape(new)} for one of {np.shape(x)}"
    return None if _finite(after) else f"{after}"


@_promise(
    _SIMULATOR,
    "recordables",
    "everything that it declares can be recorded: [time] or [time, neuron], finite, with a unit and a meaning",
    "declare with jn.state(unit=, doc=); check names that `recordables`, `observables` or `step` give",
    first=True,
)
def _(case):
    recording, steps = case.first, _STEPS // 2
    for name, about in case.simulator.recordables.items():
        if name not in recording.values:
            return f"no {name!r} in the recording"
        values = recording.values[name]
        if values.ndim < 1 or values.shape[0] != steps:
            return f"{name} of shape {values.shape} after {steps} steps"
        if not _finite(values):
            return f"{name} that is not finite within {steps} steps of {case.dt:g} ms"
        if not (about.unit and about.doc) or about.reduce not in ("last", "sum"):
            return f"{name} declared as {about}"
    return None


@_promise(
    _SIMULATOR,
    "parameters",
    "its numbers are declared parameters, arrays that sweeps and fits reach, and keep to their bounds",
    "declare each with `tau: jn.Param = jn.param(20.0, unit='ms', bounds=jn.POSITIVE)`; counts with static=True",
)
def _(case):
    declared = parameters(case.given)
    for field in dataclasses.fields(case.given):
        value = getattr(case.given, field.name)
        if isinstance(value, float | np.ndarray) and not field.metadata.get("static") and field.name not in declared:
            return f"{field.name} = {value}, which no jn.param declares"
    for name, p in declared.items():
        if p.static or not math.isfinite(p.bounds.low):
            continue
        try:
            dataclasses.replace(case.given, **{name: p.bounds.low - 1.0})
        except ValueError:
            continue
        return f"{name} = {p.bounds.low - 1.0:g} accepted, outside {p.bounds}"
    return None


@_promise(
    _SIMULATOR,
    "connect",
    "connect(key) draws the same network from the same key",
    "draw from the key that connect gets",
)
def _(case):
    again = case.given.connect(stream(case.key, "connect"))
    return None if _same(_plain_keys(case.simulator), _plain_keys(again)) else "two networks that differ"


@_promise(
    _SIMULATOR,
    "pure",
    "it computes from its parameters, the state, the stimulus and the drawn noise alone",
    "draw random numbers in draw(key, step), or in a stimulus; keep no counters or globals",
)
def _(case):
    simulator, y = case.simulator, case.state
    if case.is_ode:
        return _twice(lambda y, i: simulator.vector_field(y, i), y, jnp.zeros(()))
    noise = simulator.draw(case.key, jnp.int32(0))
    y = simulator.init(stream(case.key, "init"))
    return _twice(lambda y, i, noise: simulator.step(y, i, noise), y, jnp.zeros(()), noise)


@_promise(
    _SIMULATOR,
    "cells apart",
    "neurons of an ODESimulator do not see each other: a population computes what its cells compute",
    "write the equations for one cell, without sums or means over the array; coupled neurons are a SteppedSimulator",
)
def _(case):
    if not case.is_ode or case.simulator.cells:
        return None
    factors = jnp.asarray([0.9, 1.0, 1.1])
    many = jax.tree.map(lambda x: x * factors.astype(x.dtype), case.state)
    whole = case.simulator.vector_field(many, jnp.zeros(3))
    each = [case.simulator.vector_field(jax.tree.map(lambda x: x[i], many), jnp.zeros(())) for i in range(3)]  # noqa: B023
    return _apart(whole, jax.tree.map(lambda *x: jnp.stack(x), *each))


@_promise(
    _SIMULATOR,
    "one equation",
    "vector_field and relaxation, where both are given, are the same equation: f = rate (steady − y)",
    "leave one of them out; the other is derived",
)
def _(case):
    if not (case.is_ode and case.simulator.has_vector_field and case.simulator.has_relaxation):
        return None
    field = case.simulator.vector_field(case.state, jnp.full((), 0.5))
    return _apart(field, ODESimulator.vector_field(case.simulator, case.state, jnp.full((), 0.5)))


@_promise(
    _SIMULATOR,
    "reset",
    "reset returns a State from which the cell is below threshold, so that a spike ends",
    "return y._replace(v=self.v_reset), with v_reset below the threshold",
)
def _(case):
    if not (case.is_ode and case.simulator.has_reset):
        return None
    after = case.simulator.reset(case.state)
    if type(after) is not type(case.state):
        return f"a {type(after).__qualname__}"
    above = float(np.max(np.asarray(case.simulator.threshold(after))))
    return None if above < 0 else f"a threshold function of {above:.4g} after the reset"


@_promise(
    _SIMULATOR,
    "noise",
    "draw(key, step) depends on the key and the absolute step, so that a run may be cut anywhere",
    "draw from jax.random.fold_in(key, step)",
)
def _(case):
    if case.is_ode or not jax.tree.leaves(case.simulator.draw(case.key, jnp.int32(0))):
        return None
    draw = jax.jit(lambda key, steps: jax.vmap(lambda s: case.simulator.draw(key, s))(steps))
    some, other = (draw(case.key, jnp.arange(a, a + 8, dtype=jnp.int32)) for a in (0, 40))
    if not _same(some, draw(case.key, jnp.arange(8, dtype=jnp.int32))):
        return "other noise for the same step"
    if (found := _twice(lambda k: case.simulator.draw(k, jnp.int32(3)), case.key)) is not None:
        return found
    if any(np.any(np.asarray(x)) for x in jax.tree.leaves(some)):
        if _same(some, other):
            return "the same noise in steps 0 to 7 and in steps 40 to 47"
        if _same(some, draw(stream(case.key, "other"), jnp.arange(8, dtype=jnp.int32))):
            return "the same noise for two keys"
    return None


@_promise(
    _SIMULATOR,
    "advance",
    "advance over several steps gives what single steps give",
    "derive the fast form from step, and test it; or leave advance out",
)
def _(case):
    if case.is_ode or type(case.simulator).advance is SteppedSimulator.advance:
        return None
    simulator, steps = case.simulator, case.simulator.block
    noise = jax.vmap(lambda s: simulator.draw(case.key, s))(jnp.arange(steps, dtype=jnp.int32))
    y = case.start.y
    fast, slow = (
        eqx.filter_jit(lambda y, noise, a=a: a(simulator, y, None, noise, steps))(y, noise)
        for a in (type(simulator).advance, SteppedSimulator.advance)
    )
    shared = set(fast[1]) & set(slow[1])
    return _apart([fast[0], [fast[1][n] for n in shared]], [slow[0], [slow[1][n] for n in shared]])


@_promise(
    _SIMULATOR,
    "cut and continued",
    "a run that is cut and continued from its final_state equals the whole, to the last bit",
    "keep all that a step needs in the state; number steps absolutely",
)
def _(case):
    whole = jax.jit(case.run(_STEPS))(case.one, case.start)
    second = case.half(case.one, case.first.final_state)
    for name in whole.values:
        pieces = jnp.concatenate([case.first.values[name], second.values[name]])
        if not _same(pieces, whole.values[name]):
            off = np.abs(np.asarray(pieces, np.float64) - np.asarray(whole.values[name], np.float64))
            return f"{name} that differs by {off.max():.3g}, first in step {int(np.argmax(off.reshape(len(off), -1).max(1) > 0))}"
    return None


@_promise(
    _SIMULATOR,
    "vmapped",
    "simulated together under jax.vmap, several give what they give one by one",
    "compute along axes counted from the end; let parameters broadcast, without float() or shape tests of values",
)
def _(case):
    scales = jnp.asarray([1.0, 1.001], jnp.float32)
    together = jax.jit(jax.vmap(case.run(_STEPS // 2), in_axes=(0, None)))(scales, case.start)
    looped = [case.first, case.half(scales[1], case.start)]
    for name in together.values:
        for i, alone in enumerate(looped):
            if (found := _apart(together.values[name][i], alone.values[name])) is not None:
                return f"{name}: {found}"
    return None


@_promise(
    _SIMULATOR,
    "dtype",
    "it keeps the precision of its parameters: float32 without x64, float64 with it",
    "make constants Python numbers; new arrays take their dtype from the state",
)
def _(case):
    for name, x in case.first.values.items():
        if jnp.issubdtype(x.dtype, jnp.floating) and x.dtype != jnp.float32:
            return f"{name} in {x.dtype} from float32"
    with double_precision():
        wide, y = _double(case.simulator), _double(case.state)
        if case.is_ode:
            found = jax.eval_shape(lambda s, y: s.vector_field(y, jnp.zeros(())), wide, y)
        else:
            noise = _double(case.simulator.draw(case.key, jnp.int32(0)))
            y = _double(case.simulator.init(case.key))
            found = jax.eval_shape(lambda s, y, noise: s.step(y, jnp.zeros(()), noise)[0], wide, y, noise)
    for name, x, old in zip(found._fields, found, y, strict=True):
        if any(
            a.dtype == jnp.float32 for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(old), strict=True)
            if jnp.result_type(b) == jnp.float64
        ):
            return f"{name} in float32 from float64"
    return None


@_promise(
    _SIMULATOR,
    "gradient",
    "its derivatives with respect to parameters, state and stimulus are those of its equations",
    "check custom_jvp rules, stop_gradient, and jnp.where around a division by zero; keep numbers in jn.param",
)
def _(case):
    with double_precision():
        arrays, rest = eqx.partition(_double(case.simulator), eqx.is_inexact_array)
        noise = None
        if case.is_ode:
            y = _double(case.state)
        else:
            y = _double(case.simulator.init(stream(case.key, "init")))
            noise = _double(case.simulator.draw(case.key, jnp.int32(0)))
        moving, still = eqx.partition(y, eqx.is_inexact_array)
        draws = np.random.default_rng(9).normal(size=1000)

        def total(varied):
            simulator, y = eqx.combine(varied[0], rest), eqx.combine(varied[1], still)
            if case.is_ode:
                found = list(simulator.vector_field(y, varied[2]))
                found += [simulator.threshold(y)] if simulator.has_threshold else []
                found += list(simulator.reset(y)) if simulator.has_reset else []
            else:
                found = jax.tree.leaves(simulator.step(y, varied[2], noise)[0])
            numbers = [jnp.ravel(x) for x in found if eqx.is_inexact_array(x)]
            return sum((jnp.resize(draws[i:], x.shape) @ x for i, x in enumerate(numbers)), jnp.zeros(()))

        return _slope_fault(total, (arrays, moving, jnp.asarray(0.3)))


@_promise(
    _SIMULATOR,
    "serialisation",
    "all its numbers are array leaves, written and read back by equinox's tree_serialise_leaves",
    "declare numbers with jn.param, which makes arrays of them",
)
def _(case):
    return _reloaded(case.simulator)


def check_simulator(
    simulator: ODESimulator | SteppedSimulator,
    *,
    stimulus: Stimulus | None = None,
    key: Key[Array, ""] | None = None,
    skip: Sequence[str] = (),
) -> None:
    """Check that a simulator keeps the promises of its kind.

    They are: kind, state, equations, recordables, parameters, connect, pure, cells apart, one equation, reset, noise,
    advance, cut and continued, vmapped, dtype, gradient, serialisation. Runs are of 24 steps, so a network may be small.

    Args:
        simulator: an instance; a network need not be connected.
        stimulus: what drives it in the runs; by default nothing.
        key: of the connections, the initial state and the noise; by default that of seed 0.
        skip: names of promises that are not asked.

    Raises:
        ContractError: naming each promise that is broken, what was found, and the remedy.
        ValueError: if `skip` names an unknown promise.

    Example:
        >>> import jneuro as jn
        >>> jn.testing.check_simulator(jn.HodgkinHuxley(), stimulus=jn.stimuli.Constant(10.0))
    """
    case = _SimulatorCase(simulator, stimulus, jax.random.key(0) if key is None else key)
    _verify(_name(simulator), "simulator", _SIMULATOR, case, skip)
