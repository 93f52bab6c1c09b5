"""Memory that a step gives back stays with the process."""

import platform
import subprocess
import sys

import commands
import pytest

# Prints the page faults of the last 10 of 30 calls of a program that needs some 50 MB. The heap
# grows in the first calls, by no rule.
PROGRAM = """
import resource, sys
from sparsejax.experiment.machine import allocator
if sys.argv[1] == 'keep':
  assert allocator.keep_freed_memory()
import jax
from jax.numpy import cumsum, sin, tanh
step = jax.jit(lambda x: tanh(sin(x[::-1]) + x.T).sum(0) + (cumsum(x, 0) @ x[:, :8])[:, 0])
x = jax.numpy.ones((2048, 2048))
for _ in range(20):
  step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
  step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM, how],
    cwd=commands.ROOT,
    env=commands.environment() | {'JAX_DISABLE_MOST_OPTIMIZATIONS': '0'},
    capture_output=True,
    text=True,
    check=True,
  )
  return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the C library is not glibc')
def test_a_buffer_that_was_freed_is_used_again_without_a_page_fault():
  assert faults('keep') < faults('leave') / 2
