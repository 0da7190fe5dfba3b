{{- /* The name of everything in the release's namespace. The Service's is part of the proxies' address of discovery. */ -}}
{{- define "nebula.name" -}}
{{- printf "%s-control-plane" (.Release.Name | trunc 48 | trimSuffix "-") -}}
{{- end -}}

{{- /* The name of what has no namespace, so that a second control plane fits beside the first. */ -}}
{{- define "nebula.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "nebula.name" .) -}}
{{- end -}}

{{- /* The Lease of the replica that leads, and the Secret with the roots: as the control plane calls them. */ -}}
{{- define "nebula.lease" -}}
nebula-control-plane
{{- end -}}
{{- define "nebula.authority" -}}
nebula-ca
{{- end -}}

{{- /* The ConfigMap with what proxies trust, in the namespaces of Gateways: as the control plane calls it. */ -}}
{{- define "nebula.bundle" -}}
nebula-ca-{{ .Values.controllerName | sha256sum | trunc 10 }}
{{- end -}}

{{- /* What selects the control plane's pods. It must never change: a Deployment's selector is fixed. */ -}}
{{- define "nebula.selector" -}}
app.kubernetes.io/name: nebula-control-plane
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nebula.labels" -}}
{{ include "nebula.selector" . }}
app.kubernetes.io/component: control-plane
app.kubernetes.io/part-of: nebula
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* A whole image reference, from (list . "name"). */ -}}
{{- define "nebula.image" -}}
{{- $ := index . 0 -}}
{{- $image := $.Values.image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ index . 1 }}:{{ $image.tag | default $.Chart.AppVersion }}
{{- end -}}
