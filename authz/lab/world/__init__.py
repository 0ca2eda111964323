"""Who is there: the worlds that are played, and what they are as objects of Kubernetes and Istio.

model     the words for it: pods, Services, VirtualServices
cluster   the standard world: the platform, Knative, six tenants
paths     the same with all that is needed to go every path there is
attacked  the same with what attackers and careless victims put into it
objects   a world as real objects, as Kubernetes, Knative and net-istio write them
variants  which worlds, with which documents, are recorded
"""
