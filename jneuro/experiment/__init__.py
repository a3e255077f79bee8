"""One experiment, from its configuration to its report: simulate, window, train, evaluate, report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
