"""The filters that ship, and what istiod makes of a proxy's configuration with them.

They are what `kubectl apply -k envoyfilters` installs. The demo and the tests run them, the doctor
looks for them in running proxies: what is right is said in one place.
"""

from authz.envoyfilters.envoyfilter import CannotPatch, Proxy
from authz.envoyfilters.patches import Patches, directory, shipped

__all__ = ["CannotPatch", "Patches", "Proxy", "directory", "shipped"]
