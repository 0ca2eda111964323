"""tenant-authz: Envoy external authorization that keeps tenants apart on a shared cluster."""

__version__ = "0.2.0"
"""The one place of the version: the wheel's is read from here, and `python -m tests.pages` writes
it into manifests and pages."""
