"""Recordings: what simulators make, what files hold, and what windows are cut from."""

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
    "Recording",
    "RecordingWriter",
    "StoreError",
    "has_events",
    "open_recording",
    "read_events",
    "read_recording",
    "read_state",
]
