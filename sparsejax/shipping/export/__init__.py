"""A network in the formats of others: each file is read back and tried before it counts as written.

`stablehlo` writes a program that JAX runs without this package, `safetensors` the parameters alone.
"""

from sparsejax.shipping.export.safetensors import safetensors
from sparsejax.shipping.export.stablehlo import stablehlo

__all__ = ['safetensors', 'stablehlo']
