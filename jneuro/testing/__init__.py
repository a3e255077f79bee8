"""Does a simulator, a stimulus, a measure or a model of one's own keep what its kind promises?

Each `check_*` runs one suite of small checks, as scikit-learn's `check_estimator` does: gradients against differences
in double precision, vmapped = looped, dtypes, independence of batch and chunk, serialisation. All that fail are listed
in one `ContractError`, each with the promise, what was found, and the remedy.

    def test_my_cell():
        jneuro.testing.check_simulator(MyCell(), stimulus=jn.stimuli.Constant(0.5))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
