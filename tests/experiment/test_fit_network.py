"""`jneuro fit` of a network, at two truths, from its file to its report."""

import json

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from jneuro.cli import app

TEXT = """
name: network
simulation:
  simulator: &network {name: brunel, n_excitatory: 20, n_inhibitory: 5, rate_external: 600}
  runs: 32
  duration_ms: 105
  record_every_ms: 0.5
  snapshot_every_ms: 105
  record: [spikes]
cut_ms: [15, 105]
simulator: *network
fit:
  trainable: {rate_external: [350, 900]}
  method: {name: features, starts: 2, coarse_steps: 5, runs: 128, probes: 16, steps: 2, warmup_ms: 15}
truths: [{rate_external: 700}]
"""


@pytest.mark.slow
def test_a_network_from_its_file_to_its_report(tmp_path):
    file, out = tmp_path / "n.yaml", tmp_path / "run"
    file.write_text(TEXT)
    done = CliRunner().invoke(app, ["fit", str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    metrics = json.loads((out / "metrics.json").read_text())
    for point, truth in zip(metrics["network"]["points"], (600, 700), strict=True):
        found = point["parameters"]["rate_external"]
        assert point["ok"], point["reason"]
        assert found["truth"] == truth
        assert abs(found["value"] - truth) < 4 * found["se"] < 0.2 * truth
    assert metrics["network"]["deviations"]["largest"] < 4
    assert metrics["identifiability"][0]["factor"] == pytest.approx(found_se(metrics) / 600, rel=0.1)
    stored = xr.open_zarr(out / "fit.zarr", consolidated=False)
    assert dict(stored.fitted_features.sizes) == {"run": 128, "feature": 4}
    np.testing.assert_allclose(stored.fitted_features.mean("run"), metrics["network"]["fitted"], rtol=1e-6)
    page = (out / "report.html").read_text()
    assert "off by a chi-squared of" in page
    assert "mean squared error" not in page


def found_se(metrics):
    return metrics["parameters"]["rate_external"]["se"]
