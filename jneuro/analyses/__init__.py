"""The analyses that jneuro brings: one file each, with configuration, computation, text, tables and figures."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
