"""The Temporal Fusion Transformer against pytorch-forecasting: its weights, and all that it returns."""

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from jneuro.interop import WeightsError
from jneuro.interop.pytorch_forecasting import (
    from_pytorch_forecasting,
    pytorch_forecasting_batch,
    to_pytorch_forecasting,
)
from jneuro.models import TemporalFusionTransformer, TemporalFusionTransformerConfig
from jneuro.training import LOSSES

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "pytorch_forecasting.npz")
SETTINGS = json.loads(str(REFERENCE["settings"]))
CASES = list(SETTINGS["cases"])


def arrays(case):
    return {k.removeprefix(f"{case}_"): REFERENCE[k] for k in REFERENCE.files if k.startswith(f"{case}_")}


def state_of(case):
    state, weights = {}, REFERENCE[f"{case}_weights"]
    for name, shape in SETTINGS["layouts"][case]:
        state[name], weights = weights[: np.prod(shape, dtype=int)].reshape(shape), weights[np.prod(shape, dtype=int) :]
    assert not weights.size
    return state


def config_of(case, **changes):
    columns, sizes = SETTINGS["cases"][case]["columns"], SETTINGS["cases"][case]["sizes"]
    _, horizons, targets, _ = REFERENCE[f"{case}_prediction"].shape

    def those(kind):
        return tuple(k for k, column in enumerate(columns) if column[2] == kind)

    fields = {
        "features": len(columns),
        "length": REFERENCE[f"{case}_encoder_cont"].shape[1],
        "horizons": horizons,
        "outputs": targets,
        "known": those("known"),
        "static": those("static"),
        "categories": tuple((k, classes) for k, (_, classes, _) in enumerate(columns) if classes),
        "hidden": sizes["hidden_size"],
        "hidden_continuous": sizes["hidden_continuous_size"],
        "heads": sizes["attention_head_size"],
        "layers": sizes["lstm_layers"],
        "quantiles": SETTINGS["quantiles"],
        "compat": "pytorch_forecasting",
    }
    return TemporalFusionTransformerConfig(**fields | changes)


def names_of(case):
    return [name for name, *_ in SETTINGS["cases"][case]["columns"]]


@functools.cache
def build(case, **changes):
    return TemporalFusionTransformer(config_of(case, kernel_init="zeros", **changes), rngs=nnx.Rngs(0))


def batch_of(case):
    columns, kept = SETTINGS["cases"][case]["columns"], arrays(case)
    target = kept["target"]
    x = kept | {"decoder_target": list(np.moveaxis(target, 2, 0)) if target.shape[2] > 1 else target[..., 0]}
    reals, categoricals = ([name for name, classes, _ in columns if bool(classes) is c] for c in (False, True))
    return pytorch_forecasting_batch(x, config_of(case), names_of(case), x_reals=reals, x_categoricals=categoricals)


@pytest.mark.parametrize("case", CASES)
def test_its_weights_give_its_outputs(case):
    model, theirs = from_pytorch_forecasting(build(case), state_of(case), names_of(case)), arrays(case)
    batch = batch_of(case)
    ours = nnx.jit(lambda model: model(batch, train=False))(model)
    batch_size, length = theirs["encoder_cont"].shape[:2]

    def close(value, expected, *shape):
        np.testing.assert_allclose(value, expected.reshape(shape) if shape else expected, rtol=1e-5, atol=1e-5)

    close(ours.quantiles, theirs["prediction"])
    close(ours.mean, theirs["prediction"][..., 3])
    close(ours.diagnostics["attention_heads"].swapaxes(1, 2), theirs["attention"])
    close(ours.diagnostics["attention"], theirs["attention"].mean(2))
    close(ours.diagnostics["static_weights"], theirs["static"], batch_size, -1 if theirs["static"].size else 0)
    close(ours.diagnostics["past_weights"], theirs["past"], batch_size, length, -1)
    close(ours.diagnostics["future_weights"], theirs["future"].squeeze(2))
    # Theirs is a mean over quantiles, times two.
    close(2 / 7 * LOSSES["pinball"](ours, batch).mean(), theirs["loss"].mean())


@pytest.mark.parametrize("case", CASES)
def test_the_way_back_is_exact_and_complete(case):
    state = state_of(case)
    model = from_pytorch_forecasting(build(case), {k: v.astype(np.float16) for k, v in state.items()}, names_of(case))
    back = to_pytorch_forecasting(model, names_of(case))
    assert set(back) == set(state)
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value.astype(np.float16), err_msg=name)
        assert back[name].dtype == np.float16


def test_everything_that_does_not_fit_is_listed_and_nothing_is_loaded():
    state, model = state_of("mixed"), build("mixed")
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.Param))
    del state["lstm_encoder.weight_hh_l1"], state["prescalers.a.bias"]
    state["output_layer.0.weight"] = state["output_layer.0.weight"][:3]
    state["surplus"] = np.zeros((2, 3), np.float32)
    with pytest.raises(WeightsError) as error:
        from_pytorch_forecasting(model, state, names_of("mixed"))
    listed = "\n".join(error.value.__notes__)
    for text in (
        r"lstm_encoder.weight_hh_l1 [32, 8]",
        "prescalers.a.bias [4]",
        "output_layer.0.weight is [3, 8], expected [7, 8]",
        "surplus [2, 3]",
    ):
        assert text in listed
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model, nnx.Param))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s | {"post_lstm_gate_decoder.fc.bias": s["post_lstm_gate_decoder.fc.bias"] + 1},
            "two sets of weights",
        ),
        (
            lambda s: dict(sorted(s.items())),
            "static_variable_selection reads age, kind, place, but the columns come as kind, place, age",
        ),
    ],
    ids=["shared", "order"],
)
def test_weights_that_the_package_cannot_have_made(change, message):
    with pytest.raises(WeightsError, match=message):
        from_pytorch_forecasting(build("mixed"), change(state_of("mixed")), names_of("mixed"))


def test_what_the_caller_may_get_wrong():
    with pytest.raises(ValueError, match="different name for each of the 3 columns"):
        to_pytorch_forecasting(build("reals"), ["clock", "a", "a"])
    with pytest.raises(ValueError, match="compat = pytorch_forecasting"):
        to_pytorch_forecasting(build("reals", compat=None, hidden_continuous=None), names_of("reals"))
    x = arrays("reals") | {"encoder_lengths": np.asarray([5, 4, 5])}
    with pytest.raises(ValueError, match="drop the shorter windows"):
        pytorch_forecasting_batch(
            x, config_of("reals"), names_of("reals"), x_reals=names_of("reals"), x_categoricals=[]
        )
