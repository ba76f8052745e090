{{/* Of every object. Helm's own labels (the chart's version, the release) are left out: Helm marks what it installs by itself. */}}
{{- define "sluice.labels" -}}
app.kubernetes.io/name: sluice
{{- end }}

{{- define "sluice.agentLabels" -}}
{{ include "sluice.labels" . }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "sluice.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "sluice.probe" -}}
httpGet:
  host: 127.0.0.1
  port: 9808
  path: {{ . }}
timeoutSeconds: 5
{{- end }}
