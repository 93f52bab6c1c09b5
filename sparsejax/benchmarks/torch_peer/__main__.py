"""PyTorch's side of a comparison: makes a block of training steps whenever it is asked to.

PYTHON sparsejax/benchmarks/torch_peer

Needs PyTorch and nothing of sparsejax. Reads lines of JSON: first what is trained, as
`sparsejax.benchmarks.peer.request` has it, then variants and numbers of steps. Answers with lines.
"""

import json
import os
import sys


def main():
  # Whatever else prints, prints beside the answers.
  answers = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def answer(**content):
    print(json.dumps(content), file=answers, flush=True)

  asked = json.loads(sys.stdin.readline())
  try:
    import torch
  except ImportError:
    answer(refused=f'no PyTorch in {sys.executable}; `pip install torch` there, or --torch-python')
    return
  import models
  import training

  if asked['model'] not in models.MODELS:
    answer(refused=f'no model {asked["model"]} in PyTorch; give one of {", ".join(models.MODELS)}')
    return
  training.prepare(asked)
  answer(
    version=torch.__version__,
    variants=training.VARIANTS,
    layers=models.layers(training.build(asked)),
  )
  data = training.Data(asked)
  trainings = {variant: training.Training(asked, data, variant) for variant in training.VARIANTS}
  for line in sys.stdin:
    question = json.loads(line)
    try:
      answer(seconds=trainings[question['variant']].run(question['steps']))
    except Exception as error:  # a compiler that is not there, say: the other ways still go
      answer(failed=f'{question["variant"]}: {type(error).__name__}: {error}'.splitlines()[0])


if __name__ == '__main__':
  main()
