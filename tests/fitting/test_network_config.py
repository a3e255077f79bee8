"""Configurations of network fits and of uncertainty: what is refused, and why."""

import pytest

from jneuro.core.config import ConfigError
from jneuro.experiment.fit_plan import load_fit

NETWORK = {
    "simulation.simulator": "{name: brunel}",
    "simulation.runs": "8",
    "simulation.record": "[spikes]",
    "simulator": "{name: brunel}",
    "fit.trainable": "{g: [2, 10]}",
    "fit.method": "{name: features}",
}
CELL = {
    "simulation.simulator": "{name: hodgkin_huxley}",
    "simulation.stimulus": "{name: step, amplitude: 20}",
    "simulation.record": "[v, current]",
    "simulator": "{name: hodgkin_huxley}",
    "fit.trainable": "[g_na]",
}


def load(tmp_path, base, **changes):
    path = tmp_path / "a.yaml"
    path.write_text("name: a\nfit: {}\n")
    overrides = [f"{k}={v}" for k, v in (base | changes).items()]
    return load_fit(path, overrides).config


def test_right_ones(tmp_path):
    assert load(tmp_path, NETWORK, truths="[{g: 4}]").of_network
    found = load(tmp_path, CELL, **{"fit.uncertainty": "{profile: [g_na], posterior: {chains: 2}}"})
    assert found.fit.uncertainty.posterior.chains == 2
    assert not found.of_network


REFUSED = [
    (NETWORK, {"fit.uncertainty": "{profile: [g]}"}, "covariance of its features"),
    (NETWORK, {"simulation.record": "[v]"}, "must hold 'spikes'"),
    (NETWORK, {"truths": "[{j: 4}]"}, "must give exactly g"),
    (NETWORK, {"truths": "[{g: 12}]"}, r"g = 12 lies outside fit.trainable's \(2, 10\)"),
    (NETWORK, {"train": "[9]"}, "there is no trial 9"),
    (CELL, {"fit.method": "{name: features}"}, "hodgkin_huxley is none"),
    (CELL, {"truths": "[{g_na: 4}]"}, "is for a network"),
    (CELL, {"fit.uncertainty": "{profile: [g_nna]}"}, "did you mean 'g_na'"),
    (CELL, {"fit.uncertainty": "{posterior: {chains: 1}}"}, "greater than or equal to 2"),
]


@pytest.mark.parametrize(("base", "changes", "said"), REFUSED)
def test_wrong_ones(tmp_path, base, changes, said):
    with pytest.raises(ConfigError, match=said):
        load(tmp_path, base, **changes)
