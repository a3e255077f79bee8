"""Differentiable neural simulators, the sequence models trained on them, and an honest score.

θ → simulator → recording → windows → model → score, with the noise ceiling beside every score.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
