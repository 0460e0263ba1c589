{{- /* The injector's configuration file. */ -}}
{{- define "outrider.injector.host" -}}
{{ include "outrider.fullname" . }}-injector.{{ .Release.Namespace }}.svc
{{- end -}}

{{- define "outrider.injector.configuration" -}}
{{- $sidecar := .Values.injector.sidecar -}}
{{- include "outrider.injector.references" . -}}
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

{{- /* How the sidecar's values must fit together. The injector would refuse the file; this says so before anything changes. */ -}}
{{- define "outrider.injector.references" -}}
{{- $sidecar := .Values.injector.sidecar -}}
{{- if and (has "transparent" $sidecar.modes) (kindIs "string" $sidecar.uid) -}}
{{- fail "injector.sidecar.modes: transparent needs a user of the proxy's own, which is not steered: write a number as injector.sidecar.uid, or remove transparent" -}}
{{- end -}}
{{- $small := "injector.sidecar.resourcesMax.%s: %s is less than what pods get unasked (%s), write at least that" -}}
{{- range $resource := list "cpu" "memory" -}}
{{- $requested := index $sidecar.resources.requests $resource -}}
{{- $limit := index $sidecar.resources.limits $resource -}}
{{- $max := index $sidecar.resourcesMax $resource -}}
{{- $most := include "outrider.amount" (list $resource $max "injector.sidecar.resourcesMax") | float64 -}}
{{- if gt (include "outrider.amount" (list $resource $requested "injector.sidecar.resources.requests") | float64) $most -}}
{{- fail (printf $small $resource (include "outrider.amount.text" $max) (include "outrider.amount.text" $requested)) -}}
{{- end -}}
{{- if not (kindIs "invalid" $limit) -}}
{{- $limited := include "outrider.amount" (list $resource $limit "injector.sidecar.resources.limits") | float64 -}}
{{- if and (eq $resource "memory") (lt $limited 134217728.0) -}}
{{- fail (printf "injector.sidecar.resources.limits.memory: %s is too little for the proxy, write at least 128Mi" (include "outrider.amount.text" $limit)) -}}
{{- end -}}
{{- if gt $limited $most -}}
{{- fail (printf $small $resource (include "outrider.amount.text" $max) (include "outrider.amount.text" $limit)) -}}
{{- end -}}
{{- if gt (include "outrider.amount" (list $resource $requested "injector.sidecar.resources.requests") | float64) $limited -}}
{{- fail (printf "injector.sidecar.resources.requests.%s: %s is more than the limit (%s), write at most that" $resource (include "outrider.amount.text" $requested) (include "outrider.amount.text" $limit)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* A number as it was written: a large one would be printed with an exponent. */ -}}
{{- define "outrider.amount.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else if eq (floor .) (float64 .) }}{{ printf "%.0f" (float64 .) }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{- /* (list "cpu" VALUE PATH): millicores, or bytes, to be compared. What the schema cannot say: neither nothing, nor a fraction of the smallest unit. */ -}}
{{- define "outrider.amount" -}}
{{- $resource := index . 0 -}}
{{- $text := include "outrider.amount.text" (index . 1) -}}
{{- $factors := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- if eq $resource "cpu" }}{{ $factors = dict "" 1000.0 "m" 1.0 }}{{ end -}}
{{- $amount := mulf (regexFind "^[0-9.]+" $text | float64) (index $factors (regexFind "[A-Za-z]*$" $text)) -}}
{{- if or (le $amount 0.0) (ne $amount (floor $amount)) (gt $amount 9007199254740991.0) -}}
{{- fail (printf "%s.%s: %s is not an amount of %s, write for example %s" (index . 2) $resource $text $resource (eq $resource "cpu" | ternary "500m or 2" "384Mi or 1Gi")) -}}
{{- end -}}
{{- printf "%.0f" $amount -}}
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
