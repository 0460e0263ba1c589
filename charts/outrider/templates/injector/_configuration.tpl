{{- /* The injector's configuration file. */ -}}
{{- define "outrider.injector.host" -}}
{{ include "outrider.fullname" . }}-injector.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "outrider.injector.configuration" -}}
{{- $sidecar := .Values.injector.sidecar -}}
kind: injector
listen: "{{ include "outrider.anyAddress" . }}:15009"
admin: "{{ include "outrider.anyAddress" . }}:15011"
cluster:
  {{- include "outrider.apiServer" . | nindent 2 }}
namespace: {{ .Release.Namespace }}
serving:
  {{- if .Values.injector.certificate.certManager.enabled }}
  files:
    certFile: /etc/outrider/tls/tls.crt
    keyFile: /etc/outrider/tls/tls.key
  {{- else }}
  selfSigned:
    secret: {{ include "outrider.fullname" . }}-injector-tls
    dnsNames: [{{ include "outrider.injector.host" . }}]
    webhookConfiguration: {{ include "outrider.fullname" . }}-injector
  {{- end }}
trust: { configMap: {{ include "outrider.fullname" . }}-trust }
webhookConfiguration: {{ include "outrider.fullname" . }}-injector
sidecar:
  image: {{ include "outrider.image" (dict "root" . "image" .Values.image) }}
  steerImage: {{ include "outrider.image" (dict "root" . "image" .Values.steerImage) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  broker:
    {{- include "outrider.broker.peer" . | nindent 4 }}
  collector:
    {{- include "outrider.collector.peer" . | nindent 4 }}
  tokenAudience: outrider
  tokenLifetime: {{ $sidecar.tokenLifetime }}
  uid: {{ kindIs "string" $sidecar.uid | ternary $sidecar.uid (int $sidecar.uid) }}
  clusterNames: {{ $sidecar.clusterNames }}
  clusterDomain: {{ .Values.cluster.domain }}
  ipFamily: {{ .Values.cluster.ipFamily }}
  noProxy: {{ toJson .Values.cluster.noProxy }}
  resources:
    {{- toYaml $sidecar.resources | nindent 4 }}
  resourcesMax:
    {{- toYaml $sidecar.resourcesMax | nindent 4 }}
  modes: {{ toJson $sidecar.modes }}
  onUnmatched: {{ $sidecar.onUnmatched }}
  audit: {{ $sidecar.audit }}
  logLevel: {{ $sidecar.logLevel }}
  {{- with $sidecar.unmatchedPrivateAddresses }}
  unmatchedPrivateAddresses: {{ . }}
  {{- end }}
  {{- with $sidecar.exclusions }}
  exclusions: {{ . }}
  {{- end }}
  {{- if .Values.selfTest.enabled }}
  selfTest: { namespace: {{ .Release.Namespace }}, serviceAccount: {{ include "outrider.fullname" . }}-self-test }
  {{- end }}
log: { level: {{ .Values.injector.logLevel }} }
{{- end -}}

{{- define "outrider.webhook" -}}
clientConfig:
  service:
    name: {{ include "outrider.fullname" . }}-injector
    namespace: {{ .Release.Namespace }}
    path: /mutate
    port: 443
rules:
  - apiGroups: [""]
    apiVersions: [v1]
    operations: [CREATE]
    resources: [pods]
    scope: Namespaced
admissionReviewVersions: [v1]
matchPolicy: Equivalent
reinvocationPolicy: IfNeeded
sideEffects: NoneOnDryRun
timeoutSeconds: 5
{{- end -}}
