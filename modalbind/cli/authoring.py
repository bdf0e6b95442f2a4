"""The command for authors of plugins: `plugins check`, the contract by behaviour."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from modalbind.cli.output import Debug, Json, print_json, print_table
from modalbind.conformance import CheckResult, ConformanceReport, check_plugin
from modalbind.errors import ModalbindError


class BrokenContractError(ModalbindError):
    """A plugin fails checks of the contract."""


def check(
    name: Annotated[str, typer.Argument(help="Plugin, distribution or modality.")],
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Run this check or group alone; may be repeated."),
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Leave out a check or group, such as quickstart."),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Try out all that a plugin promises: passed, failed with the line to look at, or skipped."""
    with _shown() as show:
        report = check_plugin(
            name, only=tuple(only or ()), without=tuple(without or ()), on_result=show
        )
    if json:
        print_json(report.to_json())
    else:
        _print_report(report)
    if not report.ok:
        raise BrokenContractError(_summarise_failures(report))


@contextmanager
def _shown() -> Iterator[Callable[[CheckResult], None]]:
    """Show on a terminal what was checked last; nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda result: None
        return
    with console.status("checking") as status:
        yield lambda result: status.update(f"{result.subject}: {result.check}")


def _print_report(report: ConformanceReport) -> None:
    print_table(("status", "subject", "check", "found"), list(_rows(report)), "nothing to check")
    counts = ", ".join(f"{count} {status}" for status, count in report.counts().items())
    seconds = sum(result.seconds for result in report.results)
    print(f"{report.distribution} {report.version}: {counts}; {seconds:.1f} s")


def _rows(report: ConformanceReport) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each failure and skip; checks of a group that need no word share one."""
    names_of: dict[tuple[str, str, str, str], list[str]] = {}
    for result in report.results:
        names_of.setdefault(_alike(result), []).append(result.check)
    for (subject, group, status, note), names in names_of.items():
        what = names[0] if len(names) == 1 else f"{group}.* ({len(names)})"
        yield status, subject, what, note


def _alike(result: CheckResult) -> tuple[str, str, str, str]:
    note = "; ".join(filter(None, (result.reason, result.where)))
    return result.subject, result.check.partition(".")[0], result.status, note


def _summarise_failures(report: ConformanceReport) -> str:
    first = report.failed[0]
    return (
        f"the contract of {report.distribution} {report.version} asked for; "
        f"{len(report.failed)} of {len(report.results)} checks failed, first {first.check} of "
        f"{first.subject}: {first.reason}; look at {first.where or 'its factory'}"
    )
