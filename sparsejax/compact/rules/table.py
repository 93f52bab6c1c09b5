"""Every rule there is, by the primitive's name."""

from sparsejax.compact.rules import calls, entrywise, products, reductions, shapes, taking
from sparsejax.compact.rules.rule import UNKNOWN, Rule

RULES = (
  entrywise.RULES | shapes.RULES | taking.RULES | products.RULES | reductions.RULES | calls.RULES
)


def rule_of(name: str) -> Rule:
  """Returns the rule of a primitive; of one that nobody knows, that all it touches stays."""
  return RULES.get(name, UNKNOWN)
