"""What is generated in the pages: `python -m tests.pages` writes it, with `--check` it compares."""

from __future__ import annotations

import sys

from tests.pages.generated import stale, write

if __name__ == "__main__":
    if "--check" not in sys.argv:
        write()
    elif found := stale():
        sys.exit(f"stale: {', '.join(found)}: run python -m tests.pages")
