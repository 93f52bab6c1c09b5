"""Several CPU devices in one process get the threads that they need."""

import pytest

from sparsejax.experiment.machine import threads

FORCED = '--xla_force_host_platform_device_count='


@pytest.mark.parametrize(
  ('variables', 'number'),
  [
    ({}, None),
    ({'XLA_FLAGS': '--xla_cpu_enable_fast_math=false'}, None),
    ({'XLA_FLAGS': f'{FORCED}1'}, None),
    ({'XLA_FLAGS': f'--xla_dump_to=x {FORCED}2 {FORCED}4'}, '8'),  # XLA takes the last
    ({'JAX_NUM_CPU_DEVICES': '8'}, '16'),
    ({'JAX_NUM_CPU_DEVICES': ''}, None),
    ({'XLA_FLAGS': f'{FORCED}8', 'NPROC': '3'}, '3'),
    ({'XLA_FLAGS': f'{FORCED}2', 'JAX_NUM_CPU_DEVICES': '8'}, '16'),  # JAX takes its own
    ({'XLA_FLAGS': f'{FORCED}8', 'JAX_NUM_CPU_DEVICES': '1'}, None),
    ({'XLA_FLAGS': f'{FORCED}8', 'JAX_NUM_CPU_DEVICES': '-1'}, '16'),  # its own default
  ],
)
def test_two_threads_for_each_of_several_devices(variables, number):
  threads.serve_devices(variables, cores=2)
  assert variables.get('NPROC') == number


def test_no_fewer_threads_than_cores():
  variables = {'XLA_FLAGS': f'{FORCED}2'}
  threads.serve_devices(variables, cores=64)
  assert variables['NPROC'] == '64'
