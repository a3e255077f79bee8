"""Recordings: what simulators make, what files hold, and what windows are cut from."""

from jneuro.recordings.foreign import ReadError
from jneuro.recordings.nwb import write_nwb
from jneuro.recordings.readers import read
from jneuro.recordings.recording import Recording
from jneuro.recordings.store import (
    RecordingWriter,
    StoreError,
    has_events,
    open_recording,
    read_events,
    read_recording,
    read_state,
)

__all__ = [
    "ReadError",
    "Recording",
    "RecordingWriter",
    "StoreError",
    "has_events",
    "open_recording",
    "read",
    "read_events",
    "read_recording",
    "read_state",
    "write_nwb",
]
