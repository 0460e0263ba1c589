{{- /* Names, labels and addresses: what several objects must say alike. */ -}}

{{- define "outrider.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- /* The release's name, with the chart's behind it where it is not in it already. Short enough for "-injector" and the like. */ -}}
{{- define "outrider.fullname" -}}
{{- $name := include "outrider.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "outrider.selectorLabels" -}}
app.kubernetes.io/name: {{ include "outrider.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* Of every object: (dict "root" $ "component" "broker"). The chart's version is not among them: an upgrade that changes nothing touches nothing. */ -}}
{{- define "outrider.metadata" -}}
labels:
  {{- include "outrider.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/managed-by: {{ .root.Release.Service }}
  app.kubernetes.io/part-of: outrider
  {{- with include "outrider.furtherLabels" (list .labels .root.Values.commonLabels) }}
  {{- . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- /* What the values add, the nearer first. No key twice, which some tools refuse; and none of the chart's own, which selectors go by. */ -}}
{{- define "outrider.furtherLabels" -}}
{{- $labels := merge (dict) (default (dict) (index . 0)) (default (dict) (index . 1)) -}}
{{- range list "name" "instance" "component" "managed-by" "part-of" }}{{ $labels = omit $labels (printf "app.kubernetes.io/%s" .) }}{{ end -}}
{{- with $labels }}{{ toYaml . }}{{ end -}}
{{- end -}}

{{- define "outrider.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end -}}

{{- /* Where roles listen: kubelet, Prometheus and pods come by any of the pod's addresses. Linux lets IPv4 in by [::], too. */ -}}
{{- define "outrider.anyAddress" -}}
{{ eq .Values.cluster.ipFamily "IPv6" | ternary "[::]" "0.0.0.0" }}
{{- end -}}

{{- /* Whom the roles call, and by which SPIFFE ID they know them. */ -}}
{{- define "outrider.broker.host" -}}
{{ include "outrider.fullname" . }}-broker.{{ .Release.Namespace }}.svc
{{- end -}}
{{- define "outrider.broker.peer" -}}
address: {{ include "outrider.broker.host" . }}:15002
spiffeId: spiffe://{{ .Values.trustDomain }}/outrider/broker
{{- end -}}
{{- define "outrider.collector.peer" -}}
address: {{ include "outrider.fullname" . }}-collector.{{ .Release.Namespace }}.svc:15005
spiffeId: spiffe://{{ .Values.trustDomain }}/ns/{{ .Release.Namespace }}/sa/{{ include "outrider.fullname" . }}-collector
{{- end -}}

{{- /* A role's own token for the API server, as Kubernetes mounts it. */ -}}
{{- define "outrider.apiServer" -}}
apiServer: https://kubernetes.default.svc
caFile: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
{{- end -}}

{{- /* The `iss` of minted credentials. */ -}}
{{- define "outrider.issuer.url" -}}
{{- default (printf "https://%s:15003" (include "outrider.broker.host" .)) .Values.broker.issuer.url -}}
{{- end -}}

{{- /* Whether one of the four kinds of monitoring objects is wanted: (list $ "rules"). */ -}}
{{- define "outrider.monitoring" -}}
{{- $monitoring := (index . 0).Values.monitoring -}}
{{- $written := index $monitoring (index . 1) -}}
{{- if kindIs "bool" $written }}{{ ternary "yes" "" $written }}{{ else }}{{ ternary "yes" "" $monitoring.enabled }}{{ end -}}
{{- end -}}
