"""Fuzzes a target, guided by coverage: `python -m tests.fuzz http2 [SECONDS]`.

Needs atheris (`pip install atheris`), which no test does. An input that fails is written to
`found/`, where `pytest` plays it again from then on.
"""

import importlib
import sys
import tempfile
from pathlib import Path


def main(target: str, seconds: str = "300") -> None:
    """Fuzz until something fails, or so many seconds."""
    atheris = importlib.import_module("atheris")  # has no types
    with atheris.instrument_imports(include=["authz"]):
        targets = importlib.import_module("tests.fuzz.targets")
    found: Path = targets.FOUND / target
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(targets.seeds(target)):
            Path(corpus, str(number)).write_bytes(seed)
        options = [f"-artifact_prefix={found}/", f"-max_total_time={seconds}", "-max_len=4096"]
        atheris.Setup([target, *options, corpus], targets.TARGETS[target])
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
