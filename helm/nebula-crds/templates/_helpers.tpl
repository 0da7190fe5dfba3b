{{- /*
One definition, with `helm.sh/resource-policy: keep` among its annotations when "keep" is set. Upstream's definitions have
annotations, at the top of `metadata`; ours have none, and start with the name.
*/ -}}
{{- define "nebula-crds.definition" -}}
{{- $policy := "    helm.sh/resource-policy: keep\n" -}}
{{- if not .keep -}}
{{ .text }}
{{- else if contains "\nmetadata:\n  annotations:\n" .text -}}
{{ .text | replace "\nmetadata:\n  annotations:\n" (print "\nmetadata:\n  annotations:\n" $policy) }}
{{- else if contains "\nmetadata:\n  name:" .text -}}
{{ .text | replace "\nmetadata:\n  name:" (print "\nmetadata:\n  annotations:\n" $policy "  name:") }}
{{- else -}}
{{ fail "a definition whose metadata starts with neither annotations nor a name" }}
{{- end -}}
{{- end -}}
