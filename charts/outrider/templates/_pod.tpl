{{- /* What the pods of all roles have alike. Each is as "restricted" pod security wants it. */ -}}

{{- /* Of a pod template: (dict "root" $ "component" "broker" "values" .Values.broker "checksum" TEXT). */ -}}
{{- define "outrider.pod.metadata" -}}
labels:
  {{- include "outrider.selectorLabels" . | nindent 2 }}
  # Where the namespace is labelled, these would wait for themselves.
  outrider.dev/inject: disabled
  {{- with include "outrider.furtherLabels" (list (omit (default (dict) .values.podLabels) "outrider.dev/inject") (omit (default (dict) .root.Values.commonLabels) "outrider.dev/inject")) }}
  {{- . | nindent 2 }}
  {{- end }}
annotations:
  # What is read at the start alone: a change of it is a new pod.
  checksum/settings: {{ sha256sum .checksum }}
  {{- with merge (dict) .values.podAnnotations .root.Values.commonAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* (dict "root" $ "component" "broker" "values" .Values.broker "token" true) */ -}}
{{- define "outrider.pod.spec" -}}
serviceAccountName: {{ include "outrider.fullname" .root }}-{{ .component }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
shareProcessNamespace: false
# Requests in flight have 20 s, and what tells of them 5 s more.
terminationGracePeriodSeconds: 40
securityContext:
  {{- include "outrider.pod.security" .root | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "outrider.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "outrider.pod.security" -}}
runAsNonRoot: true
{{- with .Values.uid }}
runAsUser: {{ int . }}
runAsGroup: {{ int . }}
fsGroup: {{ int . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "outrider.container.security" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "outrider.container.probes" -}}
startupProbe:
  httpGet: { path: /livez, port: metrics }
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: { path: /livez, port: metrics }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: metrics }
  periodSeconds: 5
  timeoutSeconds: 5
{{- end -}}

{{- /* The API server and programs learn a moment late that a pod goes: it goes on answering for that moment. From 1.30. */ -}}
{{- define "outrider.container.lifecycle" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}
lifecycle:
  preStop:
    sleep:
      seconds: 5
{{- end }}
{{- end -}}
