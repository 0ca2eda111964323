"""The mesh in a box with a real istiod: its Envoys are fed by it, over ADS."""

from authz.lab.live.source import live

__all__ = ["live"]
