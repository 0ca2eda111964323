"""Is a cluster ready for the service, and is an installation whole? Reads, and changes nothing.

`lines` says what a check is and answers; each other module is one group of them.
"""

from authz.check.asking import asked, examine, is_well, until_well
from authz.check.lines import Level, Line
from authz.check.site import Site, Wanted

__all__ = ["Level", "Line", "Site", "Wanted", "asked", "examine", "is_well", "until_well"]
