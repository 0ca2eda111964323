"""tenant-authz: Envoy external authorization that keeps tenants apart on a shared cluster."""
