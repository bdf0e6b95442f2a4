"""What the checks found: one row for each check of each thing that a plugin offers."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check of one subject.

    Attributes:
        check: Its name in the catalogue, such as `encoder.padding`.
        subject: What was checked, such as `encoder beats`.
        status: `skipped` means that it could not be tried, and is never a pass.
        reason: What was found, if it did not pass; one line.
        where: `file:line` to look at, if it failed.
        seconds: How long it took.
        is_blocked: Whether it was skipped because a check that it needs did not pass; the reason
            names that one.
    """

    check: str
    subject: str
    status: Status
    reason: str = ""
    where: str = ""
    seconds: float = 0.0
    is_blocked: bool = False


@dataclass(frozen=True, slots=True)
class ConformanceReport:
    """All results of one plugin.

    Attributes:
        plugin: Name of its entry point.
        distribution: What pip knows it by.
        version: Of the distribution.
        results: In the order of the catalogue, subject by subject.
    """

    plugin: str
    distribution: str
    version: str
    results: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed; what was skipped is no failure and no pass."""
        return not self.failed

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that the plugin does not pass."""
        return tuple(result for result in self.results if result.status == "failed")

    def counts(self) -> dict[str, int]:
        """Return how many checks passed, failed and were skipped."""
        found = Counter(result.status for result in self.results)
        return {status: found[status] for status in ("passed", "failed", "skipped")}

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "plugin": self.plugin,
            "distribution": self.distribution,
            "version": self.version,
            "ok": self.ok,
            "counts": self.counts(),
            "results": [asdict(result) for result in self.results],
        }
