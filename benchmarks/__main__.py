"""Command line: `python -m benchmarks --help`."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tsar_jax.cli import exit_code
from tsar_jax.cli.flags import parse_arguments
from tsar_jax.errors import UserError, check_known
from tsar_jax.output import check_printed
from tsar_jax.precision import FULL, PRECISIONS
from tsar_jax.training.run import write_atomically

ROOT = Path(__file__).parents[1]
DESCRIPTION = (
    "Measures the machine (matrix products, memory bandwidth), then the hot paths, each in a "
    "process of its own, and prints time over roofline: 1 is the best the machine allows."
)

WIDTHS = ("paper", "small")

Row = dict[str, Any]
RunOne = Callable[[str, str, int, str], Row]
"""Function (name, widths, repeats, precision) -> the row of one benchmark."""


def run_in_subprocess(name: str, widths: str, repeats: int, precision: str) -> Row:
    """The row of one benchmark from a fresh process; {"name", "error"} if it fails."""
    command = [sys.executable, "-m", "benchmarks.worker", name, widths, str(repeats), precision]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {"name": name, "error": f"exit code {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line's settings. Raises UserError for an unknown flag or a value that is none."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=DESCRIPTION)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/benchmarks.json"),
        help="JSON file to write (default: %(default)s)",
    )
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="these benchmarks, the optional ones included"
    )
    parser.add_argument("--list", action="store_true", help="list all benchmarks and stop")
    parser.add_argument(
        "--repeats", type=int, default=12, help="timed calls of each (default: %(default)s)"
    )
    parser.add_argument(
        "--widths",
        metavar="|".join(WIDTHS),
        default=WIDTHS[0],
        help="small: tiny networks, only to see that all runs (default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        metavar="|".join(PRECISIONS),
        default=FULL,
        help="of products on accelerators (default: %(default)s)",
    )
    options = parse_arguments(parser, sys.argv[1:] if arguments is None else arguments)
    check_known("kind of widths", options.widths, WIDTHS)
    check_known("precision", options.precision, PRECISIONS)
    if options.repeats < 1:
        raise UserError(f"--repeats must be at least 1, but is {options.repeats}.")
    return options


def run(arguments: Sequence[str] | None, run_one: RunOne) -> int:
    """Measures, prints and writes after each benchmark; 1 if one failed. Raises UserError."""
    options = parse(arguments)
    # Imported here, because --help should not wait for JAX.
    from benchmarks import report, suite

    if options.list:
        report.print_list(suite.BENCHMARKS)
        check_printed()
        return 0
    chosen = suite.choose(options.only)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=options.out.parent):
            pass
    except OSError as error:
        raise UserError(f"{options.out} cannot be written ({error}): name another.") from error

    def measure(name: str) -> Row:
        return run_one(name, options.widths, options.repeats, options.precision)

    print("measuring the machine ...", file=sys.stderr, flush=True)
    results: dict[str, Any] = {
        "machine": measure("machine"),
        "benchmarks": [],
    }
    for benchmark in chosen:
        print(f"measuring {benchmark.name} ...", file=sys.stderr, flush=True)
        results["benchmarks"].append(measure(benchmark.name))
        write_atomically(options.out, json.dumps(results, indent=2) + "\n")
    report.print_results(results)
    print(f"written to {options.out}")
    check_printed()
    rows = [results["machine"], *results["benchmarks"]]
    return int(any("error" in row for row in rows))


INTERRUPTED = "interrupted: benchmarks that had finished are in the file"


def main(arguments: Sequence[str] | None = None, run_one: RunOne = run_in_subprocess) -> int:
    """Runs the benchmarks. Returns the exit code: 0, 1 if one failed, 2 after bad input, or 130."""
    return exit_code(lambda: run(arguments, run_one), INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
