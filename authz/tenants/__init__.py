"""A tenant's objects: what onboarding puts into the cluster."""
