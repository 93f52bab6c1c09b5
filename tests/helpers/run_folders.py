"""Run directories made by hand, as small as a report can read them, broken ones among them."""

import csv
import json

from sparsejax.experiment.machine import files

LAYERS = {
  'fc1': {'weights': 800, 'active_weights': 40, 'units': 20, 'active_units': 5},
  'fc2': {'weights': 200, 'active_weights': 10, 'units': 10, 'active_units': 10},
}


def write_run(path, *, seed=0, accuracy=0.98, density=0.05, method='pruning', epochs=4, **changes):
  """A finished run of lenet300 on mnist, as small as one can be; None leaves a file out."""
  config = {
    'hash': changes.pop('hash', f'{method[:3]}{density}'),
    'method': method,
    'seed': seed,
    'epochs': float(epochs),
    'data': {'name': 'mnist', 'limit': None},
    'model': {'name': 'lenet300', 'width': None},
    'prune': {'density': density, 'granularity': 'weight'},
  }
  summary = {
    'name': 'lenet300',
    'seed': seed,
    'epochs': float(epochs),
    'seconds': 10.0,
    'validation_accuracy': accuracy + 0.005,
    'test_accuracy': accuracy,
    'parameters': 1000,
    'active_parameters': int(1000 * density),
    'active_fraction': density,
    'weights': 1000,
    'active_weights': int(1000 * density),
    'compression': 1 / density,
    'theoretical_speedup': 0.5 / density,
    'layers': LAYERS,
    'phases': {'dense': {'validation_accuracy': 0.99}, 'retrained': {'validation_accuracy': 0.98}},
  }
  lines = [
    {'step': 10 * e, 'epoch': float(e), 'validation_accuracy': accuracy - 0.1 / e}
    | {'validation_loss': 1.0 / e, 'train_loss': 1.0 / e, 'active_fraction': density}
    for e in range(1, epochs + 1)
  ]
  environment = [{'cpus': 2, 'processor': 'a chip', 'devices': ['cpu'], 'backend': 'cpu'}]
  path.mkdir(parents=True)
  contents = {'config': config, 'summary': summary, 'metrics': lines, 'environment': environment}
  for name, content in (contents | changes).items():
    if isinstance(content, str):
      text = content
    elif name == 'metrics' and content is not None:
      text = ''.join(json.dumps(line) + '\n' for line in content)
    else:
      text = json.dumps(content)
    if content is not None:
      suffix = 'jsonl' if name == 'metrics' else 'json'
      (path / f'{name}.{suffix}').write_text(text)
  return path


def every_kind(root):
  """Three seeds of one experiment, one of another, a dense control, and all that can be wrong."""
  for seed, accuracy in enumerate((0.97, 0.98, 0.99)):
    write_run(root / 'sparse' / f'seed{seed}', seed=seed, accuracy=accuracy)
  write_run(root / 'sparser #1 50%?' / 'seed0', density=0.01, accuracy=0.95)
  write_run(root / 'dense' / 'seed0', density=1.0, accuracy=0.985, method='dense')
  wrong = root / 'wrong'
  write_run(wrong / 'unfinished', summary=None, density=0.02)
  write_run(wrong / 'cut', density=0.03, metrics='{"epoch": 1.0, "step": 1}\n{"epoch": 2.0, "st')
  write_run(wrong / 'broken', config='{"seed": ', summary='[]', metrics=None)
  write_run(
    wrong / 'diverged', summary=None, density=0.04, metrics='{"epoch": 1, "train_loss": NaN}'
  )
  gone = {'fc1': {'weights': 800, 'active_weights': 0}, 'fc2': LAYERS['fc2']}
  path = write_run(wrong / 'collapsed', density=0.001, accuracy=0.1)
  edit(path / 'summary.json', layers=gone)
  write_run(root / 'again' / 'sparse' / 'seed0', accuracy=0.5)
  return root


def edit(file, **changes):
  file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def forget_owner(folder):
  """Makes a checkpoint like those from before checkpoints named their run."""
  notes, manifest = folder / 'notes.json', folder / 'manifest.json'
  kept = {name: x for name, x in files.read_json(notes).items() if name not in ('hash', 'seed')}
  files.write_json(notes, kept)
  edit(manifest, **{notes.name: files.digest(notes)})


def read_csv(out):
  with (out / 'runs.csv').open() as file:
    return {row['run']: row for row in csv.DictReader(file)}


def write_sweep(search, scheduler, trials=None):
  settings = {
    'scheduler': {'name': scheduler, 'eta': 3},
    'configs': ['configs/quickstart.py'],
    'sampler': 'random',
    'objectives': [{'metric': 'validation_loss', 'direction': 'minimize'}],
    'constraints': [],
  }
  (search / 'sweep.json').write_text(json.dumps(settings))
  if trials is not None:
    (search / 'trials.json').write_text(trials if isinstance(trials, str) else json.dumps(trials))
