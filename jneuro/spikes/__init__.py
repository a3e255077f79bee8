"""One meaning of spike and step: detection, intervals, spike-train metrics, features and protocols, on plain arrays."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
