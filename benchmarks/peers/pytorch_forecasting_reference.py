"""Reference of the Temporal Fusion Transformer: three small models of pytorch-forecasting, with all they return."""

import types
import warnings

import numpy as np
import torch
from pytorch_forecasting import TemporalFusionTransformer
from pytorch_forecasting.metrics import MultiLoss, QuantileLoss
from result import save

__all__ = []

BATCH, LENGTH, HORIZONS = 3, 5, 4
# Columns as jneuro numbers them, in the package's order of variables: name, classes (none: real), what is known.
CASES = {
    "reals": {
        "columns": [("clock", 0, "known"), ("a", 0, "past"), ("b", 0, "past")],
        "sizes": {"hidden_size": 8, "hidden_continuous_size": 8, "attention_head_size": 1, "lstm_layers": 1},
        "targets": 1,
    },
    "mixed": {
        "columns": [
            ("kind", 3, "static"), ("place", 12, "static"), ("age", 0, "static"), ("phase", 4, "known"),
            ("tone", 2, "past"), ("drive", 0, "known"), ("clock", 0, "known"), ("a", 0, "past"), ("b", 0, "past"),
        ],
        "sizes": {"hidden_size": 8, "hidden_continuous_size": 4, "attention_head_size": 4, "lstm_layers": 2},
        "targets": 2,
    },
    "many": {
        "columns": [("kind", 5, "static"), *((f"n{k}", 0, "past") for k in range(9))],
        "sizes": {"hidden_size": 6, "hidden_continuous_size": 9, "attention_head_size": 4, "lstm_layers": 1},
        "targets": 1,
    },
}  # fmt: skip


def unscaled(output):
    """What the network says, as it says it."""
    return output["prediction"]


def model(case):
    """The package's model of a case, its weights away from where they start."""
    columns, targets = case["columns"], case["targets"]
    reals = [name for name, classes, _ in columns if not classes]

    def pick(categorical, *kinds):
        return [name for name, classes, kind in columns if bool(classes) == categorical and kind in kinds]

    many = targets > 1
    network = TemporalFusionTransformer(
        **case["sizes"],
        max_encoder_length=LENGTH,
        output_size=[7] * targets if many else 7,
        loss=MultiLoss([QuantileLoss() for _ in range(targets)]) if many else QuantileLoss(),
        output_transformer=types.SimpleNamespace(normalizers=[unscaled] * targets) if many else unscaled,
        static_categoricals=pick(True, "static"),
        static_reals=pick(False, "static"),
        time_varying_categoricals_encoder=pick(True, "known", "past"),
        time_varying_categoricals_decoder=pick(True, "known"),
        time_varying_reals_encoder=pick(False, "known", "past"),
        time_varying_reals_decoder=pick(False, "known"),
        x_reals=reals,
        x_categoricals=[name for name, classes, _ in columns if classes],
        embedding_sizes={name: classes for name, classes, _ in columns if classes},
    )
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return network.eval()


def inputs(case):
    """Values of all columns at all times, static ones constant, as the package takes them."""
    values = {}
    for name, classes, kind in case["columns"]:
        shape = BATCH, 1 if kind == "static" else LENGTH + HORIZONS
        drawn = torch.randint(classes, shape) if classes else torch.randn(shape)
        values[name] = drawn.expand(BATCH, LENGTH + HORIZONS)
    empty = torch.zeros(BATCH, LENGTH + HORIZONS, 0)
    cont = [values[name] for name, classes, _ in case["columns"] if not classes]
    cat = [values[name] for name, classes, _ in case["columns"] if classes]
    cont, cat = torch.stack(cont, -1), torch.stack(cat, -1) if cat else empty.long()
    return {
        "encoder_cont": cont[:, :LENGTH],
        "decoder_cont": cont[:, LENGTH:],
        "encoder_cat": cat[:, :LENGTH],
        "decoder_cat": cat[:, LENGTH:],
        "encoder_lengths": torch.full((BATCH,), LENGTH),
        "decoder_lengths": torch.full((BATCH,), HORIZONS),
        "target_scale": torch.ones(BATCH, 2),
    }


def main():
    """Seed, build, run each case."""
    arrays, layouts = {}, {}
    for seed, (name, case) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        network, x = model(case), inputs(case)
        with torch.no_grad():
            out = network(x)
        many = case["targets"] > 1
        prediction = torch.stack(out["prediction"], 2) if many else out["prediction"][:, :, None]
        target = torch.randn(prediction.shape[:3])
        loss = [QuantileLoss()(prediction[:, :, k], target[:, :, k]).item() for k in range(case["targets"])]
        state = network.state_dict()
        layouts[name] = [[key, list(value.shape)] for key, value in state.items()]
        kept = {
            "weights": torch.cat([value.flatten() for value in state.values()]),
            "prediction": prediction, "target": target, "loss": torch.tensor(loss),
            "attention": torch.cat([out["encoder_attention"], out["decoder_attention"]], -1),
            "static": out["static_variables"], "past": out["encoder_variables"], "future": out["decoder_variables"],
        }  # fmt: skip
        kept |= {key: value for key, value in x.items() if key.endswith(("cont", "cat"))}
        arrays |= {f"{name}_{key}": np.asarray(value) for key, value in kept.items()}
    settings = {"cases": CASES, "layouts": layouts, "quantiles": QuantileLoss().quantiles, "seeds": "0, 1, 2 by case"}
    save(settings, ["torch", "pytorch-forecasting"], **arrays)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
