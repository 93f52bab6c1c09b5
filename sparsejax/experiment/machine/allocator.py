"""What the C library's allocator does with memory that XLA gives back."""

import ctypes
import platform

# Of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
NEVER = -1


def keep_freed_memory() -> bool:
  """Keeps what is freed for the next use of it; returns whether the C library can be told so.

  XLA on CPU takes a step's buffers from malloc and frees them after it. By default glibc maps
  each large one anew and returns it to the kernel, which zeroes every page again: 160,000 page
  faults and 15 % of the time of vgg16's step at batch 128. From one heap that never shrinks the
  second step faults none. Only memory of threads yet to start is had from that heap, so this
  comes before JAX's first computation.
  """
  if platform.libc_ver()[0] != 'glibc':
    return False
  mallopt = ctypes.CDLL(None).mallopt
  return all([mallopt(ARENA_MAX, 1), mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, NEVER)])
