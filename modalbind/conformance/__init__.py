"""The plugin contract by behaviour: what a plugin promises is tried out, and told check by check.

Nothing here knows a modality by name. Importing it imports nothing heavy: the checks are named in
`catalog` and opened when they run.
"""

from modalbind.conformance.catalog import CHECKS, Check
from modalbind.conformance.report import CheckResult, ConformanceReport
from modalbind.conformance.session import Session, Subject, check_plugin

__all__ = [
    "CHECKS",
    "Check",
    "CheckResult",
    "ConformanceReport",
    "Session",
    "Subject",
    "check_plugin",
]
