"""The report of a run: scores beside baselines and noise ceiling, figures, and the configuration that made them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
