"""Every error that this package raises on purpose: root of them all, and those of many places.

A text is for the operator: it names the field, what is wrong with the value and what to do.
"""

from collections.abc import Sequence


def to_install(extra: str) -> str:
    """How to get the packages of an extra: no index has this project under its name."""
    return f"pip install '.[{extra}]' in a clone, or 'FILE.whl[{extra}]' of its wheel"


class AuthzError(Exception):
    """Root of every error that is raised on purpose."""


class InvalidName(AuthzError, ValueError):
    """A namespace, service or domain name breaks the rules of its kind."""


class InvalidIdentity(AuthzError, ValueError):
    """A SPIFFE ID, certificate or x-forwarded-client-cert header does not prove one workload."""


class KeyringError(AuthzError):
    """A keyring, or a change to one, breaks the keyring's rules."""


class ClockBehind(KeyringError):
    """A change goes by a clock that shows less than when the keyring was last changed.

    Both are in seconds since the epoch.
    """

    def __init__(self, *, now: float, changed_at: int) -> None:
        super().__init__(
            f"the clock is {changed_at - int(now)} s before the keyring's last change: set it"
        )
        self.now = now
        self.changed_at = changed_at


class KeyStoreError(AuthzError):
    """The key store cannot be read or written; the text says what to do about it."""


class NoKeyring(KeyStoreError):
    """There is no keyring in the key store."""


class KeyringReplaced(KeyStoreError):
    """The keyring was put into its store by something else than this program, as a backup is."""


class KeyringRefused(KeyStoreError):
    """The stored keyring takes back what the one in use has settled."""


class Conflict(KeyStoreError):
    """Somebody else changed the key store first. Load it again and repeat the change."""


class ProblemsError(AuthzError):
    """Bad input with all of its problems, so that nobody has to find them one by one."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class BadPolicy(ProblemsError):
    """The policy file says something that cannot be followed."""


class BadSettings(ProblemsError):
    """The settings, from file, environment and flags together, do not make a server."""


class NoEvidence(ProblemsError):
    """What was to be judged could not be read, or says nothing: no answer is not a good one."""
