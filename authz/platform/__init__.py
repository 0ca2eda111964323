"""The platform around the service: tenants' objects, what a cluster can hold, shadow to enforce."""
