"""What a part is worth, from seeds that are given."""

from types import SimpleNamespace

import pytest

from jneuro.evaluation.ablation import Ablation
from jneuro.report.ablation_section import say_ablation, tabulate_ablation


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
    found = Ablation(whole="whole", without={"bare": "the head", "same": "x", "once": "y"}).analyse(study).numbers
    bare = found["parts"]["bare"]
    assert bare["gains"] == pytest.approx([0.10, 0.11, 0.09])
    # Student's 97.5 % point with two degrees of freedom is 4.303.
    assert (bare["mean"], bare["ci95"]) == (pytest.approx(0.1), pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4))
    assert found["parts"]["once"]["gains"] == pytest.approx([0.01])
    said = say_ablation(found)
    assert said[0].startswith("The head: raises R² by 0.1000 ± 0.0248 (95 %, 3 pairs")
    assert "no effect that could be told" in said[1]
    assert "no bounds" in said[2]
    assert said[3].endswith("0.0400 below the best baseline.")
    ((_, heads, rows),) = tabulate_ablation(found)
    assert {len(row) for row in rows} == {len(heads)}
    assert [row[0] for row in rows] == list(test)


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="ablation: unknown model 'bar'; did you mean 'bare'"):
        Ablation(whole="whole", without={"bar": "the head"}).check(None, ["whole", "bare"])
