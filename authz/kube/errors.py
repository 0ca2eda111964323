"""What can go wrong with an API server."""

from authz.errors import AuthzError


class KubeError(AuthzError):
    """The API server did not do what it was asked; the text says why and what to do.

    `status` is the HTTP status, or `None` where there was no answer to speak of. `retry_after` is
    for how many seconds the server wants to be left alone.
    """

    def __init__(self, text: str, *, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after

    @property
    def unknown_outcome(self) -> bool:
        """Whether a change may have been made all the same."""
        return self.status is None or self.status >= 500


class NoCluster(KubeError):
    """No configuration names a cluster. One that is there and cannot be used is something else."""


class Gone(KubeError):
    """The API server has forgotten what we want to go on from: list again."""


class TooMuch(KubeError):
    """The answer is longer, or nested more deeply, than we read: ask for less at once."""


class Interrupted(KubeError):
    """The connection ended, or nothing came any more: go on from where we were."""
