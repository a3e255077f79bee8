"""Recordings: what simulators make, what files hold, and what windows are cut from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
