"""Every public transformation keeps the contract, after and around every optimizer."""

import inspect
import types
from collections.abc import Callable
from typing import Any

import contract
import optax
import pytest
import trials
from transformations import OPTIMIZERS, TRANSFORMATIONS, check, forms_of, optimizer, trained

import sparsejax
from sparsejax import cubic, prune

pytestmark = pytest.mark.usefixtures('compiling_is_quick')


def public_transformations(module: Any) -> dict[str, Callable]:
  """The functions of the index whose annotation says that they return a transformation."""

  def returns_one(value):
    annotation = inspect.signature(value, eval_str=True).return_annotation
    return inspect.isclass(annotation) and issubclass(annotation, optax.GradientTransformation)

  public = {name: getattr(module, name) for name in module.__all__}
  return {n: f for n, f in public.items() if inspect.isfunction(f) and returns_one(f)}


def without_examples(module: Any) -> list[str]:
  return [
    name
    for name, factory in public_transformations(module).items()
    if not any(form.func is factory for form in forms_of(name))
  ]


def cases():
  """Every form of every transformation at every point; at the costly ones the first and the last.

  So the last form is the one that has most of everything.
  """
  for name, entry in TRANSFORMATIONS.items():
    first, *_, last = entry.forms
    for title, form in entry.forms.items():
      for point in contract.POINTS:
        if point not in contract.COSTLY or title in (first, last):
          yield pytest.param(point, form, id=f'{point.__name__}-{name}-{title}')


# Finding them


def test_every_public_transformation_has_examples():
  assert public_transformations(sparsejax)
  assert without_examples(sparsejax) == []
  assert set(TRANSFORMATIONS) == set(public_transformations(sparsejax))


def test_a_transformation_without_examples_is_found():
  def forgotten() -> optax.GradientTransformation:
    return optax.identity()

  def no_transformation() -> float:
    return 0.0

  index = types.ModuleType('index')
  index.__all__ = ['prune', 'forgotten', 'no_transformation', 'cubic']
  index.__dict__.update(
    prune=prune, forgotten=forgotten, no_transformation=no_transformation, cubic=cubic
  )
  assert without_examples(index) == ['forgotten']


def test_every_public_function_says_what_it_returns():
  """A transformation without an annotation would not be found."""
  public = [getattr(sparsejax, name) for name in sparsejax.__all__]
  functions = [value for value in public if inspect.isfunction(value)]
  silent = [f.__name__ for f in functions if 'return' not in f.__annotations__]
  assert silent == []


@pytest.mark.parametrize('name', TRANSFORMATIONS)
def test_one_that_takes_inner_links_has_examples_with_and_without(name):
  takes_inner = 'inner' in inspect.signature(next(iter(forms_of(name))).func).parameters
  assert {'inner' in form.keywords for form in forms_of(name)} == {takes_inner, False}


# Keeping the contract


@pytest.mark.parametrize(('point', 'form'), list(cases()))
def test_it_keeps(point, form):
  point(form)


def bare(name):
  return [form for form in forms_of(name) if 'inner' not in form.keywords]


@pytest.mark.parametrize('ahead', OPTIMIZERS)
@pytest.mark.parametrize('name', TRANSFORMATIONS)
def test_behind_every_optimizer(name, ahead):
  forms = bare(name)
  form = forms[list(OPTIMIZERS).index(ahead) % len(forms)]
  tx = optax.chain(optimizer(ahead), trials.trial(form).jitted)
  entry = TRANSFORMATIONS[name]
  check(trained(tx, entry.start), entry.promise)


@pytest.mark.parametrize(
  ('name', 'inner'),
  [(name, inner) for name, entry in TRANSFORMATIONS.items() for inner in entry.around],
)
def test_around_every_optimizer_that_it_takes(name, inner):
  form = next(form for form in forms_of(name) if 'inner' in form.keywords)
  tx = trials.jitted(form(inner=OPTIMIZERS[inner]()))
  entry = TRANSFORMATIONS[name]
  check(trained(tx, entry.start), entry.promise)
