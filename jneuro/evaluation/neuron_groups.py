"""Who a neuron's inputs come from: itself, its synaptic partners, strangers."""

from collections.abc import Mapping

import numpy as np

from jneuro.core.types import Bool, Int

__all__ = ["input_groups", "members"]


def input_groups(
    populations: Mapping[str, Bool[np.ndarray, " neuron"]],
    synapse: Bool[np.ndarray, "run pre post"] | None,
    rng: np.random.Generator,
) -> dict[str, Bool[np.ndarray, "run pre post"]]:
    """Sort the inputs of every neuron into groups that may overlap.

    Args:
        populations: their names, and which neurons are in each.
        synapse: whether there is a synapse, run by run, or in the one network of all runs; None if that is unknown.
        rng: draws the strangers.

    Returns:
        By name: the neuron itself, all others, those of each population and, if synapses are known, in each population
        the partners, who have a synapse on the neuron, and as many strangers, who have none, as far as there are so
        many.
    """
    size = len(next(iter(populations.values())))
    shape = (1 if synapse is None else len(synapse), size, size)
    self = np.broadcast_to(np.eye(size, dtype=bool), shape)
    groups = {"own past": self, "all others": ~self}
    rows = {name: np.broadcast_to(mask[:, None], shape) & ~self for name, mask in populations.items()}
    groups |= {f"{name} others": mask for name, mask in rows.items()}
    if synapse is None:
        return groups
    for name, mask in rows.items():
        groups[f"{name} partners"] = partners = mask & synapse
        draws = np.where(mask & ~partners, rng.random(shape), np.inf)
        rank = draws.argsort(1).argsort(1)
        groups[f"{name} strangers"] = np.isfinite(draws) & (rank < partners.sum(1, keepdims=True))
    return groups


def members(
    group: Bool[np.ndarray, "run pre post"], run: Int[np.ndarray, " window"], target: Int[np.ndarray, " window"]
) -> Bool[np.ndarray, "window pre"]:
    """The group's neurons for the target of each window.

    Args:
        group: from `input_groups`.
        run: of each window, as an index into the group's runs; ignored where all have one network.
        target: of each window.

    Returns:
        Which inputs belong to it.
    """
    return group[run if len(group) > 1 else np.zeros_like(run), :, target]
