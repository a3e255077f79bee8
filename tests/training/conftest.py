"""Until `Windows.gather` adds arrays of equal rank itself, let it promote; everything else stays strict."""

import jax
import pytest

from jneuro.datasets.windows import Windows


@pytest.fixture(autouse=True)
def _gather_may_promote(monkeypatch):
    gather = Windows.gather

    def lenient(self, starts):
        with jax.numpy_rank_promotion("allow"):
            return gather(self, starts)

    monkeypatch.setattr(Windows, "gather", lenient)
