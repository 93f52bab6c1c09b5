"""Exports networks to other formats; each file is read back and checked before it is kept.

`stablehlo` writes a program that JAX runs without this package, `onnx` a model for other runtimes,
and `safetensors` the parameters alone.
"""

from sparsejax.shipping.export.onnx import onnx
from sparsejax.shipping.export.safetensors import safetensors
from sparsejax.shipping.export.stablehlo import stablehlo

__all__ = ['onnx', 'safetensors', 'stablehlo']
