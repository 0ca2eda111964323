"""For how long the proxy that asked may give an answer again by itself, without another question.

A proxy finds a kept answer by a key, and knows less than the decision did. So an allow may be kept
only where the key names all that it depends on, and a denial never:

    sign                    the cluster that Envoy chose, Host
    verify                  P, the pod's address and port, the token header
    transit, the activator  the same, and the namespace that its two headers name, or else Host

The asking proxy itself is no part of a key: each keeps its own. A holder of a role is asked about
more than that (whose event it sends, whether a token came along), and keeps no answer to `sign` or
`verify`. Rows say of their answers whether they may be kept. The keys themselves are in
`envoyfilters/components/reuse`.

A revocation ends them all where a proxy hears of it: with each answer that may be kept goes
`Keyring.revocations`, and a worker of a proxy that is told another number forgets what it was told
with the one before.
"""

from typing import Final

from authz.domain.case import Case
from authz.domain.facts import Hop, Question
from authz.domain.verdict import Allow

REUSABLE: Final = frozenset({Question.SIGN, Question.VERIFY, Question.TRANSIT})
"""The questions of which answers may be kept."""


def seconds(case: Case, allow: Allow) -> int:
    """How many whole seconds an allow may be kept: until anything that it depends on ends.

    Whole, since proxies count in these, and rounded down. The key of a proxy begins with the peer
    that mTLS proved: where nobody did, there is none.
    """
    most = _most(case)
    if not most or not _may_be_kept(case, allow):
        return 0
    ends = min(allow.good_until, case.rules.next_change(case.now))
    return max(0, int(min(most, ends - case.now)))


def _most(case: Case) -> int:
    reuse, question = case.rules.reuse, case.question
    if question is Question.SIGN:
        return 0 if case.roles else reuse.sign
    if case.peer is None:
        return 0
    if question is Question.VERIFY:
        return 0 if case.roles else reuse.entry
    return reuse.entry if case.hop is Hop.ACTIVATOR else 0


def _may_be_kept(case: Case, allow: Allow) -> bool:
    """Whether none of the namespaces that it is about wants to be asked about each time."""
    parties, policy = allow.parties, case.policy
    about = parties.source, parties.destination
    return all(it is None or policy.of(it).reuse for it in about)
