{{- /* The broker's configuration file: what the values say, and what the chart itself needs. */ -}}

{{- /* Changed by a restart alone. */ -}}
{{- define "outrider.broker.fixed" -}}
kind: broker
trustDomain: {{ .Values.trustDomain }}
stateDir: /var/lib/outrider/broker
sharedKeys:
  {{- include "outrider.apiServer" . | nindent 2 }}
  namespace: {{ .Release.Namespace }}
  secret: {{ include "outrider.fullname" . }}-keys
  configMap: {{ include "outrider.fullname" . }}-trust
bundleFile: /var/lib/outrider/broker-ca.pem
listen: "{{ include "outrider.anyAddress" . }}:15002"
admin: "{{ include "outrider.anyAddress" . }}:15004"
issuer:
  url: {{ include "outrider.issuer.url" . }}
  listen: "{{ include "outrider.anyAddress" . }}:15003"
  algorithm: {{ .Values.broker.issuer.algorithm }}
  {{- if .Values.broker.issuer.tls.secretName }}
  tls:
    certFile: /etc/outrider/issuer-tls/tls.crt
    keyFile: /etc/outrider/issuer-tls/tls.key
  {{- end }}
log: { level: {{ .Values.broker.logLevel }} }
{{- end -}}

{{- define "outrider.broker.attestor" -}}
name: cluster
issuer: {{ .Values.cluster.issuer }}
audience: outrider
caFile: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
authorizationTokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
{{- if eq .Values.cluster.attestation "token_review" }}
kind: token_review
apiServer: https://kubernetes.default.svc
{{- else }}
kind: projected_token
{{- /* An issuer of the cloud's is public; only the cluster's own is signed by the cluster's authority and asks who calls. */}}
{{- end }}
{{- end -}}

{{- define "outrider.broker.ownWorkloads" -}}
- name: outrider-collector
  attestor: cluster
  match: { kubernetes.namespace: {{ .Release.Namespace | quote }}, kubernetes.service_account: {{ include "outrider.fullname" . }}-collector }
{{- if .Values.selfTest.enabled }}
- name: outrider-self-test
  attestor: cluster
  match: { kubernetes.namespace: {{ .Release.Namespace | quote }}, kubernetes.service_account: {{ include "outrider.fullname" . }}-self-test }
{{- end }}
{{- end -}}

{{- /* What the self-test calls: the issuer's keys, which anybody may read, so that the credential opens nothing. */ -}}
{{- define "outrider.selfTest.url" -}}
{{ include "outrider.issuer.url" . }}/jwks
{{- end -}}
{{- /* Where they are, as the proxy writes a host: in lower case. */ -}}
{{- define "outrider.selfTest.origin" -}}
https://{{ (urlParse (include "outrider.selfTest.url" .)).host | lower }}
{{- end -}}
{{- /*
  How its connections come to the proxy; nothing where it is not to be run. It asks broker and collector, too, where the proxy lets nobody go
  whose connections are steered: so mode transparent is the last, and only where exclusions are allowed.
*/ -}}
{{- define "outrider.selfTest.mode" -}}
{{- $sidecar := .Values.injector.sidecar -}}
{{- $refuses := or (eq $sidecar.onUnmatched "refuse") (eq (toString $sidecar.unmatchedPrivateAddresses) "refused") -}}
{{- if not .Values.selfTest.enabled -}}
{{- else if has "explicit" $sidecar.modes -}}
explicit
{{- else if has "routes" $sidecar.modes -}}
routes
{{- else if eq "allowed" (default ($refuses | ternary "refused" "allowed") $sidecar.exclusions) -}}
transparent
{{- end -}}
{{- end -}}
{{- define "outrider.broker.ownTarget" -}}
{{- $url := urlParse (include "outrider.selfTest.origin" .) -}}
{{- $port := regexFind ":[0-9]+$" $url.host -}}
name: outrider-self-test
hosts: [{{ $url.hostname | quote }}]
ports: [{{ default "443" (trimPrefix ":" $port) }}]
{{- if not (or .Values.broker.issuer.url .Values.broker.issuer.tls.secretName) }}
caFile: /var/lib/outrider/broker-ca.pem
{{- end }}
credentials:
  - { provider: outrider-self-test, placement: { kind: bearer } }
{{- end -}}

{{- define "outrider.broker.configuration" -}}
{{- $port := regexFind ":[0-9]+$" (urlParse (include "outrider.issuer.url" .)).host | trimPrefix ":" -}}
{{- if gt (int (default "443" $port)) 65535 -}}
{{- fail (printf "broker.issuer.url: %s is no port, write one from 1 to 65535" $port) -}}
{{- end -}}
{{- /* `targets:` with nothing behind it is null, and takes the default away. */ -}}
{{- $written := merge (dict) (default (dict) .Values.broker.configuration) -}}
{{- range list "attestors" "workloads" "providers" "targets" "policies" -}}
{{- if not (index $written .) }}{{ $_ := set $written . list }}{{ end -}}
{{- end -}}
{{- $made := include "outrider.broker.fixed" . | fromYaml -}}
{{- $attestor := include "outrider.broker.attestor" . | fromYaml -}}
{{- $external := not (or (hasPrefix "https://kubernetes.default.svc" .Values.cluster.issuer)) -}}
{{- if and $external (eq .Values.cluster.attestation "jwks") -}}
{{- $attestor = omit $attestor "caFile" "authorizationTokenFile" -}}
{{- end -}}
{{- $_ := set $made "attestors" (concat (list $attestor) $written.attestors) -}}
{{- $_ := set $made "workloads" (concat (include "outrider.broker.ownWorkloads" . | fromYamlArray) $written.workloads) -}}
{{- $providers := $written.providers -}}
{{- $targets := $written.targets -}}
{{- $policies := $written.policies -}}
{{- if .Values.selfTest.enabled -}}
{{- $audience := include "outrider.selfTest.url" . -}}
{{- $providers = concat (list (dict "kind" "jwt" "name" "outrider-self-test" "audience" $audience "lifetime" "1m")) $providers -}}
{{- $targets = concat (list (include "outrider.broker.ownTarget" . | fromYaml)) $targets -}}
{{- $rule := dict "name" "read-keys" "effect" "allow" "workloads" (list "outrider-self-test") "targets" (list "outrider-self-test") "methods" (list "GET") -}}
{{- $policies = concat (list (dict "name" "outrider-self-test" "rules" (list $rule))) $policies -}}
{{- end -}}
{{- $_ := set $made "providers" $providers -}}
{{- $_ := set $made "targets" $targets -}}
{{- $_ := set $made "policies" $policies -}}
{{- with $written.svidLifetime }}{{ $_ := set $made "svidLifetime" . }}{{ end -}}
{{- include "outrider.broker.references" $made -}}
{{- toYaml $made -}}
{{- end -}}

{{- /* Names that are there once, and are there where they are named. The broker would refuse the file; this says so before anything changes. */ -}}
{{- define "outrider.broker.references" -}}
{{- $known := dict -}}
{{- range $section := list "attestors" "workloads" "providers" "targets" "policies" -}}
{{- $names := list -}}
{{- range $entry := index $ $section -}}
{{- if has $entry.name $names -}}
{{- fail (printf "broker.configuration.%s: %q is there twice (names that begin with outrider- and the attestor cluster are the chart's), write another name" $section $entry.name) -}}
{{- end -}}
{{- $names = append $names $entry.name -}}
{{- end -}}
{{- $_ := set $known $section $names -}}
{{- end -}}
{{- range $workload := .workloads -}}
{{- if and $workload.attestor (not (has $workload.attestor $known.attestors)) -}}
{{- fail (printf "broker.configuration.workloads: %q names attestor %q, which is not among attestors (the cluster's own is called cluster)" $workload.name $workload.attestor) -}}
{{- end -}}
{{- end -}}
{{- range $target := .targets -}}
{{- range $credential := $target.credentials -}}
{{- if not (has $credential.provider $known.providers) -}}
{{- fail (printf "broker.configuration.targets: %q names provider %q, which is not among providers" $target.name $credential.provider) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $policy := .policies -}}
{{- range $rule := $policy.rules -}}
{{- range $kind := list "workloads" "targets" -}}
{{- range $name := (index $rule $kind) -}}
{{- if not (has $name (index $known $kind)) -}}
{{- fail (printf "broker.configuration.policies: rule %q of %q names %q, which is not among %s" $rule.name $policy.name $name $kind) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
