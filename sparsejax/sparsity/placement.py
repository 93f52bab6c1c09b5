"""Giving results the shardings of the arrays that they belong to, on any mesh."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType


def placed_like(tree: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Returns a decorator that gives a function's result the shardings of a tree.

  On a mesh with explicit axes, the default of `jax.make_mesh`, JAX refuses operations whose output
  sharding is ambiguous. Within the decorated function XLA chooses the shardings instead.

  Args:
    tree: a pytree of arrays with the structure and shapes of the function's result.
  """

  def decorate(function):
    shardings = [jax.typeof(leaf).sharding for leaf in jax.tree.leaves(tree)]
    if not any(AxisType.Explicit in sharding.mesh.axis_types for sharding in shardings):
      return function
    out = jax.tree.unflatten(jax.tree.structure(tree), shardings)
    return functools.wraps(function)(jax.sharding.auto_axes(function, out_sharding=out))

  return decorate
