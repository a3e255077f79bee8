"""Weights to and from other libraries, and models on disk."""

from jneuro.interop.keras_weights import load_keras, save_keras
from jneuro.interop.tensors import WeightsError
from jneuro.interop.torch_weights import from_torch, load_state_dict, save_state_dict, to_torch
from jneuro.interop.weights_folder import load_weights, save_weights

__all__ = [
    "WeightsError",
    "from_torch",
    "load_keras",
    "load_state_dict",
    "load_weights",
    "save_keras",
    "save_state_dict",
    "save_weights",
    "to_torch",
]
