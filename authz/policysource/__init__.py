"""Where policy comes from: a file or a ConfigMap, and labels and `Grant` objects of the cluster.

    file             reads and checks a policy file
    reader           does so in a process of its own where the file is large
    location         what names a text in a ConfigMap
    configmap        follows the policy in one
    merge            adds what the cluster says to the policy of the file
    cluster_objects  labels of namespaces and `Grant` objects as Kubernetes holds them
    source           follows them
    status           tells each Grant whether it counts
    cluster          the same for a server: what is told to log and metrics

`configmap`, `source` and `status` import `authz.kube`: import them only where `policy_configmap` or
`policy_from_cluster` is set.
"""
