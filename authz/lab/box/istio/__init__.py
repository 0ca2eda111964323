"""A mesh in a box: Knative on Istio on one machine, with real Envoys. Needs root.

    async with box.running() as mesh:
        answer = await mesh.call("globex/plain", "http://hello.acme-db/")
        assert (answer.status, answer.reason) == (403, "not-allowed")

There is no Kubernetes and no Knative here. **What the proxies are configured with is the real
istiod's**: the world is put into a real API server as objects, istiod is asked as each proxy what
it sends, and the box plays these recordings (`authz.lab.recordings`; its `playing` lists every
difference). EnvoyFilters are applied by our own engine, which is held to what istiod makes of them.
With `source=authz.lab.live.live()` the same Envoys are fed by a real istiod instead.

Real are: Envoy, its TLS, the filters that we ship, iptables with the rules of istio-init, the way
kube-proxy treats cluster IPs, and the service. Knative's processes are the stand-ins of
`authz.lab.box.knative`, its objects as its own programs write them: see `cluster`. By istio/istio
1.30 is what `rules` says of capture (tools/istio-iptables/pkg/capture/run.go) and `agent` of
probes.

What it cannot show:

    Istio's own filters (metadata exchange, stats, `istio.alpn`) are left out. What the last one
    does, tell HTTP from other TCP by ALPN, the clusters do. Whether Istio's build of Envoy agrees
    with the one used here is not shown.
    Configuration is static: nothing about pushes, their order, or what happens in between.
    Only what was recorded can be played: other objects than those of `authz.lab.world.variants`
    are an error that names the command to record them.
    One pod for each Service, no DNS server, IPv4 only, no HBONE, no ambient, no NetworkPolicy.
    Pods have a network of their own, but no file system: all programs see the same files.

Parts: `cluster` is who is there, `world` the words for it; `box` starts it; `configurations` says
where proxies get theirs from, `recorded` is the way that needs no Go; `mesh` is what tests and
scenarios use, `client` how they call.

In short, `mesh` being what `box.running` yields (pods are called `namespace/name`):

    call(pod, url, via=, headers=, method=, body=, http2=, tls=, uid=, through_sidecar=) -> Answer
    connected(pod, "host:port", tls=, through_sidecar=)     raw bytes, in plaintext or TLS
    tls(pod, sni=, alpn=)       TLS with that pod's certificate, as whoever owns the pod can use it
    seen(pod), forget(*pods)    what its app saw
    checks(pod)                 how often its Envoy asked, by filter and outcome
    revisions(), scale(pod, up=), settled()      the activator: wake-ups, scale to zero
    control(pod, method, path, content)          the stand-ins' control sockets
    set_policy(yaml), keys("rotate", …), kill(pod), kill_proxy(pod), start_authz()
    install(documents, pods)    other objects in the cluster; the proxies of these pods start again
    configs[pod], config_dump(pod), log(pod), metrics()

`box.running(world, tenants=, reuse=, patched=, policy=, settings=, extra=, source=)`: `patched`
takes the shipped documents and returns those to install, so that a test can take one rule away and
see the attack succeed: `patched=without("tenant-authz-tcp")`; `tenants` says whose pods run, the
world is whole all the same. `network.missing()` says why there can be no box here.
"""
