"""Command line: hitl-nb demo | stats | export."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hitl_nb.connect import open_queue
from hitl_nb.errors import BadInput, HitlError

if TYPE_CHECKING:
    from hitl_nb.queue import ReviewQueue, Stats

_EXAMPLES = """examples:
  hitl-nb demo                              the whole loop on 4,601 e-mails, in about a minute
  hitl-nb demo --data digits --quiet        the same on images
  hitl-nb stats hitl-demo.duckdb            what is in a queue
  hitl-nb export hitl-demo.duckdb out.csv   every decision with its answer

exit codes: 0 done, 1 it could not be done (the message says what to do), 2 the call was off
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except HitlError as error:
        print(f"hitl-nb: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    says = "People check what a model was not sure of."
    parser = argparse.ArgumentParser(prog="hitl-nb", description=says, epilog=_EXAMPLES, formatter_class=form)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _demo_options(commands.add_parser("demo", help="run the whole loop on real data with simulated reviewers"))
    stats = commands.add_parser("stats", help="count what is in a queue")
    stats.add_argument("file", type=Path, help="queue file")
    stats.set_defaults(run=_stats)
    export = commands.add_parser("export", help="write every decision with its answer to a file")
    export.add_argument("file", type=Path, help="queue file")
    export.add_argument("out", type=Path, help="ends in .parquet, .csv or .jsonl")
    export.add_argument("--inputs", action="store_true", help="add the scalar input fields")
    export.set_defaults(run=_export)
    return parser


def _demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument("--data", choices=("spam", "digits"), default="spam", help="which table (default: spam)")
    demo.add_argument("--path", type=Path, help="queue file to create (default: a new hitl-demo.duckdb here)")
    demo.add_argument("--rows", type=int, help="rows to use (default: all)")
    demo.add_argument("--min-samples", type=int, help="answers that start a retrain (default: 500; digits 150)")
    demo.add_argument("--audit-rate", type=float, help="audited share of the automatic (default: 0.1; digits 0.2)")
    demo.add_argument("--error-rate", type=float, default=0.03, help="how often reviewers err (default: 0.03)")
    demo.add_argument("--seed", type=int, default=0, help="seed of all but the audit draws (default: 0)")
    demo.add_argument("--quiet", action="store_true", help="no progress bars")
    demo.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> None:
    from hitl_nb.demo import Demo, fresh_path

    path = options.path or fresh_path(Path("hitl-demo.duckdb"))
    names = ("rows", "min_samples", "audit_rate", "error_rate", "seed", "quiet")
    print(Demo(options.data, path, **{name: getattr(options, name) for name in names}).run())


def _opened(path: Path) -> ReviewQueue:
    if not path.is_file():
        raise BadInput(name="file", value=str(path), remedy="there is no such file; hitl-nb demo makes one")
    return open_queue(path)


def _stats(options: argparse.Namespace) -> None:
    with _opened(options.file) as queue:
        for what, value in _lines(queue.stats()):
            print(f"{what:<22}{value}")


def _lines(stats: Stats) -> list[tuple[str, str]]:
    from hitl_nb.evidence import clopper_pearson

    def counts(found: dict[str, int] | dict[str | None, int]) -> str:
        return ", ".join(f"{name or 'anyone'} {count}" for name, count in found.items()) or "none"

    share = stats.automatic_share
    return [
        ("decisions", f"{stats.total}"),
        ("automatic share", "none yet" if share is None else f"{share:.1%}"),
        ("status", counts(stats.status)),
        ("answers", counts(stats.outcome)),
        ("reviewers", counts(stats.reviewers)),
        ("open by priority", counts(stats.open_by_priority)),
        ("open by expertise", counts(stats.open_by_expertise)),
        ("overdue", f"{stats.overdue}"),
        ("audits", f"{stats.audits} drawn, {stats.audited} judged"),
        ("audited disagreement", str(clopper_pearson(stats.disagreed, stats.audited)) if stats.audited else "none yet"),
    ]


def _export(options: argparse.Namespace) -> None:
    with _opened(options.file) as queue:
        print(f"{queue.export(str(options.out), inputs=options.inputs)} decisions written to {options.out}")


if __name__ == "__main__":
    sys.exit(main())
