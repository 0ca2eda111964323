{{- /* What the values change in an object. Each takes the root and an object. */ -}}

{{- define "tenant-authz.wanted" -}}
{{- $root := index . 0 }}{{ $object := index . 1 }}
{{- $place := dig "metadata" "namespace" "" $object }}
{{- if and (eq $object.kind "Namespace") (not $root.Values.namespace) -}}
{{- else if and (eq $place "knative-eventing") (not $root.Values.eventing) -}}
{{- else -}}
yes
{{- end -}}
{{- end -}}

{{- define "tenant-authz.object" -}}
{{- $root := index . 0 }}{{ $object := index . 1 }}{{ $values := $root.Values }}
{{- $name := $object.metadata.name }}
{{- if and (eq $object.kind "ConfigMap") (eq $name "tenant-authz-policy") $values.policy }}
{{- $_ := set $object "data" (dict "policy.yaml" $values.policy) }}
{{- end }}
{{- if and (eq $object.kind "ConfigMap") (hasPrefix "tenant-authz-settings" $name) $values.settings }}
{{- $_ := set $object "data" (dict "settings.yaml" (include "tenant-authz.settings" (list $root (index $object.data "settings.yaml")))) }}
{{- $_ := set $object.metadata "name" (include "tenant-authz.settings-name" $root) }}
{{- end }}
{{- if and (eq $object.kind "Service") (eq $name "authz") $values.fallback }}
{{- $_ := unset $object.spec "internalTrafficPolicy" }}
{{- $_ := set $object.metadata "annotations" (dict "networking.istio.io/traffic-distribution" "PreferSameNode") }}
{{- end }}
{{- /* Not to be lost by an uninstall: the keys, and what tenants granted. */}}
{{- if or (eq $object.kind "CustomResourceDefinition") (and (eq $object.kind "Secret") (eq $name "tenant-authz-keys")) }}
{{- $_ := set $object.metadata "annotations" (merge (dict "helm.sh/resource-policy" "keep") (dig "metadata" "annotations" (dict) $object)) }}
{{- end }}
{{- /* A Job cannot be changed: it is made once, and no upgrade touches it. */}}
{{- if eq $object.kind "Job" }}
{{- $_ := set $object.metadata "annotations" (dict "helm.sh/hook" "post-install" "helm.sh/hook-delete-policy" "before-hook-creation") }}
{{- end }}
{{- if has $object.kind (list "DaemonSet" "Deployment" "Job") }}
{{- include "tenant-authz.pod" (list $root $object) }}
{{- end }}
{{- toYaml $object }}
{{- end -}}

{{- define "tenant-authz.pod" -}}
{{- $root := index . 0 }}{{ $values := $root.Values }}{{ $spec := (index . 1).spec.template.spec }}
{{- range $container := $spec.containers }}
{{- if eq (default "" $container.image) "tenant-authz" }}
{{- $_ := set $container "image" (include "tenant-authz.image" $root) }}
{{- end }}
{{- if eq $container.name "authz" }}
{{- if $values.resources }}{{ $_ := set $container "resources" $values.resources }}{{ end }}
{{- if $values.policyFromCluster }}
{{- $more := dict "name" "AUTHZ_POLICY_FROM_CLUSTER" "value" "true" }}
{{- $_ := set $container "env" (prepend (default (list) $container.env) $more) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $volume := $spec.volumes }}
{{- if and $values.settings (hasPrefix "tenant-authz-settings" (dig "configMap" "name" "" $volume)) }}
{{- $_ := set $volume.configMap "name" (include "tenant-authz.settings-name" $root) }}
{{- end }}
{{- end }}
{{- if $values.image.pullSecrets }}
{{- $names := list }}
{{- range $values.image.pullSecrets }}{{ $names = append $names (dict "name" .) }}{{ end }}
{{- $_ := set $spec "imagePullSecrets" $names }}
{{- end }}
{{- end -}}

{{- define "tenant-authz.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}
{{- end }}
{{- end -}}

{{- define "tenant-authz.settings" -}}
{{- $root := index . 0 }}{{ toYaml (mergeOverwrite (fromYaml (index . 1)) (deepCopy $root.Values.settings)) }}
{{- end -}}

{{- /* Another name for other settings, so that the pods are replaced. */ -}}
{{- define "tenant-authz.settings-name" -}}
tenant-authz-settings-{{ toYaml .Values.settings | sha256sum | trunc 10 }}
{{- end -}}
