"""Reads a large policy in a process of its own, so that no Check waits for it.

To parse the policy of ten thousand tenants takes seconds of pure Python. In a thread of the serving
process each of those would hold the interpreter's lock against the event loop. What comes back is
plain data, which is checked again.
"""

import gc
import json
import os
import subprocess
import sys
from typing import Final

from authz.domain.policy import Policy
from authz.errors import BadPolicy
from authz.policysource.file import (
    parse_policy,
    parse_policy_as_json,
    policy_of_json,
)

SMALL: Final = 16 * 1024
"""Bytes that are parsed sooner, about a tenth of a second, than a process would start."""

_MODULE: Final = "authz.policysource.reader"
_SECONDS: Final = 120
_BAD: Final = 3  # exit code: Python's own for an exception is 1


def parse_policy_apart(text: str) -> Policy:
    """Read a policy's text, a small one here; blocks until it is done.

    Raises:
        BadPolicy: see `parse_policy`; or the process failed.
    """
    if len(text) <= SMALL:
        return parse_policy(text)
    return _apart(text.encode())


def _apart(given: bytes) -> Policy:
    argv = [sys.executable, "-P", "-m", _MODULE]
    # Settings may hold a key-encryption key, and a reader of YAML has no use for any of them.
    environment = {k: v for k, v in os.environ.items() if not k.upper().startswith("AUTHZ_")}
    try:
        done = subprocess.run(  # noqa: S603 - our own module
            argv,
            input=given,
            stdout=subprocess.PIPE,
            env=environment,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BadPolicy([f"the policy cannot be read apart: {error}"]) from None
    if done.returncode == 0:
        return policy_of_json(done.stdout)
    if done.returncode == _BAD:
        raise BadPolicy(_problems(done.stdout))
    raise BadPolicy([f"the policy's reader ended with code {done.returncode}"])


def _problems(text: bytes) -> list[str]:
    try:
        return [str(problem) for problem in json.loads(text)]
    except ValueError:
        return ["the policy is bad, and what is wrong could not be told"]


def _main() -> int:
    gc.disable()  # a fifth of the time, and it is over soon
    try:
        sys.stdout.write(parse_policy_as_json(sys.stdin.buffer.read().decode()))
    except BadPolicy as error:
        sys.stdout.write(json.dumps(error.problems))
        return _BAD
    return 0


if __name__ == "__main__":
    sys.exit(_main())
