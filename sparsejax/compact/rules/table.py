"""All rules, by the name of the primitive."""

from sparsejax.compact.rules import calls, entrywise, products, reductions, shapes, taking
from sparsejax.compact.rules.rule import UNKNOWN, Rule

RULES = (
  entrywise.RULES | shapes.RULES | taking.RULES | products.RULES | reductions.RULES | calls.RULES
)


def rule_of(name: str) -> Rule:
  """Returns the rule of a primitive; the rule for unknown ones pins every axis they touch."""
  return RULES.get(name, UNKNOWN)
