"""Arrays that JAX on CPU uses in place, instead of copying them for each of its devices."""

import numpy as np

BYTES = 64  # XLA needs addresses that are multiples of this; NumPy's are multiples of 16


def take(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
  """Returns the rows at these indices, stored at an address that is a multiple of `BYTES`.

  They are read-only, because writing to them would change JAX's array too.

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
  # The default mode, 'raise', would gather the rows in another place first.
  np.take(array, indices, axis=0, out=rows, mode='clip')
  rows.flags.writeable = False
  return rows
