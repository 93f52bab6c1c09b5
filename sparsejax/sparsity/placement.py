"""Where results lie: as the arrays that they belong to, whatever the mesh."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType


def placed_like(tree: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Returns a decorator for a function whose result has a tree's structure, shapes and places.

  On an explicit mesh, which `jax.make_mesh` makes by default, every operation must say where its
  result lies. Inside the function XLA decides, and the result lies as the tree does.

  Args:
    tree: a pytree of arrays, with the shapes of the function's result.
  """

  def decorate(function):
    shardings = [jax.typeof(leaf).sharding for leaf in jax.tree.leaves(tree)]
    explicit = [AxisType.Explicit in sharding.mesh.axis_types for sharding in shardings]
    if not any(explicit):
      return function
    out = jax.tree.unflatten(jax.tree.structure(tree), shardings)
    return functools.wraps(function)(jax.sharding.auto_axes(function, out_sharding=out))

  return decorate
