"""What an electrode adds to a recording, and how it is taken off."""

import dataclasses
from typing import Any

from pydantic import Field

from jneuro.core.config import Config

__all__ = ["Electrode"]

_PER_AREA = 100.0
"""1 pA/µm² in µA/cm²."""


class Electrode(Config):
    r"""What is known of the electrode and of the cell, and no file says.

    The membrane's potential and the current through it are

    \[V = V_{recorded} - V_{junction} - R_{series} I, \qquad I = I_{recorded} + I_{bias}.\]

    Attributes:
        liquid_junction_mv: potential of the bath relative to the pipette's solution before sealing, some 10 to 15 mV
            with potassium gluconate [mV]; subtracted, unless the amplifier was told to.
        series_resistance_mohm: what the bridge balance left uncompensated [MΩ]: the potential drop across it, by the
            injected current, is subtracted.
        bias_pa: a holding current that the amplifier added, and that is not in the recorded current [pA].
        area_um2: area of the membrane [µm²]; with it the current becomes a density [µA/cm²], which cells per area take,
            such as `HodgkinHuxley`.

    Example:
        >>> import jneuro as jn
        >>> v, current = [-55.0, -45.0], [0.0, 100.0]
        >>> recording = jn.recordings.from_arrays(v, current, dt=0.1, units={"current": "pA"})
        >>> electrode = jn.recordings.Electrode(liquid_junction_mv=12, series_resistance_mohm=20, area_um2=10_000)
        >>> corrected = electrode.corrected(recording)
        >>> corrected["v"].ravel(), corrected["current"].ravel(), corrected.units["current"]
        (array([-67., -59.]), array([0., 1.]), 'µA/cm²')
    """

    liquid_junction_mv: float = 0.0
    series_resistance_mohm: float = Field(default=0.0, ge=0)
    bias_pa: float = 0.0
    area_um2: float | None = Field(default=None, gt=0)

    def corrected(self, recording: Any) -> Any:
        """Take off what the electrode added.

        Args:
            recording: has `v` [mV], and `current` [pA] where the electrode changes it or depends on it.

        Returns:
            The recording as of the membrane; its `about["electrode"]` says what was done.

        Raises:
            ValueError: if the recording lacks `v` or `current`, they have other units, or it was corrected before.
        """
        if before := recording.about.get("electrode"):
            raise ValueError(f"electrode: the recording was corrected before ({before}); read it anew")
        needed = {"v": "mV"} if self.liquid_junction_mv or self.series_resistance_mohm else {}
        needed |= {"current": "pA"} if self.series_resistance_mohm or self.bias_pa or self.area_um2 else {}
        for name, unit in needed.items():
            if (found := recording.units.get(name)) != unit:
                said = f"has no {name!r}" if found is None else f"has {name!r} in {found}"
                raise ValueError(f"electrode: the recording {said}; its corrections need {name!r} in {unit}")
        values, units, done = dict(recording.values), recording.units, []
        if self.bias_pa:
            values["current"] = values["current"] + self.bias_pa
            done.append(f"{self.bias_pa:g} pA of bias added to the current")
        if self.liquid_junction_mv:
            values["v"] = values["v"] - self.liquid_junction_mv
            done.append(f"liquid junction potential of {self.liquid_junction_mv:g} mV subtracted")
        if self.series_resistance_mohm:
            values["v"] = values["v"] - 1e-3 * self.series_resistance_mohm * values["current"]
            done.append(f"drop across {self.series_resistance_mohm:g} MΩ of series resistance subtracted")
        if self.area_um2 is not None:
            values["current"] = values["current"] * (_PER_AREA / self.area_um2)
            units = units | {"current": "µA/cm²"}
            done.append(f"current divided by {self.area_um2:g} µm² of membrane")
        about = recording.about | ({"electrode": "; ".join(done)} if done else {})
        return dataclasses.replace(
            recording,
            values=values,
            unit_pairs=tuple((n, units[n]) for n in values),
            about_pairs=tuple(sorted(about.items())),
        )
