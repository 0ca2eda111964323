"""What plays and models: real Envoys on this machine, and models of what is around them.

The service never imports it, and its image does not hold it.

    harness   processes of our own, certificates, Envoys, the service as an operator runs it
    loopback  tenants on the loopback interface
    box       Istio and Knative in network namespaces
    demo      plays either, for `authz demo`
"""
