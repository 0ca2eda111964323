"""The matrix of paths: every way through Knative and Istio, who may take it, and who asks us there.

It is data. The tables of envoyfilters/PATHS.md, the tests and `authz demo --knative` are made of
it, so none of them says what the others do not show.

    world      the standard cluster with what the paths need besides
    table      calls: by path and by who calls, the questions asked on the way, what comes of it
    probes     what the platform asks of a pod, and that the app never sees it
    deliveries what Eventing delivers
    attacks    the tricks that would work without us
    play       all of it, for the demo
"""
