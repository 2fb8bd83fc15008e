"""Print the oldest version of every requirement that setup.cfg allows, for pip.

    python tests/oldest_requirements.py [EXTRA ...]

`make test-oldest` installs these and tries a smoke training of each family with them.
"""

import configparser
import re
import sys
from pathlib import Path

SETUP = Path(__file__).parents[1] / "setup.cfg"
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+(\[[\w,]+\])?)>=(?P<version>[\w.]+)")


def oldest(text: str) -> list[str]:
    """Return requirements "name>=version", a line each, as "name==version".

    Raises:
        ValueError: one has no lower bound.
    """
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = REQUIREMENT.fullmatch(line)
        if match is None:
            raise ValueError(f"{line!r} in {SETUP.name} has no lower bound: add >=VERSION")
        found.append(f"{match['name']}=={match['version']}")
    return found


def main() -> None:
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    texts = [setup["options"]["install_requires"]]
    texts += [setup["options.extras_require"][extra] for extra in sys.argv[1:]]
    print("\n".join(requirement for text in texts for requirement in oldest(text)))


if __name__ == "__main__":
    main()
