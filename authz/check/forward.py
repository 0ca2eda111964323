"""A pod's page by way of kubectl, which reaches pods where the API server may not."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from http.client import HTTPException
from threading import Timer
from typing import Final

from authz.kube import KubeError
from authz.kube.credentials import environment_of_others

LONGEST: Final = 16 << 20
SECONDS: Final = 15.0
"""For all of it: kubectl itself waits for ever."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""No proxy leads to our own loopback."""


def forwarded(
    namespace: str, pod: str, port: int, refused: KubeError, *, seconds: float = SECONDS
) -> bytes:
    """What a pod answers at `/metrics`.

    Raises:
        KubeError: kubectl cannot forward; `refused` says why the API server could not either.
    """
    command = ["kubectl", "port-forward", f"--namespace={namespace}", f"pod/{pod}", f":{port}"]
    try:
        process = subprocess.Popen(  # noqa: S603 - no shell, and names come from the API server
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment_of_others(),
        )
    except OSError:
        raise refused from None
    end = Timer(seconds, process.kill)
    with process:
        end.start()
        try:
            line = process.stdout.readline() if process.stdout else ""
            local = re.search(r"^Forwarding from 127\.0\.0\.1:(\d+) ", line)
            if local is None:
                raise refused
            url = f"http://127.0.0.1:{local[1]}/metrics"
            with _direct.open(url, timeout=seconds) as answer:
                body: bytes = answer.read(LONGEST)
        except (OSError, ValueError, HTTPException):
            raise refused from None
        finally:
            end.cancel()
            process.kill()
    return body
