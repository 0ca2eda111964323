"""Our engine makes of a proxy's configuration what istiod makes of it, to the field."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from authz.envoyfilters import Patches, shipped
from authz.lab.recordings import Recordings, Sent, Variant, versions
from authz.lab.recordings.reading import COMMAND
from tests.lab.differences import GONE, Difference, differences


def pairs() -> Iterator[Any]:
    """Variants that there are with and without the filters that ship."""
    for istio in versions():
        variants = Recordings.of(istio).variants
        for bare in variants:
            for variant in variants:
                same = (variant.objects, variant.stock) == (bare.objects, bare.stock)
                if same and variant.filters and not bare.filters:
                    yield pytest.param(bare, variant, id=f"{istio}, {bare.name}")


def unexplained(made: Sent, truth: Sent) -> Iterator[Difference]:
    """Differences but those of spelling, which protobuf's JSON has, in what we put in."""
    for kind in ("listeners", "clusters", "routes", "endpoints"):
        for it in differences(list(getattr(made, kind)), list(getattr(truth, kind)), (kind,)):
            ours = any(str(part).startswith("tenant-authz.") for part in it.path)
            default = it.after == GONE and (it.before is False or it.before == "ALLOW")
            seconds = str(it.before).endswith("s") and _seconds(it.before) == _seconds(it.after)
            if not (ours and (default or seconds)):
                yield it


def _seconds(value: Any) -> float | None:
    try:
        return float(str(value).removesuffix("s"))
    except ValueError:
        return None


@pytest.mark.parametrize(("bare", "truth"), [*pairs()])
def test_bare_and_our_engine_are_what_istiod_sends_with_the_filters(
    bare: Variant, truth: Variant
) -> None:
    engine = Patches.of(shipped())
    assert bare.keys() == truth.keys()
    for pod, sent in bare.items():
        found = [*unexplained(sent.patched(engine), truth[pod])]
        assert not found, f"{pod}; if the filters have changed, run `{COMMAND}`: {found[0]}"


def test_each_istiod_has_such_pairs() -> None:
    found = [pair.id for pair in pairs()]
    for istio in versions():
        assert len([it for it in found if it.startswith(istio)]) >= 3


# ---- the test above can fail ----


def _first_pair() -> tuple[Variant, Variant]:
    bare, truth = next(pairs()).values
    return bare, truth


@pytest.mark.parametrize(
    "change",
    [
        lambda spec: spec["configPatches"][0]["patch"].update(operation="INSERT_AFTER"),
        lambda spec: spec["configPatches"].pop(),
        lambda spec: spec.update(priority=1),  # before verify's, which takes its place
        lambda spec: spec["configPatches"][0]["patch"]["value"]["typed_config"].update(
            failure_mode_allow=True
        ),
    ],
    ids=["in another place", "one less", "in another order", "another field"],
)
def test_a_filter_that_differs_is_seen(change: Any) -> None:
    bare, truth = _first_pair()
    documents = deepcopy(list(shipped()))
    (transit,) = (it for it in documents if it["metadata"]["name"] == "tenant-authz-transit")
    change(transit["spec"])
    made = bare["knative-serving/activator"].patched(Patches.of(documents))
    assert [*unexplained(made, truth["knative-serving/activator"])]
