"""A mesh in network namespaces: Istio and Knative modelled, Envoy real. It needs root."""
