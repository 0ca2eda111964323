"""The README's tables of paths are those that the tests play."""

from tests.paths.matrix import markdown
from tests.test_readme import README


def test_the_tables_of_paths_are_those_of_the_tests() -> None:
    section = README.partition("\n## Paths\n")[2].partition("\n## ")[0]
    assert markdown() in section, f"put this into the README:\n{markdown()}"
