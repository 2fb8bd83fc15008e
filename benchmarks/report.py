"""The results as tables on the terminal."""

import shutil
from collections.abc import Iterable
from typing import Any

from rich.table import Table

from benchmarks.measure import Benchmark
from tsar_jax.terminal import print_tables

Row = dict[str, Any]


def print_list(benchmarks: Iterable[Benchmark]) -> None:
    """Names and what they measure."""
    for benchmark in benchmarks:
        remark = " (only where named)" if benchmark.optional else ""
        print(f"{benchmark.name:26}{benchmark.description}{remark}")


def print_results(results: Row) -> None:
    """The machine in a line, then a table; what misses its target is marked with a "!"."""
    print(machine_line(results["machine"]))
    table = Table(box=None, pad_edge=False)
    table.add_column("benchmark", no_wrap=True)
    for title in ("min", "median", "roofline", "ratio", "of medians", "memory", "compile"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in results["benchmarks"]:
        table.add_row(*cells(row))
    # A log file counts as 80 columns, which would cut the figures short.
    print_tables(table, width=max(shutil.get_terminal_size().columns, 130))


def machine_line(machine: Row) -> str:
    """ "CPU, 2 of 2 cores, cpu, JAX 0.6: 120 GFLOP/s, 14.2 GB/s"."""
    if "error" in machine:
        return f"machine: {machine['error']}"
    return (
        f"{machine['cpu']}, {machine['usable_cores']} of {machine['cores']} cores, "
        f"{machine['backend']}, JAX {machine['jax']}: "
        f"{machine['flops_per_second'] / 1e9:.3g} GFLOP/s, "
        f"{machine['bytes_per_second'] / 1e9:.3g} GB/s"
    )


def cells(row: Row) -> list[str]:
    """A benchmark's line of the table."""
    if "error" in row:
        return [row["name"], row["error"]]
    memory = row["device_peak_memory_bytes"] or row["peak_memory_bytes"]
    return [
        row["name"],
        seconds(row["seconds_min"]),
        seconds(row["seconds_median"]),
        seconds(row["roofline_seconds"]),
        against(row["ratio"], row["target"], ".2f"),
        f"{row['ratio_median']:.2f}",
        ""
        if memory is None
        else against(memory / 1e9, scaled(row["peak_memory_target"]), ".2f GB"),
        against(row["compile_seconds"], row["compile_target"], ".1f s"),
    ]


def seconds(value: float) -> str:
    """0.00123 -> "1.23 ms"."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if value * scale >= 1:
            return f"{value * scale:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def scaled(target: float | None) -> float | None:
    """Bytes as gigabytes."""
    return None if target is None else target / 1e9


def against(value: float, target: float | None, form: str) -> str:
    """ "1.42 (<= 1.3 !)": a value, its target if any, and whether it misses it."""
    number, _, unit = form.partition(" ")
    text = f"{value:{number}} {unit}".strip()
    if target is None:
        return text
    return f"{text} (<= {target:g}{' !' if value > target else ''})"


def print_accelerator(results: Row) -> str:
    """Print the trainings of `benchmarks.accelerator`, and return the whole as Markdown."""
    lines = [f"{results['machine'].get('device')}; {machine_line(results['machine'])}", ""]
    measured = results.get("benchmarks", {})
    if measured:
        lines += [
            "| benchmark | time | share of the roofline | time in tensorfloat32 |",
            "|---|---|---|---|",
        ]
        for name, row in measured.items():
            if "error" in row:
                lines.append(f"| {name} | {row['error']} | | |")
            else:
                share = 100 / row["ratio"]
                fast = row.get("seconds_min_tensorfloat32")
                cell = "" if fast is None else seconds(fast)
                time = seconds(row["seconds_min"])
                lines.append(f"| {name} | {time} | {share:.0f} % | {cell} |")
        lines.append("")
    shares = {
        name: f"{100 / row['ratio']:.0f} % ({name})"
        for name, row in measured.items()
        if "error" not in row
    }
    titles = ("training", "device", "steps", "hours", "steps a second", "of the roofline", "result")
    trainings = [training_cells(name, row, shares) for name, row in results["trainings"].items()]
    lines += [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    lines += [f"| {' | '.join(line)} |" for line in trainings]
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title)
    for line in trainings:
        table.add_row(*line)
    print_tables(table, width=max(shutil.get_terminal_size().columns, 130))
    return "\n".join(lines) + "\n"


def training_cells(name: str, row: Row, shares: dict[str, str]) -> list[str]:
    """A training's line of the table; an error stands where its result would.

    shares: of the roofline, by name of the benchmark that measured a step.
    """
    steps = f"{row['step']:,} of {row['steps']:,}" if "steps" in row else ""
    hours = f"{row['seconds'] / 3600:.2f}" if "seconds" in row else ""
    rate = f"{row['steps_per_second']:.3g}" if "seconds" in row else ""
    result = f"{row['headline']} {row['result']:.3g}" if "result" in row else ""
    device, share = str(row.get("device", "")), shares.get(row["benchmark"], "")
    return [name, device, steps, hours, rate, share, row.get("error", result)]
