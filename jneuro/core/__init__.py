"""What every package stands on: configuration, names, randomness, devices, files, progress."""
