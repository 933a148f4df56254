{{/* What everything of a release carries. */}}
{{- define "archipelago.labels" -}}
{{ include "archipelago.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "archipelago.selector" -}}
app.kubernetes.io/name: archipelago-coordinator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Every node as the others reach it: `1=host:port,2=host:port`. */}}
{{- define "archipelago.peers" -}}
{{- $peers := list -}}
{{- range $n := untilStep 1 (add1 (int .Values.nodes) | int) 1 -}}
{{- $own := printf "%s-%d.%s.%s.svc:7101" $.Release.Name $n $.Release.Name $.Release.Namespace -}}
{{- $address := $own -}}
{{- if $.Values.addresses -}}
{{- $address = index $.Values.addresses (sub $n 1 | int) -}}
{{- end -}}
{{- $peers = append $peers (printf "%d=%s" $n $address) -}}
{{- end -}}
{{- join "," $peers -}}
{{- end }}
