"""Sections of a fit's report on profiles, the posterior and networks, from small metrics."""

import numpy as np

from jneuro.report.fit_uncertainty import network_section, posterior_section, profile_section

PARAMETERS = {"g": {"value": 5.4, "se": 0.1, "truth": 5.5}, "r": {"value": 700.0, "se": 2.0, "truth": 500.0}}


def test_nothing_wanted_nothing_shown(tmp_path):
    for section in (profile_section, posterior_section, network_section):
        assert section(tmp_path, {"parameters": PARAMETERS}, {}) is None


def test_profiles(tmp_path):
    value = np.linspace(5.1, 5.7, 7)
    arrays = {"profile_0_value": value, "profile_0_excess": np.square((value - 5.4) / 0.1)}
    found = {"name": "g", "intervals": {"68 %": [5.3, 5.5], "95 %": [5.204, None]}, "truth": 5.5}
    section = profile_section(tmp_path, {"parameters": PARAMETERS, "profiles": [found]}, arrays)
    assert section["tables"][0]["rows"] == [["g", "5.3 … 5.5", "5.204 … open", "± 0.196", "5.5"]]
    assert (tmp_path / "profiles.png").exists()


def posterior_metrics(ok):
    values = {n: {"mean": 1.0, "sd": 0.1, "low": 0.8, "high": 1.2, "r_hat": 1.002, "ess": 400.0} for n in PARAMETERS}
    about = {"divergences": 0, "acceptance": 0.9, "gradients": 7000, "chains": 2, "draws": 50}
    return {
        "parameters": PARAMETERS,
        "posterior": {"values": values, "ok": ok, "truth": {"g": 5.5, "r": None}, **about},
        "calibration": {"data_sets": 40, "draws": 9, "p_values": {"g": 0.4, "r": 0.7}, "divergences": 0},
    }


def test_posterior_and_calibration(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"posterior": rng.normal(size=(2, 50, 2)), "ranks": rng.integers(0, 10, (40, 2))}
    section = posterior_section(tmp_path, posterior_metrics(True), arrays)
    assert section["sentences"][0] == "The chains agree."
    assert "0.4 (g), 0.7 (r)" in section["sentences"][1]
    assert [f["name"] for f in section["figures"]] == ["posterior", "ranks"]
    assert "have not converged" in posterior_section(tmp_path, posterior_metrics(False), arrays)["sentences"][0]


def test_a_network(tmp_path):
    point = {"parameters": PARAMETERS, "chi2": 1.9, "ok": True}
    network = {
        "features": ["log_rate", "isi_cv", "rate_cv"],
        **{key: [3.4, 0.4, 0.2] for key in ("observed", "standard_error", "fitted")},
        "degrees_of_freedom": 1,
        "points": [point],
    }
    arrays = {key: np.random.default_rng(0).normal(size=(5, 3)) for key in ("features", "fitted_features")}
    section = network_section(tmp_path, {"parameters": PARAMETERS, "network": network}, arrays)
    said = "Of 2 values at 1 point, 1 are within 5 % of the truth; the worst is off by 40.0 %."
    assert section["sentences"] == [said]
    assert section["tables"][1]["rows"] == [["5.5", "5.4 ± 0.1", "−1.82", "500", "700 ± 2", "40.00", "1.9", "yes"]]
