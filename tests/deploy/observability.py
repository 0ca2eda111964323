"""The alerts that ship, and the metrics that they may name."""

from typing import Any

from authz.observe import Metrics
from authz.testing import ManualClock
from tests.deploy.manifests import DEPLOY, load
from tests.pages.reference import exported_name

FOLDER = DEPLOY / "observability"


def rules() -> list[dict[str, Any]]:
    ((group,),) = [it["spec"]["groups"] for it in load(FOLDER / "rules.yaml")]
    return list(group["rules"])


def exported() -> set[str]:
    """Every metric that the service has."""
    families = Metrics(ManualClock()).registry.collect()
    return {exported_name(family) for family in families}
