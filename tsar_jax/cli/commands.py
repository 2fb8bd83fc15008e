"""The commands of `tsar-jax`."""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from tsar_jax.cli.exits import exit_code, run_main
from tsar_jax.cli.flags import parse_arguments
from tsar_jax.cli.scripts import experiments, first_line, list_text, prepare_data, run_experiment
from tsar_jax.cli.status import status
from tsar_jax.errors import check_known
from tsar_jax.output import check_printed
from tsar_jax.provenance import version_text
from tsar_jax.training.overview import runs_text


def main() -> None:
    """Run the console command `tsar-jax`."""
    if sys.argv[1:2] == ["prepare"]:  # which reports itself what an interruption leaves behind
        raise SystemExit(exit_code(lambda: prepare_data(sys.argv[2:])))
    run_main(lambda: command(sys.argv[1:]))


def command(argv: Sequence[str]) -> None:
    """Run one `tsar-jax` command. Raises UserError for an unknown command, experiment or flag."""
    if argv and argv[0] in OTHERS:  # whose flags are their own, --help included
        run_other(argv[0], argv[1:])
        return
    parser, known = command_parser()
    if argv and not argv[0].startswith("-"):
        check_known("command", argv[0], known)
    arguments = parse_arguments(parser, argv, known)
    if arguments.version:
        print(version_text())
    elif arguments.command is None:
        parser.error(f"a command is required: choose from {', '.join(known)}")
    elif arguments.command == "published":
        from tsar_jax.evaluation.published_text import show_published

        show_published(arguments.selectors, arguments.write)
    elif arguments.command == "claims":
        from tsar_jax.evaluation.claims import show_claims

        show_claims(arguments.write)
    elif arguments.command == "pretrained":
        from tsar_jax.pretrained.listing import listing

        print(listing(arguments.name))
    elif arguments.command == "list":
        print(list_text({name: first_line(path) for name, path in experiments().items()}))
    elif arguments.command == "run":
        run_experiment(arguments.name, arguments.arguments)
    elif arguments.command == "runs":
        print(runs_text(arguments.folder))
    else:
        print(status(arguments.run))
    if arguments.command != "run":
        check_printed()


def command_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser of `tsar-jax`, and those of its commands by their names."""
    parser = argparse.ArgumentParser(
        prog="tsar-jax", description="Plasticity that learns to learn: run the experiments."
    )
    parser.add_argument(
        "--version", action="store_true", help="show the versions of this, JAX and Python"
    )
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("list", help="list the experiments")
    runner = commands.add_parser(
        "run", help="run an experiment: tsar-jax run NAME --help shows its settings"
    )
    runner.add_argument("name", help="as tsar-jax list shows it")
    runner.add_argument("arguments", nargs=argparse.REMAINDER, help="its settings")
    status_parser = commands.add_parser("status", help="show how far a run is")
    status_parser.add_argument("run", help="the run's folder", type=Path)
    pretrained = commands.add_parser(
        "pretrained", help="list the trained runs that come with this, for --run pretrained:NAME"
    )
    pretrained.add_argument("name", nargs="?", help="show all that is known of one")
    runs_parser = commands.add_parser("runs", help="list runs: state, step and result of each")
    runs_parser.add_argument(
        "folder", nargs="?", type=Path, default=Path("runs"), help="where they lie (default: runs)"
    )
    published = commands.add_parser(
        "published", help="show published figures, or fill them into Markdown files"
    )
    published.add_argument("selectors", nargs="*", metavar="FIELD=VALUE", help=SELECTOR_HELP)
    published.add_argument(
        "--write", nargs="+", type=Path, metavar="FILE", help="fill the marked passages of FILE"
    )
    claims = commands.add_parser(
        "claims", help="show what the papers claim beside this project's results"
    )
    claims.add_argument(
        "--write", action="store_true", help="compute them anew and fill the README's table"
    )
    for name, about in OTHERS.items():
        other = commands.add_parser(name, add_help=False, help=about)
        other.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser, commands.choices


SELECTOR_HELP = (
    "which figures, as in stream=rot-mnist method=er,der; fields: system (anml, learned_rules, "
    "hebbian, continual), stream, method, size, measure, source (primary, third_party, unverified)"
)


OTHERS = {
    "launch": "start several processes of one training here: tsar-jax launch --help shows how",
    "import": "make a run of a release's weights: tsar-jax import --help shows how",
    "export": "write a run's weights as a release's file: tsar-jax export --help shows how",
    "prepare": "prepare a data set: tsar-jax prepare --help lists them",
}
"""Help of the commands that parse their own flags, by command."""


def run_other(name: str, argv: Sequence[str]) -> None:
    """Run one of `OTHERS` with its arguments. Raises UserError."""
    if name == "prepare":
        raise SystemExit(prepare_data(argv))
    module = "launch" if name == "launch" else f"{name}_weights"
    importlib.import_module(f"tsar_jax.cli.{module}").main(argv)
