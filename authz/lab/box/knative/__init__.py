"""Stand-ins for Knative's own processes, to run behind real Envoys.

    app            the tenant's workload
    queue_proxy    the sidecar in front of it
    pod            both in one process
    activator      the shared hop, with scale from zero
    autoscaler     what the activator reports to
    eventing       broker ingress, trigger filter, channel, PingSource
    sinks          JobSink, RequestReply
    callers        scrapes and probes, each made once: autoscaler, activator, prober, kubelet,
                   prometheus

Each but the last runs as `python -m authz.lab.box.knative.<name>`, says `ready` on stdout once it
listens, and ends on SIGTERM; `--help` tells its options and what it answers. `--control PATH` is
HTTP/1.1 on a Unix socket, for instance `curl --unix-socket PATH http://_/seen`.

What they do to a request follows Knative's Go code, which each place cites by repository and file
(knative-v1.23, knative/networking release-1.23). Bodies flow through; nothing is held whole.

Known differences: a proxy opens a connection for each request it forwards, where Go keeps some; an
HTTP/1.1 answer may start before the request has ended, as with Knative's full-duplex option; header
names are sent in lower case; a client that leaves while the activator waits for a pod is noticed
only then.
"""
