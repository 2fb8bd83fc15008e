"""Golden files that nothing checks are skipped by name, not silently ignored."""

import pytest
from golden import FOLDER, files

CHECKED = ("anml_", "oml_", "tsar_", "rule_", "hebbian_", "openai_es", "cl_", "gcil_")
KNOWN = set(files(*CHECKED))


@pytest.mark.parametrize("path", sorted(set(files("")) - KNOWN), ids=lambda path: path.stem)
def test_unchecked_file(path) -> None:
    pytest.skip(f"{path.name}: unknown prefix")


def test_every_file_of_a_known_system_has_its_check() -> None:
    checks = set(
        files(
            *(f"{k}_meta" for k in ("anml", "oml", "tsar")),
            "anml_finetune",
            "oml_finetune",
            "tsar_transfer",
            "rule_",
            "hebbian_rules",
            "hebbian_pixel_policy",
            "openai_es",
            "cl_",
            "gcil_schedule",
        )
    )
    assert checks == KNOWN, f"no check for {KNOWN - checks} of {FOLDER}"
