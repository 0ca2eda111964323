"""Envoy's external authorization: a CheckRequest in, a CheckResponse out, whatever happens."""

from authz.extauthz.service import AuthorizationService

__all__ = ["AuthorizationService"]
