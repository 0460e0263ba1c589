{{- /* The collector's configuration file. */ -}}
{{- define "outrider.collector.configuration" -}}
kind: collector
listen: "{{ include "outrider.anyAddress" . }}:15005"
admin: "{{ include "outrider.anyAddress" . }}:15006"
identity:
  broker:
    {{- include "outrider.broker.peer" . | nindent 4 }}
  brokerCaFile: /etc/outrider/trust/ca.pem
  tokenFile: /var/run/secrets/outrider/token
store:
  file: /var/lib/outrider/events/events.jsonl
log: { level: {{ .Values.collector.logLevel }} }
{{- end -}}
