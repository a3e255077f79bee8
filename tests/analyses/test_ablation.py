"""What a part is worth, from seeds that are given."""

from types import SimpleNamespace

import pytest

from jneuro.analyses.ablation import Ablation
from jneuro.evaluation import Findings
from jneuro.report.components import render


def test_parts_are_compared_seed_by_seed():
    def score(*r2):
        return (
            {"r2": r2[0], "parameters": 10, "seeds": {"r2": list(r2)}}
            if len(r2) > 1
            else {"r2": r2[0], "parameters": 9}
        )

    test = {"whole": score(0.70, 0.72, 0.74), "bare": score(0.60, 0.61, 0.65), "same": score(0.71, 0.72, 0.73)}
    test["once"] = score(0.69)
    study = SimpleNamespace(metrics={"test": test, "baselines": {"ar": {"r2": 0.66}, "lookup": {"r2": 0.76}}})
    ablation = Ablation(whole="whole", without={"bare": "the head", "same": "x", "once": "y"})
    found = ablation.compute(study)
    bare = found.numbers["parts"]["bare"]
    assert bare["gains"] == pytest.approx([0.10, 0.11, 0.09])
    # Student's 97.5 % point with two degrees of freedom is 4.303.
    half = 4.3027 * 0.01 / 3**0.5
    assert bare["comparison"].difference == pytest.approx(0.1)
    assert bare["comparison"].ci95 == pytest.approx((0.1 - half, 0.1 + half), rel=1e-4)
    assert found.numbers["parts"]["once"]["gains"] == pytest.approx([0.01])
    section = ablation.section(Findings.load(found.dump(), {}))
    said = render(section.text, found.numbers)
    assert said[0] == "The head: raises R² by 0.1000 (0.0752 to 0.1248) (95 %, 3 pairs of seeds)."
    assert "no effect that could be told" in said[1]
    assert "no bounds" in said[2]
    assert said[3].endswith("0.0400 below the best baseline.")
    table, plot = section.parts
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert [row[0] for row in table.rows] == list(test)
    assert len(plot.figure.axes[0].get_yticks()) == 3


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="ablation: unknown model 'bar'; did you mean 'bare'"):
        Ablation(whole="whole", without={"bar": "the head"}).check(None, ["whole", "bare"])
