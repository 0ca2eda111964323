"""Proves isolation on a running mesh: two throwaway tenants, paths, attacks, what comes of them."""
