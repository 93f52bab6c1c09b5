"""PyTorch's side of a comparison: makes a block of training steps whenever it is asked to.

PYTHON sparsejax/benchmarks/torch_peer

The program needs PyTorch and nothing of sparsejax. It reads lines of JSON: first what to train, as
`sparsejax.benchmarks.peer.request` returns it, then variants and numbers of steps. It answers each
with a line.
"""

import json
import os
import sys


def main():
  # Anything else that prints goes to stderr, so that only answers reach stdout.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def answer(**content):
    print(json.dumps(content), file=answers, flush=True)

  settings = json.loads(sys.stdin.readline())
  try:
    import torch
  except ImportError:
    remedy = '`pip install torch` there, or name another interpreter with --torch-python'
    answer(refused=f'no PyTorch in {sys.executable}: {remedy}')
    return
  import models
  import training

  if settings['model'] not in models.MODELS:
    answer(
      refused=f'no model {settings["model"]} in PyTorch; give one of {", ".join(models.MODELS)}'
    )
    return
  training.prepare(settings)
  answer(
    version=torch.__version__,
    variants=training.VARIANTS,
    layers=models.layers(training.build(settings)),
  )
  data = training.Data(settings)
  trainings = {variant: training.Training(settings, data, variant) for variant in training.VARIANTS}
  for line in sys.stdin:
    question = json.loads(line)
    try:
      answer(seconds=trainings[question['variant']].run(question['steps']))
    except Exception as error:  # such as a missing compiler: other variants may still run
      answer(failed=f'{question["variant"]}: {type(error).__name__}: {error}'.splitlines()[0])


if __name__ == '__main__':
  main()
