"""The estimate: its formulas against a simulation and real sizes, and what the command says."""

import math
import random
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from authz.config import Settings
from authz.estimate import costs
from authz.estimate.costs import Load, pushes, pushes_per_second
from tests.command import Run
from tests.platform import istiod

LOAD = Load(tenants=100, services=10)


def simulated(changes: float, after: float, longest: float, *, count: int = 40_000) -> float:
    """Pushes a second of a debounce like istiod's, for changes that come by chance."""
    chance = random.Random(7)
    now, done, pushed = 0.0, 0, 0
    while done < count:
        first = last = now = now + chance.expovariate(changes)
        done += 1
        while True:
            following = now + chance.expovariate(changes)
            if following - last > after or following - first > longest:
                break
            now = last = following
            done += 1
        now = min(last + after, first + longest)
        pushed += 1
    return pushed / now


@pytest.mark.parametrize("changes", [0.1, 1.0, 10.0, 30.0])
@pytest.mark.parametrize("after", [0.1, 1.0])
def test_debounce_is_as_simulated(changes: float, after: float) -> None:
    told = pushes_per_second(changes, after, 10.0)
    assert told == pytest.approx(simulated(changes, after, 10.0), rel=0.35)


def test_debounce_at_its_ends() -> None:
    assert pushes_per_second(0, 0.1, 10) == 0
    assert pushes_per_second(5, 0, 10) == 5
    assert pushes_per_second(1e6, 1, 10) == pytest.approx(0.1, rel=1e-3)


def test_scoping_takes_the_clusters_size_out_of_what_a_change_reaches() -> None:
    twice = replace(LOAD, tenants=200)
    assert pushes(LOAD, scoped=False).reached == 1000 + LOAD.platform
    assert pushes(twice, scoped=False).reached == 2000 + LOAD.platform
    assert pushes(LOAD, scoped=True).reached == 10 + LOAD.platform
    assert pushes(twice, scoped=True).reached == 10 + LOAD.platform


def test_the_cost_of_one_tenant_is_the_same_with_scoping_and_without() -> None:
    alone = replace(LOAD, tenants=1)
    assert pushes(alone, scoped=True) == pushes(alone, scoped=False)


def test_nothing_is_sent_when_nothing_changes_or_nobody_is_there() -> None:
    for scoped in (True, False):
        assert pushes(replace(LOAD, changes=0), scoped=scoped).bytes_per_second == 0
        assert pushes(replace(LOAD, replicas=0), scoped=scoped).reached == LOAD.platform


@pytest.mark.parametrize("ciphers", [True, False])
def test_a_gateway_of_the_most_servers_fits_and_one_more_does_not_by_much(ciphers: bool) -> None:
    most = costs.most_servers(ciphers=ciphers)
    size = costs.gateway_bytes(most, ciphers=ciphers)
    assert size == pytest.approx(costs.OBJECT_LIMIT, rel=0.01)
    assert size <= costs.OBJECT_LIMIT


def test_ciphers_on_each_server_double_a_gateway() -> None:
    with_, without = (costs.gateway_bytes(1000, ciphers=c) for c in (True, False))
    assert 1.8 < with_ / without < 2.3


def test_the_sizes_are_those_of_envoys_messages() -> None:
    assert len(istiod.virtual_host()) == pytest.approx(costs.VIRTUAL_HOST, rel=0.2)
    # Istio's own filters and protocol options, some 300 bytes, are in no public message.
    assert len(istiod.cluster()) + 300 == pytest.approx(costs.CLUSTER, rel=0.2)


def test_replicas_follow_from_checks_and_connections() -> None:
    few = costs.replicas(LOAD)
    assert few.replicas == 2
    assert few.cores == pytest.approx(LOAD.requests * 3 * 45e-6)
    busy = costs.replicas(replace(LOAD, requests=100_000))
    assert busy.replicas == math.ceil(100_000 * 3 * 45e-6 / 0.6) + 1
    wide = costs.replicas(replace(LOAD, tenants=10_000))
    assert wide.replicas == math.ceil(wide.connections / 20_000) + 1
    assert Settings.model_fields["max_connections"].default == costs.MAX_CONNECTIONS


def test_a_cluster_is_full_when_its_fullest_limit_is() -> None:
    assert costs.clusters(LOAD) == 1
    full = replace(LOAD, tenants=400)  # 20,000 Kubernetes Services
    assert costs.uses(full)[0].what == "Kubernetes Services"
    assert costs.clusters(full) == 3
    assert costs.clusters(replace(LOAD, services=0)) == 1


# The command -----------------------------------------------------------------------------------


def test_the_command_says_the_same_to_people_and_machines(run: Run) -> None:
    arguments = ("platform", "estimate", "--tenants", "500", "--services", "6")
    people, machines = run(*arguments), run(*arguments, "--json")
    assert people.code == machines.code == 1, "15,000 Services do not fit"
    assert machines.json["clusters"] == 2
    assert machines.json["without_sidecar"]["reached"] == 3009
    assert "3,009" in people.out
    assert "Clusters needed: 2" in people.out


def test_a_cluster_that_holds_it_is_good(run: Run) -> None:
    assert run("platform", "estimate").code == 0


def test_the_formulas_and_their_sources_are_in_the_help(run: Run) -> None:
    text = " ".join(run("platform", "estimate", "--help").out.replace("│", "").split())
    for said in ("e^(c*a)", "1.5 MiB", "45 microseconds", "thresholds", "80 %"):
        assert said in text


@pytest.mark.parametrize("changes", ["0.5", "0"])
def test_the_plot_is_a_picture(run: Run, tmp_path: Path, changes: str) -> None:
    assert run("platform", "estimate", "--plot", "p.svg", "--changes", changes).code == 0
    picture = ET.fromstring((tmp_path / "p.svg").read_text())  # noqa: S314 - our own
    assert picture.tag.endswith("svg")
    assert "<script" not in (tmp_path / "p.svg").read_text()


@pytest.mark.parametrize(
    "wrong", [("--tenants", "0"), ("--changes", "-1"), ("--plot", "absent/p.svg")]
)
def test_a_wrong_figure_is_a_mistake(run: Run, wrong: tuple[str, ...]) -> None:
    assert run("platform", "estimate", *wrong).code == 2
