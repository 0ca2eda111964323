"""A mesh in a box: Knative on Istio, modelled on one machine with real Envoys. Needs root.

    async with box.running() as mesh:
        answer = await mesh.call("globex/plain", "http://hello.acme-db/")
        assert (answer.status, answer.reason) == (403, "not-allowed")

**This is a model.** There is no Kubernetes, no istiod and no Knative here. `istiod` writes, from
the description in `world`, the Envoy configuration that Istio 1.30 would; Knative's processes are
the stand-ins of `authz.lab.box.knative`. Real are: Envoy, its TLS, the filters that we ship,
iptables with the rules of istio-init, kube-proxy's way with cluster IPs, and the service.

Faithful, by istio/istio 1.30 where no other place is named:

    names and order of listeners, chains, filters   pilot/pkg/networking/core/listener_builder.go
    inbound chains by port, mode and ALPN           …/listener_inbound.go, filterchain_options.go
    outbound hosts, aliases of ExternalNames        …/core/httproute.go, model/push_context.go
    clusters, SNI, ALPN, who may answer             …/core/cluster.go, cluster_tls.go
    the gateway                                     …/core/gateway.go
    AuthorizationPolicy                             pilot/pkg/security/authz/{builder,model}
    capture                                         tools/istio-iptables/pkg/capture/run.go
    Services and VirtualServices of Knative         knative/serving, net-istio: see `cluster`

What it cannot show:

    Istio's own filters (metadata exchange, stats, `istio.alpn`) are left out. What the last one
    does, tell HTTP from other TCP by ALPN, the clusters do. Whether Istio's build of Envoy agrees
    with the one used here is not shown.
    Configuration is static: nothing about pushes, their order, or what happens in between.
    One pod for each Service, no DNS server, IPv4 only, no HBONE, no ambient, no NetworkPolicy.
    Of Istio's objects, the fields that `objects` and `authorization` read, and no others.
    Pods have a network of their own, but no file system: all programs see the same files.

Parts: `cluster` is who is there, `world` the words for it; `box` starts it; `mesh` is what tests
and scenarios use, `client` how they call.

In short, `mesh` being what `box.running` yields (pods are called `namespace/name`):

    call(pod, url, via=, headers=, method=, body=, http2=, tls=, uid=, through_sidecar=) -> Answer
    connected(pod, "host:port", tls=, through_sidecar=)     raw bytes, in plaintext or TLS
    tls(pod, sni=, alpn=)       TLS with that pod's certificate, as whoever owns the pod can use it
    seen(pod), forget(*pods)    what its app saw
    checks(pod)                 how often its Envoy asked, by filter and outcome
    revisions(), scale(pod, up=), settled()      the activator: wake-ups, scale to zero
    control(pod, method, path, content)          the stand-ins' control sockets
    set_policy(yaml), keys("rotate", …), kill(pod), kill_proxy(pod), start_authz()
    configs[pod], config_dump(pod), log(pod), metrics()

`box.running(world, overlay=, patched=, policy=, extra=)`: `patched` takes the shipped documents and
returns those to install, so that a test can take one rule away and see the attack succeed:
`patched=without("tenant-authz-tcp")`. `network.missing()` says why there can be no box here.
"""
