"""Command line: hitl-nb demo | lab | stats | export | replay | retrain | doctor | rebuild | token | serve."""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hitl_nb.connect import OWNER_TOKEN, open_queue, serve_file
from hitl_nb.display import clean, markdown
from hitl_nb.errors import BadInput, HitlError
from hitl_nb.queue.token import ROLES, token_table
from hitl_nb.shipped import shipped

if TYPE_CHECKING:
    import pandas as pd

    from hitl_nb.policy import Policy
    from hitl_nb.queue import ReviewQueue

_EXAMPLES = """examples:
  hitl-nb demo                              the whole loop on 4,601 e-mails, in about a minute
  hitl-nb demo --data digits --quiet        the same on images
  hitl-nb lab                               the notebooks, in JupyterLab
  hitl-nb stats hitl-demo.duckdb            what is in a queue
  hitl-nb export hitl-demo.duckdb out.csv   every decision with its answer
  hitl-nb replay policy.toml hitl-demo.duckdb --min-coverage 0.8 --max-risk 0.05    a gate for CI
  hitl-nb retrain hitl-demo.duckdb          learn from the answers; a model proven not worse is in use then
  hitl-nb token create reviews.duckdb --reviewer ann --expertise law    let ann in where the queue is served
  hitl-nb token list reviews.duckdb         who may use it, as whom, and until when
  hitl-nb token revoke reviews.duckdb ID    nobody gets in any more with that token
  hitl-nb serve reviews.duckdb              the review API of a queue, at http://127.0.0.1:8000
  hitl-nb doctor hitl-demo.duckdb           is the file sound, and what to do if not
  hitl-nb rebuild broken.duckdb new.duckdb  what the log of a damaged file holds, in a new file
"""
_USUAL = "0 done, 1 it could not be done (what to do is said), 2 the call was off"
#: exit codes of the commands that have others
_CODES = {
    "replay": "0 the demands are met, 1 one is not or cannot be judged, 2 the policy could not be replayed",
    "doctor": "0 all is as it should be, 1 something is not (what to do is said), 2 the call was off",
    "serve": "0 it was asked to end, 1 it cannot serve, or its queue has stopped, 2 the call was off",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except HitlError as error:
        print(f"hitl-nb: {clean(str(error))}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hitl-nb", description="People check what a model was not sure of.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _demo_options(commands.add_parser("demo", help="run the whole loop on real data with simulated reviewers"))
    lab = commands.add_parser("lab", help="copy the notebooks to a folder and open them in JupyterLab")
    lab.add_argument("folder", type=Path, nargs="?", default="hitl-notebooks", help="default: hitl-notebooks here")
    lab.add_argument("--no-browser", action="store_true", help="start JupyterLab, open no browser")
    lab.add_argument("--copy-only", action="store_true", help="start nothing")
    lab.set_defaults(run=_lab)
    stats = commands.add_parser("stats", help="count what is in a queue")
    stats.add_argument("url", help="queue file, postgresql://… or http://…")
    stats.set_defaults(run=_stats)
    export = commands.add_parser("export", help="write every decision with its answer to a file")
    export.add_argument("url", help="queue file, or postgresql://…")
    export.add_argument("out", type=Path, help="ends in .parquet, .csv or .jsonl")
    export.add_argument("--inputs", action="store_true", help="add the scalar input fields")
    export.set_defaults(run=_export)
    _replay_options(commands.add_parser("replay", help="let a policy decide about a history, and judge what it does"))
    retrain = commands.add_parser("retrain", help="learn from the answers; the new model is in use if proven not worse")
    retrain.add_argument("file", type=Path, help="queue file")
    retrain.add_argument("--models", type=Path, help="folder of the models (default: FILE with the ending .models)")
    retrain.add_argument("--labels", type=Path, help="CSV or Parquet file of labels that did not come from the queue")
    retrain.set_defaults(run=_retrain)
    doctor = commands.add_parser("doctor", help="look at everything about a queue file, and say what to do")
    doctor.add_argument("file", type=Path, help="queue file; it is not changed")
    doctor.set_defaults(run=_doctor)
    rebuild = commands.add_parser("rebuild", help="make a new queue file from the log of a damaged one")
    rebuild.add_argument("file", type=Path, help="damaged queue file; it is not changed")
    rebuild.add_argument("new", type=Path, help="file to create")
    rebuild.set_defaults(run=_rebuild)
    _token_options(commands.add_parser("token", help="say who may use a served queue"))
    serve = commands.add_parser("serve", help="serve the review API of a queue to who has a token")
    serve.add_argument("url", help="queue file, or postgresql://…")
    serve.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1, this machine alone)")
    serve.add_argument("--port", type=int, default=8000, help="port (default: 8000; 0: any that is free)")
    idle = "instead: only own the file for this user's processes, end after so many seconds without a call"
    serve.add_argument("--idle", type=float, metavar="SECONDS", help=idle)
    serve.set_defaults(run=_serve)
    _explain(parser)
    return parser


def _explain(parser: argparse.ArgumentParser) -> None:
    """Let the help of a command, and of those below it, end with its examples and exit codes."""
    examples = [line for line in _EXAMPLES.splitlines() if line.startswith(f"  {parser.prog} ")]
    command = parser.prog.partition(" ")[2]
    codes = [_CODES.get(command, _USUAL), *(f"of {one}: {said}" for one, said in _CODES.items() if not command)]
    parser.epilog = "\n".join(["examples:", *examples, "", "exit codes: " + ";\n".join(codes)])
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                says = next(one.help for one in action._choices_actions if one.dest == name) or ""
                below.description = f"{says[:1].upper()}{says[1:]}."
                _explain(below)


def _token_options(token: argparse.ArgumentParser) -> None:
    parts = token.add_subparsers(required=True, metavar="ACTION")
    create = parts.add_parser("create", help="let somebody in; the secret is printed this once")
    create.add_argument("url", help="queue file (made if there is none), postgresql://… or http://…")
    create.add_argument("--reviewer", required=True, help="as whom its holder acts")
    said = "what it may do (default: reviewer); again for more"
    create.add_argument("--role", action="append", choices=ROLES, help=said)
    create.add_argument("--expertise", action="append", default=[], help="what it may judge; again for more")
    create.add_argument("--days", type=float, default=90, help="how long it holds (default: 90)")
    create.set_defaults(run=_create_token)
    shown = parts.add_parser("list", help="show all tokens, without their secrets")
    shown.add_argument("url", help="queue file, postgresql://… or http://…")
    shown.set_defaults(run=_list_tokens)
    revoke = parts.add_parser("revoke", help="let nobody in any more with a token")
    revoke.add_argument("url", help="queue file, postgresql://… or http://…")
    revoke.add_argument("id", help="as hitl-nb token list shows it")
    revoke.set_defaults(run=_revoke_token)


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


def _replay_options(replay: argparse.ArgumentParser) -> None:
    share: dict[str, Any] = {"type": float, "metavar": "SHARE"}
    replay.add_argument("policy", type=Path, help="policy.toml, as the explorer of the lab writes it")
    replay.add_argument("history", type=Path, help="queue file, or what export --inputs wrote: .parquet, .csv, .jsonl")
    replay.add_argument("--min-coverage", help="least share that goes through without a person", **share)
    replay.add_argument("--max-risk", help="largest disagreement with it; its upper bound is judged", **share)
    replay.add_argument("--level", default=0.95, help="how often that bound holds (default: 0.95)", **share)
    replay.add_argument("--using", metavar="MODULE:NAME", help="dict of the detectors and functions of rules, by name")
    replay.add_argument("--summary", type=Path, metavar="FILE", help="append the result to it, as Markdown")
    replay.set_defaults(run=_replay)


def _demo(options: argparse.Namespace) -> None:
    from hitl_nb.demo import Demo, fresh_path

    path = options.path or fresh_path(Path("hitl-demo.duckdb"))
    names = ("rows", "min_samples", "audit_rate", "error_rate", "seed", "quiet")
    print(Demo(options.data, path, **{name: getattr(options, name) for name in names}).run())


def _lab(options: argparse.Namespace) -> None:
    if not options.copy_only and find_spec("jupyterlab") is None:
        remedy = 'pip install "hitl-nb[lab]", or copy the notebooks alone with hitl-nb lab --copy-only'
        raise HitlError(what=f"JupyterLab is not installed; {remedy}")
    try:
        _copy(options.folder)
    except OSError as error:
        raise BadInput(name="folder", value=str(options.folder), remedy=f"{error}; choose another one") from error
    if not options.copy_only:
        command = [sys.executable, "-m", "jupyterlab", str(options.folder.resolve())]
        os.execv(sys.executable, [*command, *["--no-browser"] * options.no_browser])  # signals go to it alone


def _copy(folder: Path) -> None:
    """Copy the notebooks; what is there already stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(shipped("notebooks").glob("*.ipynb")):
        said = "copied"
        try:
            with (folder / source.name).open("xb") as target:
                target.write(source.read_bytes())
        except FileExistsError:
            said = "kept the one that is there:"
        print(said, folder / source.name, flush=True)


def _opened(path: Path) -> ReviewQueue:
    if not path.is_file():
        raise BadInput(name="file", value=str(path), remedy="there is no such file; hitl-nb demo makes one")
    return open_queue(path)


def _stats(options: argparse.Namespace) -> None:
    with _reached(options.url) as queue:
        print(queue._table())


def _export(options: argparse.Namespace) -> None:
    with _reached(options.url) as queue:
        print(f"{queue.export(str(options.out), inputs=options.inputs)} decisions written to {options.out}")


def _reached(url: str) -> ReviewQueue:
    """Return the queue of a URL, or of a file that is there."""
    return open_queue(url) if "://" in url else _opened(Path(url))


def _create_token(options: argparse.Namespace) -> None:
    with open_queue(options.url) as queue:
        roles = options.role or ["reviewer"]
        secret, token = queue.create_token(options.reviewer, roles, options.expertise, options.days)
    print(
        f"token {token.id}, until {token.expires_at:%Y-%m-%d}; this is the only time that it is shown:", file=sys.stderr
    )
    print(secret)


def _list_tokens(options: argparse.Namespace) -> None:
    with _reached(options.url) as queue:
        print(token_table(queue.tokens(), queue.now))


def _revoke_token(options: argparse.Namespace) -> None:
    with _reached(options.url) as queue:
        queue.revoke_token(options.id)
    print(f"nobody gets in any more with token {clean(options.id)}")


def _serve(options: argparse.Namespace) -> None:
    if options.idle is not None:
        return serve_file(options.url, options.idle)
    from hitl_nb.server.serve import serve

    with open_queue(options.url) as queue:
        serve(queue, options.host, options.port)


def _replay(options: argparse.Namespace) -> int:
    from hitl_nb.lab import Logged, check_policy, replay

    try:
        policy, rows = _policy(options.policy, options.using), Logged(_history(options.history))
        found = replay(policy, rows, level=options.level)
        misses = found.misses(min_coverage=options.min_coverage, max_risk=options.max_risk)
        odd = [f"of the rules: {one}" for one in check_policy(policy, rows).conclusions]
        if options.summary:
            said = [*(f"not met: {miss}" for miss in misses), *odd]
            with options.summary.open("a", encoding="utf-8") as file:
                file.write(f"## hitl-nb replay: {'not met' if misses else 'met'}\n\n{markdown(found._table(), said)}\n")
    except (HitlError, OSError) as error:
        print(f"hitl-nb: {clean(str(error))}", file=sys.stderr)
        return 2
    print(found._table(), *map(clean, odd), sep="\n")
    for miss in misses:
        print(f"hitl-nb: not met: {clean(miss)}", file=sys.stderr)
    return 1 if misses else 0


def _history(path: Path) -> pd.DataFrame:
    from hitl_nb.lab import read_export

    if path.suffix in (".parquet", ".csv", ".jsonl"):
        return read_export(path)
    with _opened(path) as queue:
        return queue.history(inputs=True)


def _policy(path: Path, using: str | None) -> Policy:
    from hitl_nb.policy import Policy

    try:
        return Policy.from_dict(tomllib.loads(path.read_text(encoding="utf-8")), _named(using) if using else None)
    except HitlError:
        raise
    except (OSError, TypeError, ValueError) as error:
        raise BadInput(name="policy", value=str(path), remedy=f"cannot be read ({error})") from None


def _named(place: str) -> Mapping[str, Any]:
    """Return what a module of the user's holds: a dict of rules, detectors and functions by name."""
    module, _, name = place.partition(":")
    sys.path.insert(0, "")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # it runs the user's own code
        raise BadInput(name="--using", value=place, remedy=f"cannot be imported ({error})") from error
    if not isinstance(found, Mapping):
        raise BadInput(name="--using", value=place, remedy="is no dict; name one such as {'night': function}")
    return found


def _retrain(options: argparse.Namespace) -> None:
    from hitl_nb.loop import take_up

    with _opened(options.file) as queue:
        loop = take_up(queue, options.models or options.file.with_suffix(".models"), options.labels)
        loop.refresh()
        if (used := loop.learner.champion) and (n := used.metrics.get("initial_rows")) and options.labels is None:
            missing = f"{used.version} learned from {n:,} rows that did not come from the queue; add them with --labels"
            print(f"hitl-nb: {clean(missing)}", file=sys.stderr)
        print(loop.retrain(lambda stage: print(clean(stage), file=sys.stderr), force=True)._table())


def _doctor(options: argparse.Namespace) -> int:
    from hitl_nb.doctor import examine

    found = examine(options.file, os.environ.get(OWNER_TOKEN))
    print(found)
    return 0 if found.fine else 1


def _rebuild(options: argparse.Namespace) -> None:
    from hitl_nb.queue.duckdb import utc_now
    from hitl_nb.queue.look import salvage

    count = salvage(str(options.file.resolve()), str(options.new.resolve()), utc_now())
    print(f"{count} tasks are in {clean(str(options.new))}; look at it with: hitl-nb doctor {clean(str(options.new))}")


if __name__ == "__main__":
    sys.exit(main())
