"""Arrays that JAX on CPU uses where they lie, instead of copying them for each of its devices."""

import numpy as np

BYTES = 64  # what XLA asks of an address; NumPy's are multiples of 16


def take(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
  """Returns the rows of these indices, at a multiple of `BYTES`.

  They are read-only: what is written there would change JAX's array too.

  Example:
    >>> rows = take(np.array([5, 6, 7]), np.array([2, 0]))
    >>> rows, rows.ctypes.data % BYTES
    (array([7, 5]), 0)
  """
  shape = (len(indices), *array.shape[1:])
  size = array.itemsize * int(np.prod(shape))
  memory = np.empty(size + BYTES, np.uint8)
  begin = -memory.ctypes.data % BYTES
  rows = memory[begin : begin + size].view(array.dtype).reshape(shape)
  # The default mode, 'raise', would put the rows together elsewhere first.
  np.take(array, indices, axis=0, out=rows, mode='clip')
  rows.flags.writeable = False
  return rows
