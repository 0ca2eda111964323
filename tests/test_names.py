"""Which namespace does a name belong to? One table for hosts, one for Envoy's clusters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.names import (
    PUBLIC,
    Namespace,
    Service,
    is_cluster_name,
    is_dns_name,
    namespace_of_host,
    namespace_of_relayed_host,
    namespace_of_virtual_service,
    normal_host,
    parse_cluster_domain,
    parse_namespace,
    parse_service,
    service_of_cluster,
)
from authz.errors import InvalidName

DOMAINS = ("cluster.local", "clusterset.local")
L63 = "a" * 63

# Host, namespace anywhere, namespace behind a relay (asked by a workload in namespace "me").
HOSTS: list[tuple[str, str | None, str | None]] = [
    ("app.shop.svc.cluster.local", "shop", "shop"),
    ("app.shop.svc.clusterset.local", "shop", "shop"),
    ("app.shop.svc", "shop", "shop"),
    ("pod-0.app.shop.svc.cluster.local", "shop", "shop"),
    ("APP.Shop.SVC.Cluster.Local", "shop", "shop"),
    ("app.shop.svc.cluster.local:80", "shop", "shop"),
    ("app.shop.svc.cluster.local.", "shop", "shop"),
    ("app.shop.svc.cluster.local.:8080", "shop", "shop"),
    (f"app.{L63}.svc", L63, L63),
    ("app.1.svc", "1", "1"),
    ("app.svc.svc", "svc", "svc"),
    ("app.shop.svc.svc.cluster.local", "svc", "svc"),
    ("app.shop", None, "shop"),
    ("app.shop:8080", None, "shop"),
    ("app", None, "me"),
    ("app.", None, "me"),
    # Looks internal and is not.
    ("shop.svc", None, None),
    ("shop.svc.cluster.local", None, None),
    ("svc.cluster.local", None, None),
    ("svc", None, None),
    (".svc", None, None),
    ("app.dev", None, "dev"),  # a public name, too, where dev is a top-level domain
    ("10-1-2-3.victim.pod.cluster.local", None, None),
    ("app.shop.svc.cluster.local.evil.example", None, None),
    ("evil.example", None, "example"),
    ("app.shop.svc.cluster.localx", None, None),
    ("app.shop.svc.other.local", None, None),
    ("app.shopsvc.cluster.local", None, None),
    ("a.b.c", None, None),
    # Not names.
    ("", None, None),
    (".", None, None),
    ("10.1.2.3", None, None),
    ("10.1", None, None),
    ("1.2", None, None),
    ("2130706433", None, None),
    ("0x7f000001", None, None),
    ("0x", None, None),
    ("app.0x7f", None, None),
    ("[::1]", None, None),
    ("[::1]:80", None, None),
    ("::1", None, None),
    ("app.shop.svc..", None, None),
    ("app..svc", None, None),
    ("app.shop..svc", None, None),
    (".app.shop.svc", None, None),
    ("-app.shop.svc", None, None),
    ("app-.shop.svc", None, None),
    ("app_1.shop.svc", None, None),
    ("*.shop.svc", None, None),
    ("user@app.shop.svc", None, None),
    ("app%2eshop.svc", None, None),
    ("app.shop.svc/", None, None),
    ("app.shop.svc#x", None, None),
    ("app.shop.svc?x", None, None),
    ("app.shop.svc ", None, None),
    (" app.shop.svc", None, None),
    ("app.shop.svc\n", None, None),
    ("app.shop.svc\x00", None, None),
    ("app.shop.svc,app.victim.svc", None, None),
    ("app.shop.svc:80:90", None, None),
    ("app.shop.svc:", None, None),
    ("app.shop.svc:123456", None, None),
    ("app.shop.svc:80.", None, None),
    ("app.shop.svc:+80", None, None),
    ("app.shop.svc:\u0663", None, None),  # an Arabic digit
    ("app.\u017fhop.svc", None, None),  # a long s is a small s to casefold()
    ("\u212aube.shop.svc", None, None),  # the Kelvin sign is a k to lower()
    ("\u0430pp.shop.svc", None, None),  # Cyrillic
    ("app\u3002shop\u3002svc", None, None),  # IDNA reads these as dots
    (f"app.{L63}a.svc", None, None),
    (f"{'a.' * 124}shop.svc", None, None),
    ("a" * 100_000, None, None),
]


@pytest.mark.parametrize(("host", "anywhere", "relayed"), HOSTS)
def test_host_names_its_namespace_or_none(
    host: str, anywhere: str | None, relayed: str | None
) -> None:
    me = Namespace("me")

    assert namespace_of_host(host, DOMAINS) == anywhere
    assert namespace_of_relayed_host(host, DOMAINS, caller=me) == relayed


def test_the_longest_name_that_dns_allows_counts() -> None:
    longest = f"{'a.' * 122}shop.svc"
    assert len(longest) == 252

    assert namespace_of_host(longest, DOMAINS) == "shop"
    assert namespace_of_host(f"b{longest}", DOMAINS) == "shop"
    assert namespace_of_host(f"c.{longest}", DOMAINS) is None


@given(st.text(max_size=300))
def test_whatever_the_host_a_namespace_is_a_label(host: str) -> None:
    for found in (
        namespace_of_host(host, DOMAINS),
        namespace_of_relayed_host(host, DOMAINS, caller=Namespace("me")),
    ):
        assert found is None or parse_namespace(found) == found


@given(st.text(alphabet="abAB1-.:_ %@", max_size=80))
def test_a_normal_host_is_its_own_normal_form(host: str) -> None:
    normal = normal_host(host)
    assert normal is None or (is_dns_name(normal) and normal_host(normal) == normal)


CLUSTERS: list[tuple[str, Service | None]] = [
    ("outbound|80||app.shop.svc.cluster.local", Service("app", Namespace("shop"))),
    ("outbound|8012|v1|app.shop.svc.clusterset.local", Service("app", Namespace("shop"))),
    ("outbound|443|v1.2_x-y|app.shop.svc.cluster.local", Service("app", Namespace("shop"))),
    ("PassthroughCluster", None),
    ("BlackHoleCluster", None),
    ("InboundPassthroughCluster", None),
    ("", None),
    ("-", None),
    ("inbound|8080||", None),
    ("inbound|80||app.shop.svc.cluster.local", None),
    ("outbound_.80_._.app.shop.svc.cluster.local", None),
    ("outbound|80||example.com", None),
    ("outbound|80||10.1.2.3", None),
    ("outbound|80||app.shop.svc", None),
    ("outbound|80||app.shop", None),
    ("outbound|80||shop.svc.cluster.local", None),
    ("outbound|80||pod-0.app.shop.svc.cluster.local", None),
    ("outbound|80||10-1-2-3.shop.pod.cluster.local", None),
    ("outbound|80||app.shop.svc.cluster.local.evil.example", None),
    ("outbound|80||APP.shop.svc.cluster.local", None),
    ("outbound|80||*.shop.svc.cluster.local", None),
    ("outbound|80||app.shop.svc.cluster.local|x", None),
    ("outbound|80|a|b|app.shop.svc.cluster.local", None),
    ("outbound|80|app.shop.svc.cluster.local", None),
    ("outbound|0||app.shop.svc.cluster.local", None),
    ("outbound|123456||app.shop.svc.cluster.local", None),
    ("outbound|http||app.shop.svc.cluster.local", None),
    ("xoutbound|80||app.shop.svc.cluster.local", None),
    ("outbound|80||app.shop.svc.cluster.local\n", None),
    (" outbound|80||app.shop.svc.cluster.local", None),
    ("outbound|80||app.shop.svc.cluster.local,outbound|80||app.victim.svc.cluster.local", None),
    ("outbound|80||" + "a." * 120 + "svc.cluster.local", None),
]


@pytest.mark.parametrize(("cluster", "service"), CLUSTERS)
def test_cluster_names_its_service_or_none(cluster: str, service: Service | None) -> None:
    assert service_of_cluster(cluster, DOMAINS) == service


@pytest.mark.parametrize(
    "text",
    [
        "outbound|80||app.shop.svc.cluster.local",
        "outbound|443|v1|*.example.com",
        "outbound|80||10.1.2.3",
        "inbound|8080||",
        "PassthroughCluster",
        "InboundPassthroughCluster",
        "BlackHoleCluster",
        "-",
        "",
    ],
)
def test_a_name_that_istiod_gives_a_cluster(text: str) -> None:
    assert is_cluster_name(text)


@pytest.mark.parametrize("suffix", [";", "_;", ".", "-x;y", "|", " ", "\n"])
def test_a_clusters_name_for_statistics_is_no_cluster_name_and_names_no_service(
    suffix: str,
) -> None:
    text = f"outbound|80||app.shop.svc.cluster.local{suffix}"
    assert service_of_cluster(text, DOMAINS) is None
    assert is_cluster_name(text) is (suffix == ".")  # that could be a host's


@pytest.mark.parametrize("text", ["app.shop.svc.cluster.local_http;", "mine", "passthroughcluster"])
def test_any_other_text_is_no_cluster_name(text: str) -> None:
    assert not is_cluster_name(text)


@pytest.mark.parametrize(
    ("config", "namespace"),
    [
        ("/apis/networking.istio.io/v1alpha3/namespaces/shop/virtual-service/hello", "shop"),
        ("/apis/networking.istio.io/v1/namespaces/shop/virtual-service/hello.a", "shop"),
        *(
            (f"/apis/networking.istio.io/v1/namespaces/shop/virtual-service/{name}", "shop")
            for name in (
                "route-0-istio-autogenerated-k8s-gateway",  # an HTTPRoute, before Istio 1.28
                "route~0~istio-autogenerated-k8s-gateway",
                "gateways~shared-istio-autogenerated-k8s-gateway-http~*.example.com",  # merged
                "*-example-com-hello-istio-autogenerated-k8s-ingress",
                "Hello_1",
            )
        ),
        ("/apis/networking.istio.io/v1/namespaces/shop/virtual-service/a/b", None),
        ("/apis/networking.istio.io/v1/namespaces/shop/virtual-service/a b", None),
        ("/apis/networking.istio.io/v1/namespaces/shop/virtual-service/a\n", None),
        ("/apis/networking.istio.io/v1/namespaces/a~b/virtual-service/hello", None),
        ("/apis/networking.istio.io/v1/namespaces/shop/destination-rule/hello", None),
        ("/apis/networking.istio.io/v1/namespaces/../virtual-service/hello", None),
        ("/apis/networking.istio.io/v1/namespaces/a/namespaces/b/virtual-service/hello", None),
        ("x/apis/networking.istio.io/v1/namespaces/shop/virtual-service/hello", None),
        ("/apis/networking.istio.io/v1/namespaces/shop/virtual-service/", None),
        ("", None),
    ],
)
def test_route_metadata_names_its_namespace_or_none(config: str, namespace: str | None) -> None:
    assert namespace_of_virtual_service(config) == namespace


@pytest.mark.parametrize("text", ["shop", "a", "1", "a-b", L63])
def test_a_label_is_a_namespace(text: str) -> None:
    assert parse_namespace(text) == text


@pytest.mark.parametrize(
    "text", ["", "-a", "a-", "A", "a.b", "a_b", "a/b", "a\n", " a", L63 + "a", "*", "å", PUBLIC]
)
def test_anything_else_is_not_a_namespace(text: str) -> None:
    with pytest.raises(InvalidName, match="is not a namespace"):
        parse_namespace(text)


def test_a_service_is_a_name_and_a_namespace() -> None:
    service = parse_service("gateway.istio-system")

    assert service == Service("gateway", Namespace("istio-system"))
    assert str(service) == "gateway.istio-system"


@pytest.mark.parametrize("text", ["", "gateway", "a.b.c", ".b", "a.", "A.b", "a.b\n", "a/b"])
def test_anything_else_is_not_a_service(text: str) -> None:
    with pytest.raises(InvalidName, match="is not a service"):
        parse_service(text)


def test_a_cluster_domain_may_not_make_hosts_ambiguous() -> None:
    assert parse_cluster_domain("cluster.local") == "cluster.local"
    for text in ("", "svc.local", "a.svc", "Cluster.local", "cluster.local.", "a b"):
        with pytest.raises(InvalidName, match="is not a cluster domain"):
            parse_cluster_domain(text)


def test_namespaces_that_share_a_prefix_are_strangers() -> None:
    assert namespace_of_host("app.team-a.svc", DOMAINS) == "team-a"
    assert namespace_of_host("app.team.svc", DOMAINS) == "team"
    assert namespace_of_host("a.b.team.svc", DOMAINS) == "team"
