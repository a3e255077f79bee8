"""A sweep that costs next to nothing, and a measure of one's own."""

import jax
import numpy as np

from jneuro.sweeps.config import SweepConfig


def spread(recording):
    """Range of the potential, and the square of it."""
    v = recording.values["v"]
    return {"spread": v.max() - v.min(), "spread_squared": (v.max() - v.min()) ** 2}


def picky(recording):
    """The mean potential; a high one is refused, on the host."""

    def refuse(v):
        if v > HIGH:
            raise ValueError(f"{v:.1f} mV is too high")
        return np.asarray(v)

    v = recording.values["v"].mean()
    return jax.pure_callback(refuse, jax.ShapeDtypeStruct((), v.dtype), v, vmap_method="sequential")


HIGH = -50.0


def cheap(design=None, measures=("rate", "v_mean"), keep=(), duration=2.0, **more):
    """Two axes of an Izhikevich cell, seven and five values."""
    axes = {"a": {"low": 0.02, "high": 0.1, "points": 7}, "amplitude": {"low": 0, "high": 20, "points": 5}}
    return SweepConfig.model_validate(
        {
            "name": "cheap",
            "simulation": {
                "simulator": {"name": "izhikevich"},
                "stimulus": {"name": "constant", "amplitude": 0},
                "duration_ms": duration,
            },
            "sweep": {"axes": axes, "chunk": 8, "lanes": 4} if design is None else design,
            "measures": measures,
            "keep": keep,
            **more,
        }
    )
