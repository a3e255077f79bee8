"""The Temporal Fusion Transformer of pytorch-forecasting: its weights and its batches, to ours and back.

The model is built by hand, with `compat="pytorch_forecasting"` and the package's sizes, here with ours after the arrow:

- `hidden_size` → `hidden`; `hidden_continuous_size` → `hidden_continuous`; `attention_head_size` → `heads`
- `lstm_layers` → `layers`
- `max_encoder_length`, `max_prediction_length` → `length`, `horizons`, of every window
- `static_categoricals`, `static_reals` → `static`
- `time_varying_categoricals_decoder`, `time_varying_reals_decoder` → `known`
- `time_varying_categoricals_encoder`, `time_varying_reals_encoder`: all columns that are not static; the known ones
  must be among them
- `embedding_sizes` → classes in `categories`; sizes by the package's rule, 1.6·classes^0.56
- `QuantileLoss().quantiles` → `quantiles`, (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98) unless told otherwise
- `causal_attention` → `causal_attention`, which the weights do not say
- number of targets → `outputs`

Our columns have no names, so every function takes the package's `names`, one for each column. Among the categorical and
among the real variables, columns must follow one another as in the package's lists, because its networks read them side
by side.

What is not read: sizes of embeddings other than these, networks shared between encoder and decoder, groups of
categories, windows of several lengths. Predictions stay in the scaled units of the inputs, without the package's
`output_transformer`, as do all of ours. In training the package drops values of each head before their mean as well.
Its loss is twice the mean over the quantiles, where `pinball` is the sum.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jneuro.datasets.windows import Batch
from jneuro.interop.tensors import WeightsError, check_tensors, without_prefix
from jneuro.interop.torch_weights import from_torch, to_torch
from jneuro.models.tft import TemporalFusionTransformer, TemporalFusionTransformerConfig

__all__ = ["from_pytorch_forecasting", "pytorch_forecasting_batch", "to_pytorch_forecasting"]


class _Piece(NamedTuple):
    """A tensor of the package, under all its names, and the part of one of ours that it is."""

    names: tuple[str, ...]
    ours: str
    part: Any = ...
    transposed: bool = False

    def of(self, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """The part, as the package has it."""
        value = weights[self.ours][self.part]
        return np.ascontiguousarray(value.T if self.transposed else value)


_SELECTIONS = {
    "static_selection": "static_variable_selection",
    "past_selection": "encoder_variable_selection",
    "future_selection": "decoder_variable_selection",
}
# Beginnings of our names, and the package's for them; it has some modules under two names.
_RENAMED = {
    "contexts.selection": ("static_context_variable_selection",),
    "contexts.enrichment": ("static_context_enrichment",),
    "contexts.hidden": ("static_context_initial_hidden_lstm",),
    "contexts.cell": ("static_context_initial_cell_lstm",),
    "encoder": ("lstm_encoder",),
    "decoder": ("lstm_decoder",),
    "lstm_gate.fc": ("post_lstm_gate_encoder.fc", "post_lstm_gate_decoder.fc"),
    "lstm_gate.norm": ("post_lstm_add_norm_encoder.norm", "post_lstm_add_norm_decoder.norm"),
    "enrichment": ("static_enrichment",),
    "attention.value": ("multihead_attn.v_layer",),
    "attention.output": ("multihead_attn.w_h",),
    "attention_gate.fc": ("post_attn_gate_norm.glu.fc",),
    "attention_gate.norm": ("post_attn_gate_norm.add_norm.norm",),
    "feed_forward": ("pos_wise_ff",),
    "output_gate.fc": ("pre_output_gate_norm.glu.fc",),
    "output_gate.norm": ("pre_output_gate_norm.add_norm.norm",),
}
for _ours, _theirs in _SELECTIONS.items():
    _RENAMED |= {f"{_ours}.weights": (f"{_theirs}.flattened_grn",)}
    _RENAMED |= {f"{_ours}.skip": (f"{_theirs}.flattened_grn.resample_norm",)}
_WITHIN = {"gate.fc": "gate_norm.glu.fc", "gate.norm": "gate_norm.add_norm.norm"}
_STACKED = {
    "fc1_kernel": "fc1.weight",
    "fc1_bias": "fc1.bias",
    "fc2_kernel": "fc2.weight",
    "fc2_bias": "fc2.bias",
    "gate_kernel": "gate_norm.glu.fc.weight",
    "gate_bias": "gate_norm.glu.fc.bias",
    "norm_scale": "gate_norm.add_norm.norm.weight",
    "norm_bias": "gate_norm.add_norm.norm.bias",
    "skip_mask": "resample_norm.mask",
    "skip_scale": "resample_norm.norm.weight",
    "skip_bias": "resample_norm.norm.bias",
}


def _variables(config: TemporalFusionTransformerConfig) -> dict[str, tuple[int, ...]]:
    """The columns of each selection, by our name."""
    columns = config.static_variables, config.past_variables, config.future_variables
    return dict(zip(_SELECTIONS, columns, strict=True))


def _pieces(config: TemporalFusionTransformerConfig, ours: str, names: Sequence[str]) -> Iterator[_Piece]:
    """What one of our tensors is in the package."""
    heads, levels = config.heads, len(config.quantiles)
    size = config.hidden // heads
    categorical = dict(config.categories)
    match ours.split("."):
        case "embedding", "categories", k, "weight":
            yield _Piece((f"input_embeddings.embeddings.{names[config.categories[int(k)][0]]}.weight",), ours)
        case "embedding", leaf:
            for row, column in enumerate(config.reals):
                owners = [f"{_SELECTIONS[s]}." for s, columns in _variables(config).items() if column in columns]
                theirs = tuple(f"{owner}prescalers.{names[column]}.{leaf}" for owner in ["", *owners])
                yield _Piece(theirs, ours, slice(row, row + 1) if leaf == "weight" else row, leaf == "weight")
        case selection, "resampled", k, *leaf:
            name = names[_variables(config)[selection][int(k)]]
            yield _Piece((".".join([_SELECTIONS[selection], "single_variable_grns", name, *leaf]),), ours)
        case selection, "networks", leaf:
            reals = [column for column in _variables(config)[selection] if column not in categorical]
            for row, column in enumerate(reals):
                theirs = f"{_SELECTIONS[selection]}.single_variable_grns.{names[column]}.{_STACKED[leaf]}"
                yield _Piece((theirs,), ours, row, leaf.endswith("kernel"))
        case "attention", ("query" | "key") as kind, leaf:
            for head in range(heads):
                theirs = f"multihead_attn.{kind[0]}_layers.{head}.{leaf}"
                yield _Piece((theirs,), ours, slice(head * size, (head + 1) * size))
        case "output_layer", leaf:
            for k in range(config.targets):
                theirs = f"output_layer.{k}.{leaf}" if config.targets > 1 else f"output_layer.{leaf}"
                yield _Piece((theirs,), ours, slice(k * levels, (k + 1) * levels))
        case _:
            begin = next(b for b in _RENAMED if ours.startswith(f"{b}."))
            rest = ours.removeprefix(begin)
            for within, theirs in _WITHIN.items():
                rest = rest.replace(f".{within}.", f".{theirs}.")
            yield _Piece(tuple(theirs + rest for theirs in _RENAMED[begin]), ours)


def _all_pieces(
    model: TemporalFusionTransformer, names: Sequence[str]
) -> tuple[dict[str, np.ndarray], list[_Piece], dict[str, np.ndarray]]:
    """Our tensors, what they are in the package, and the package's tensors."""
    config = model.config
    if config.compat != "pytorch_forecasting":
        raise ValueError(
            "pytorch-forecasting's weights need a model with compat = pytorch_forecasting, got the paper's"
        )
    if len(names) != config.features or len(set(names)) != len(names):
        raise ValueError(f"names must hold a different name for each of the {config.features} columns, got {names}")
    ours = to_torch(model)
    pieces = [piece for name in ours for piece in _pieces(config, name, names)]
    return ours, pieces, {name: piece.of(ours) for piece in pieces for name in piece.names}


def to_pytorch_forecasting(model: TemporalFusionTransformer, names: Sequence[str]) -> dict[str, np.ndarray]:
    """A model's weights as pytorch-forecasting's `TemporalFusionTransformer` has them.

    Args:
        model: of the form `compat="pytorch_forecasting"`.
        names: the package's name of every column.

    Returns:
        What the package's `state_dict()` holds, as arrays; modules that it has twice are there twice.

    Raises:
        ValueError: if the model is not of that form, or there is not one name for each column.
    """
    return _all_pieces(model, names)[2]


def from_pytorch_forecasting(
    model: TemporalFusionTransformer, state_dict: Mapping[str, Any], names: Sequence[str]
) -> TemporalFusionTransformer:
    """Give a model the weights of pytorch-forecasting's `TemporalFusionTransformer`.

    Args:
        model: of the form `compat="pytorch_forecasting"`, with the package's sizes; it is not changed.
        state_dict: the package's, NumPy arrays or PyTorch tensors by name.
        names: the package's name of every column.

    Returns:
        A new model, its parameters in the precision of the tensors.

    Raises:
        WeightsError: if a tensor is missing, unknown or of another shape, all of which are listed; if a module that the
            package has under two names has two sets of weights; or if variables come in another order.
        ValueError: if the model is not of that form, or there is not one name for each column.
    """
    ours, pieces, expected = _all_pieces(model, names)
    found = {name: np.asarray(value) for name, value in without_prefix(state_dict, expected).items()}
    check_tensors(
        {n: a.shape for n, a in expected.items()}, found, f"pytorch-forecasting's names of {model.config.name}"
    )
    twice = [" and ".join(p.names) for p in pieces if any((found[p.names[0]] != found[n]).any() for n in p.names[1:])]
    if twice:
        raise WeightsError(
            "the weights do not fit tft, so none was loaded: the package has one module under two names, but there are"
            f" two sets of weights for {'; '.join(twice)}; save them again from the package's model"
        )
    for selection, columns in _variables(model.config).items():
        _check_order(found, f"{_SELECTIONS[selection]}.single_variable_grns.", [names[c] for c in columns])
    loaded = {name: np.empty(value.shape, found[pieces[0].names[0]].dtype) for name, value in ours.items()}
    for piece in pieces:
        value = found[piece.names[0]]
        loaded[piece.ours][piece.part] = value.T if piece.transposed else value
    return from_torch(model, loaded)


def _check_order(names: Mapping[str, Any], prefix: str, expected: Sequence[str]) -> None:
    """Refuse variables in another order than ours; the package keeps its own in the order of its tensors."""
    order = list(dict.fromkeys(n.removeprefix(prefix).partition(".")[0] for n in names if n.startswith(prefix)))
    if order != list(expected):
        raise WeightsError(
            f"the weights do not fit tft, so none was loaded: {prefix.partition('.')[0]} reads {', '.join(order)},"
            f" but the columns come as {', '.join(expected)}; order the columns so, categorical ones first"
        )


def pytorch_forecasting_batch(
    x: Mapping[str, Any],
    config: TemporalFusionTransformerConfig,
    names: Sequence[str],
    *,
    x_reals: Sequence[str],
    x_categoricals: Sequence[str],
) -> Batch:
    """A batch of pytorch-forecasting as one of ours.

    Args:
        x: what its data loader yields first: `encoder_cont`, `encoder_cat`, `decoder_cont`, `decoder_cat`,
            `decoder_target`, and lengths.
        config: the model's.
        names: the package's name of every column.
        x_reals: names of the columns of `encoder_cont`, a hyperparameter of the package's model.
        x_categoricals: names of the columns of `encoder_cat`, likewise.

    Returns:
        The batch; its targets are the package's, in the units of its `decoder_target`.

    Raises:
        ValueError: if windows are shorter than the model's, which the package would pad.
    """
    for key, length in (("encoder_lengths", config.length), ("decoder_lengths", config.horizons)):
        if key in x and not (np.asarray(x[key]) == length).all():
            raise ValueError(f"{key} must all be {length}, got {np.asarray(x[key]).tolist()}; drop the shorter windows")

    def columns(part: str, wanted: Sequence[int]) -> Any:
        sources = {name: np.asarray(x[f"{part}_cont"])[..., k] for k, name in enumerate(x_reals)}
        sources |= {name: np.asarray(x[f"{part}_cat"])[..., k] for k, name in enumerate(x_categoricals)}
        return jnp.asarray(np.stack([sources[names[column]] for column in wanted], -1), jnp.float32)

    target = x["decoder_target"]
    targets = np.stack([np.asarray(t) for t in target], -1) if isinstance(target, list | tuple) else np.asarray(target)
    future = columns("decoder", config.known) if config.known else None
    targets = jnp.asarray(targets, jnp.float32).reshape(*targets.shape[:2], -1)
    return Batch(columns("encoder", range(config.features)), targets, future)
