"""Training: a recipe, compiled steps, checkpoints that survive a kill, and what is told meanwhile."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
