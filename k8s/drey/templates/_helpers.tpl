{{- define "drey.labels" -}}
app.kubernetes.io/name: drey
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- /* Of one thing: what the component says, else what all pods say. */ -}}
{{- define "drey.podValue" -}}
{{- $own := get (default dict (get .root.Values .component)) .key }}
{{- toYaml (ternary $own (get .root.Values.pods .key) (not (empty $own))) }}
{{- end }}

{{- define "drey.podMetadata" -}}
{{- $labels := mergeOverwrite (deepCopy .root.Values.pods.labels) (default dict (get (default dict (get .root.Values .component)) "labels")) }}
{{- $annotations := mergeOverwrite (deepCopy .root.Values.pods.annotations) (default dict (get (default dict (get .root.Values .component)) "annotations")) }}
labels:
  {{- include "drey.labels" . | nindent 2 }}
  {{- range $key, $value := $labels }}
  {{- if hasPrefix "app.kubernetes.io/" $key }}
  {{- fail (printf "labels: %s is by what the release finds its pods" $key) }}
  {{- end }}
  {{ $key | quote }}: {{ $value | quote }}
  {{- end }}
{{- with $annotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Where a pod may run. */ -}}
{{- define "drey.placement" -}}
{{- $root := .root }}{{ $component := .component }}
{{- with include "drey.podValue" (dict "root" $root "component" $component "key" "nodeSelector") | fromYaml }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "drey.podValue" (dict "root" $root "component" $component "key" "tolerations") | fromYamlArray }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "drey.podValue" (dict "root" $root "component" $component "key" "priorityClassName") | trimAll "\"\n" }}
priorityClassName: {{ . }}
{{- end }}
{{- with include "drey.podValue" (dict "root" $root "component" $component "key" "topologySpread") | fromYamlArray }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml . | nindent 4 }}
    labelSelector: {{ include "drey.selector" (dict "root" $root "component" $component) }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "drey.url" -}}
{{- $ref := get .root.Values.secrets.urls .key | default dict }}
{{- if .root.Values.trial.enabled }}{{ $ref = dict }}{{ end -}}
{secretKeyRef: {name: {{ $ref.name | default (include "drey.connections" .root) }}, key: {{ $ref.key | default .key }}}}
{{- end }}

{{- define "drey.authorityVolume" -}}
{{- with .Values.secrets.authority }}
- name: authority-of-servers
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "drey.authorityMount" -}}
{{- if .Values.secrets.authority }}
- {name: authority-of-servers, mountPath: /etc/drey/servers, readOnly: true}
{{- end }}
{{- end }}

{{- define "drey.image" -}}
{{ with .root.Values.image.registry }}{{ . }}/{{ end }}drey-{{ .component }}:{{ .root.Values.image.tag }}
{{- end }}

{{- define "drey.connections" -}}
{{- if .Values.trial.enabled }}{{ .Release.Name }}-trial-connections{{ else }}{{ .Values.secrets.connections }}{{ end -}}
{{- end }}

{{- define "drey.web" -}}
{{ or .Values.web.enabled (and .Values.trial.enabled .Values.trial.web) }}
{{- end }}

{{- define "drey.port" -}}
{{ get (dict "snapshot" 7101 "monitor" 7102 "restore" 7103 "gateway" 7100) . }}
{{- end }}

{{- define "drey.probePort" -}}
{{ get (dict "snapshot" 7111 "monitor" 7112 "restore" 7113 "gateway" 7110) . }}
{{- end }}

{{- define "drey.metricsPort" -}}
{{ get (dict "snapshot" 7121 "monitor" 7122 "restore" 7123 "gateway" 7120) . }}
{{- end }}

{{- define "drey.text" -}}
{{ if kindIs "string" . }}{{ . | quote }}{{ else }}{{ . | toJson | quote }}{{ end }}
{{- end }}

{{- define "drey.secure" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "drey.podSecure" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "drey.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "drey.env" -}}
{{- $root := .root }}{{ $service := .component }}{{ $name := $root.Release.Name }}
{{- if ne $service "monitor" }}
- {name: DREY_POSTGRES_URL, valueFrom: {{ include "drey.url" (dict "root" $root "key" "postgres") }}}
{{- end }}
- {name: DREY_REDIS_URL, valueFrom: {{ include "drey.url" (dict "root" $root "key" "redis") }}}
- {name: DREY_NATS_URL, valueFrom: {{ include "drey.url" (dict "root" $root "key" "nats") }}}
- {name: DREY_NAMESPACE, value: {{ $root.Values.site | quote }}}
- {name: DREY_SHARDS, value: {{ $root.Values.shards | toJson | quote }}}
- {name: DREY_TRUSTED_KEYS, value: /etc/drey/keys/trusted.json}
- {name: DREY_SIGNING_KEY, value: /etc/drey/keys/{{ $service }}.pem}
- {name: DREY_{{ upper $service }}_LISTEN, value: "0.0.0.0:{{ include "drey.port" $service }}"}
- {name: DREY_PROBE_LISTEN, value: "0.0.0.0:{{ include "drey.probePort" $service }}"}
{{- if $root.Values.metrics.enabled }}
- {name: DREY_METRICS_LISTEN, value: "0.0.0.0:{{ include "drey.metricsPort" $service }}"}
{{- end }}
{{- range $other := list "snapshot" "monitor" "restore" "gateway" }}
- {name: DREY_{{ upper $other }}_TARGET, value: "{{ $name }}-{{ $other }}:{{ include "drey.port" $other }}"}
{{- end }}
{{- if $root.Values.tls.enabled }}
- {name: DREY_TLS_CERT, value: /etc/drey/tls/tls.crt}
- {name: DREY_TLS_KEY, value: /etc/drey/tls/tls.key}
- {name: DREY_TLS_CA, value: /etc/drey/tls/ca.crt}
- {name: DREY_TLS_CLIENT_CA, value: /etc/drey/tls/ca.crt}
{{- else }}
- {name: DREY_ALLOW_INSECURE_LISTEN, value: "true"}
{{- end }}
{{- if ne $service "gateway" }}
{{- with $root.Values.epics.addressList }}
- {name: DREY_{{ upper $service }}_CA_ADDRESS_LIST, value: {{ . | quote }}}
{{- end }}
- {name: DREY_{{ upper $service }}_CA_AUTO_ADDRESS_LIST, value: {{ $root.Values.epics.autoAddressList | quote }}}
{{- with $root.Values.epics.nameServers }}
- {name: DREY_{{ upper $service }}_CA_NAME_SERVERS, value: {{ . | quote }}}
{{- end }}
{{- end }}
{{- if eq $service "monitor" }}
- {name: DREY_MONITOR_LEASE, value: kubernetes}
- {name: DREY_MONITOR_LEASE_DURATION, value: {{ $root.Values.leaseDuration | toJson | quote }}}
- {name: DREY_MONITOR_LEASE_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: DREY_MONITOR_LEASE_IDENTITY, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
{{- end }}
{{- range $key, $value := $root.Values.settings.common }}
- {name: DREY_{{ upper $key }}, value: {{ include "drey.text" $value }}}
{{- end }}
{{- range $key, $value := get $root.Values.settings $service }}
- {name: DREY_{{ upper $service }}_{{ upper $key }}, value: {{ include "drey.text" $value }}}
{{- end }}
{{- end }}

{{- define "drey.migration" -}}
- name: {{ .component }}
  image: {{ include "drey.image" . | quote }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  securityContext: {{- include "drey.secure" . | nindent 4 }}
  command: [python, -m, drey_runtime.migrate, --application-role, {{ .root.Values.secrets.applicationRole }}]
  args: {{- toYaml .packages | nindent 4 }}
  env:
    - {name: DREY_POSTGRES_URL, valueFrom: {{ include "drey.url" (dict "root" .root "key" "postgresOwner") }}}
  resources: {requests: {cpu: 50m, memory: 96Mi}, limits: {memory: 256Mi}}
  {{- with include "drey.authorityMount" .root }}
  volumeMounts: {{- . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* The variables of a service, those of the site last, none twice. */ -}}
{{- define "drey.allEnv" -}}
{{- $own := include "drey.env" . }}
{{- $names := list }}{{ range $own | fromYamlArray }}{{ $names = append $names .name }}{{ end }}
{{- $own }}
{{- $given := get (get .root.Values .component) "env" | default list }}
{{- range concat .root.Values.pods.env $given }}
{{- if has .name $names }}{{ fail (printf "env: %s is set already; see settings and the other values" .name) }}{{ end }}
{{- $names = append $names .name }}
- {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "drey.selector" -}}
{matchLabels: {app.kubernetes.io/name: drey, app.kubernetes.io/instance: {{ .root.Release.Name }}, app.kubernetes.io/component: {{ .component }}}}
{{- end }}
