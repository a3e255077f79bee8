"""The readers that a configuration may name, and a recording's file as a key of a configuration."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, SerializationInfo, model_validator

from jneuro.core.config import AbsolutePath, Config
from jneuro.core.names import unknown_name
from jneuro.core.registry import Registry, accepted, takes_any
from jneuro.recordings.electrode import Electrode

__all__ = ["READERS", "RecordingFile", "RecordingSource"]


def _lacks(thing: Any) -> str | None:
    if isinstance(thing, type) or not callable(thing):
        return f"is of the type {type(thing).__name__}, not a function of a path that returns a Recording"
    return None


READERS = Registry(
    "reader",
    {
        "abf": "jneuro.recordings.abf:read_abf",
        "neo": "jneuro.recordings.neo_files:read_neo",
        "nwb": "jneuro.recordings.nwb:read_nwb",
        "nwb_units": "jneuro.recordings.nwb_units:read_nwb_units",
        "store": "jneuro.recordings.readers:read_store",
        "table": "jneuro.recordings.tables:read_table",
    },
    _lacks,
    given=("path", "sweeps"),
)
"""Every reader by its name: a function of a path, and of further arguments, that returns a Recording.

A reader's attribute `suffixes`, such as `(".csv",)`, says which files it takes where no reader is named.
"""


class RecordingFile(Config):
    """A recording that exists.

    Every further key is an argument of the reader: `channel`, `unit` or `current` of ABF and NWB; `time`, `v`, `dt` or
    `uneven` of tables.

    Attributes:
        path: the file, or the store.
        reader: how it is read: a name of `READERS`, or `module:function` of one's own, alone or with arguments; by
            default the one that reads files of this ending.
        sweeps: trials that are read, by their number from 0; all by default.
        electrode: what the electrode added: liquid junction, series resistance, bias current, membrane area.
    """

    model_config = ConfigDict(extra="allow")

    path: AbsolutePath
    reader: Annotated[Any, READERS.field()] | None = None
    sweeps: tuple[int, ...] | None = Field(default=None, min_length=1)
    electrode: Electrode | None = None

    @property
    def _said(self) -> dict[str, Any]:
        """What the user says of the file, as arguments of its reader."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _of_the_reader(self) -> Self:
        """Refuse what the reader does not take, with the key that was probably meant."""
        if self._said:
            from jneuro.recordings.readers import reader_of

            block = self.reader or READERS.block(reader_of(self.path))
            known = [n for n in accepted(block.target) if n != "path"]
            own = [n for n in type(self).model_fields if n not in known]
            for key in self._said:
                if key not in known and not takes_any(block.target):
                    raise ValueError(f"{unknown_name(key, [*own, *known], 'key')} (reader {block.name})")
        return self

    @property
    def is_store(self) -> bool:
        """Whether it is a store of ours, from which trials are read one by one."""
        from jneuro.recordings.readers import read_store, reader_of

        if self.sweeps is not None or self.electrode is not None or self._said:
            return False
        return (self.reader.target if self.reader else reader_of(self.path)) is read_store

    def read(self) -> Any:
        """Read it; see `jneuro.recordings.read`.

        Returns:
            The recording, its arrays `[trial, time, neuron]`.
        """
        from jneuro.recordings.readers import read

        return read(self.path, self.sweeps, reader=self.reader, electrode=self.electrode, **self._said)


def _as_mapping(value: Any) -> Any:
    return {"path": value} if isinstance(value, str | Path) else value


def _plain(value: RecordingFile, info: SerializationInfo) -> Any:
    """A path alone where there is no more to say."""
    if set(value.model_dump(exclude_none=True)) == {"path"}:
        return str(value.path) if info.mode == "json" else value.path
    return value.model_dump(mode=info.mode, exclude_none=True)


RecordingSource = Annotated[RecordingFile, BeforeValidator(_as_mapping), PlainSerializer(_plain)]
"""The type of a configuration's key `recording`: a path, or a mapping of the attributes of `RecordingFile`."""
