"""Which runs, or which windows, may be learned from."""

import numpy as np
from pydantic import Field, model_validator

from jneuro.core.config import Config

__all__ = ["SPLITS", "Fractions", "split_indices"]

SPLITS = ("train", "validation", "test")


class Fractions(Config):
    """Shares of the whole, which sum to one.

    Attributes:
        train: what models, baselines and scaling are fitted on.
        validation: what decides when to stop.
        test: what is scored, once.
    """

    train: float = Field(default=0.7, gt=0, lt=1)
    validation: float = Field(default=0.1, gt=0, lt=1)
    test: float = Field(default=0.2, gt=0, lt=1)

    @model_validator(mode="after")
    def _whole(self) -> "Fractions":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test = {total:g}, but shares must sum to 1")
        return self


def split_indices(count: int, fractions: Fractions, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Shuffle `count` things and deal them out.

    Args:
        count: how many.
        fractions: the shares.
        rng: decides the order.

    Returns:
        Ascending indices by split.

    Raises:
        ValueError: if a split would be empty.
    """
    order = rng.permutation(count)
    train, validation = round(count * fractions.train), round(count * fractions.validation)
    dealt = dict(zip(SPLITS, np.split(order, [train, train + validation]), strict=True))
    for name, indices in dealt.items():
        if not len(indices):
            raise ValueError(
                f"fractions {fractions.train:g}/{fractions.validation:g}/{fractions.test:g} of {count} "
                f"leave nothing for {name}; use more runs or a larger share"
            )
    return {name: np.sort(indices) for name, indices in dealt.items()}
