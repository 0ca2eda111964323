"""What the tests of the box have in common; the box itself is the fixture `mesh`."""

from __future__ import annotations

import pytest

from authz.lab.box.istio import network

needs_network = pytest.mark.skipif(bool(network.missing()), reason=network.missing())
