"""What is printed is what was meant, whatever it holds."""

from rich.table import Table

from tsar_jax.terminal import print_tables

NAMES = ("[bold]rule", "[/x]", ":smile:", "[link=file:///a]b[/link]", r"a\[b]")


def test_names_are_printed_as_they_are(capsys):
    table = Table("name", NAMES[0], title=f"of {NAMES[1]}", caption=NAMES[2])
    for name in NAMES:
        table.add_row(name, "1")
    print_tables(table, f"said of {NAMES[1]}", width=60)
    lines = capsys.readouterr().out.splitlines()
    for name in NAMES:
        assert any(f"│ {name} " in line for line in lines), name
    assert any(NAMES[0] in line for line in lines[:4])
    assert lines[0].strip() == "of [/x]"
    assert lines[-2].strip() == ":smile:"
    assert lines[-1] == "said of [/x]"
