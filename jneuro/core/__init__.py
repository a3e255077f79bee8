"""What every package stands on: configuration, names, randomness, devices, files, progress."""

__all__: list[str] = []
