"""What a policy comes to: who may reach whom, by which way, and what a change of it opens.

Nothing here knows a rule. Every answer is asked of `authz.domain.decision.decide`.
"""
