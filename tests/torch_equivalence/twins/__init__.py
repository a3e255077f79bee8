"""The models as one would write them in PyTorch, each built from our configuration."""
