"""Sequence models: each a `flax.nnx.Module` built from its configuration, all called alike."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
