"""Writes the first version of a plugin: `modalbind plugins new NAME`.

Checks come first and touch nothing; then the template is rendered beside the place where the
plugin goes, and moved there whole.
"""

from modalbind.scaffold.plan import KINDS, Plan, plan_plugin
from modalbind.scaffold.write import write_plugin

__all__ = ["KINDS", "Plan", "plan_plugin", "write_plugin"]
