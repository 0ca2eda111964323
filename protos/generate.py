"""Write `authz/_proto/*_pb2.py` and `.pyi` from the protos beside this file.

The protos lie at `protos/authz/_proto/`, where their stubs lie under the root, so that whatever the
stubs import of each other already reads `from authz._proto import ...`.

`--check` writes nothing and names the stubs that are stale. It compares what stubs declare, not
their text, which changes with the version of the generator.
"""

import argparse
import ast
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto

PROTOS = Path(__file__).resolve().parent
STUBS = PROTOS.parent / "authz" / "_proto"


def generate(into: Path) -> dict[str, Path]:
    """Run the compiler; return the stubs by name."""
    command = [
        *(sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={PROTOS}"),
        *(f"--python_out={into}", f"--pyi_out={into}"),
        *sorted(map(str, PROTOS.glob("authz/_proto/*.proto"))),
    ]
    subprocess.run(command, check=True)  # noqa: S603 - every word is ours
    return stubs(into / "authz" / "_proto")


def stubs(directory: Path) -> dict[str, Path]:
    """Return the generated files of a directory by name."""
    return {path.name: path for path in sorted(directory.glob("*_pb2*.py*"))}


def meaning(stub: Path) -> object:
    """Return what a stub declares, however it words it."""
    tree = ast.parse(stub.read_text(encoding="utf-8"))
    return dict(declarations(tree)) if stub.suffix == ".pyi" else descriptor(tree)


def descriptor(tree: ast.Module) -> FileDescriptorProto | None:
    """Return the file descriptor that a `_pb2.py` registers, without registering it."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="AddSerializedFile"),
                args=[ast.Constant(value=bytes(serialized))],
            ):
                return FileDescriptorProto.FromString(serialized)
    return None


def declarations(scope: ast.Module | ast.ClassDef, prefix: str = "") -> list[tuple[str, str]]:
    """Return the public classes and fields of a `.pyi`, each with its type less its module."""
    found = []
    for node in scope.body:
        match node:
            case ast.ClassDef(name=name) if not name.startswith("_"):
                found += [(prefix + name, "class"), *declarations(node, f"{prefix}{name}.")]
            case ast.AnnAssign(target=ast.Name(id=name), annotation=kind) if node.value is None:
                found.append((prefix + name, unqualified(kind)))
    return found


def unqualified(kind: ast.expr) -> str:
    """Return the source of an annotation without the modules of its names."""
    return re.sub(r"(\w+\.)+", "", ast.unparse(kind))


def main() -> None:
    """Generate, or check."""
    parser = argparse.ArgumentParser(description="Generate authz/_proto from protos/.")
    parser.add_argument("--check", action="store_true", help="name stale stubs, write nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        fresh, committed = generate(Path(scratch)), stubs(STUBS)
        if check:
            stale = fresh.keys() ^ committed.keys()
            for name in fresh.keys() & committed.keys():
                if meaning(fresh[name]) != meaning(committed[name]):
                    stale.add(name)
            if stale:
                sys.exit(f"stale: {', '.join(sorted(stale))}; run `python protos/generate.py`")
            return
        for path in committed.values():
            path.unlink()
        for path in fresh.values():
            shutil.copy(path, STUBS)


if __name__ == "__main__":
    main()
