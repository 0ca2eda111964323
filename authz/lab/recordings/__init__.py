"""What the real istiod said, and how it is played: in Envoys that are not fed by one.

`reading` finds what was recorded, `playing` makes a static Envoy configuration of it. Nothing here
knows how istiod configures a proxy; `playing` lists all that differs from what istiod sent.
"""

from authz.lab.harness.ports import Endpoint
from authz.lab.recordings.loopback import ANY_OTHER, Places, on_loopback
from authz.lab.recordings.playing import CannotPlay, Files, Secrets, played
from authz.lab.recordings.reading import NotRecorded, Recordings, Sent, Variant, digest, versions

__all__ = [
    "ANY_OTHER",
    "CannotPlay",
    "Endpoint",
    "Files",
    "NotRecorded",
    "Places",
    "Recordings",
    "Secrets",
    "Sent",
    "Variant",
    "digest",
    "on_loopback",
    "played",
    "versions",
]
