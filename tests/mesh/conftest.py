"""What the tests of the box have in common; the box itself is the fixture `mesh`."""

from __future__ import annotations

import pytest

from authz.demo.istio import network

needs_network = pytest.mark.skipif(bool(network.missing()), reason=network.missing())
