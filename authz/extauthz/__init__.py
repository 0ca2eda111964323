"""Envoy's external authorization: a CheckRequest in, a CheckResponse out, whatever happens."""

from authz.extauthz.service import AuthorizationService, is_native

__all__ = ["AuthorizationService", "is_native"]
