{{- define "pdserve.labels" -}}
app.kubernetes.io/name: pdserve
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Of one service: (dict "root" $ "role" "gateway") */}}
{{- define "pdserve.selector" -}}
app.kubernetes.io/name: pdserve
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- define "pdserve.name" -}}
{{- printf "%s-%s" .root.Release.Name .role | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "pdserve.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end }}

{{/* Addresses of all schedulers: their names in the headless service. */}}
{{- define "pdserve.schedulers" -}}
{{- $name := include "pdserve.name" (dict "root" . "role" "scheduler") -}}
{{- $all := list -}}
{{- range $number := until (int .Values.scheduler.replicas) -}}
{{- $all = append $all (printf "%s-%d.%s.%s.svc:7400" $name $number $name $.Release.Namespace) -}}
{{- end -}}
{{- join "," $all -}}
{{- end }}

{{- define "pdserve.environment" -}}
- {name: PDSERVE_CLUSTER, value: {{ .root.Values.cluster | quote }}}
- {name: PDSERVE_CERTIFICATES, value: /certificates}
- {name: PDSERVE_SCHEDULER, value: {{ include "pdserve.schedulers" .root | quote }}}
- {name: PDSERVE_LOG_FORMAT, value: {{ .root.Values.logFormat | quote }}}
- {name: PDSERVE_SHUTDOWN_LIMIT, value: {{ printf "%ds" (int .root.Values.shutdownSeconds) | quote }}}
- name: PDSERVE_HOST_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end }}

{{- define "pdserve.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add (int .root.Values.shutdownSeconds) 15 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Begins a container; environment and mounts follow. */}}
{{- define "pdserve.container" -}}
name: {{ .role }}
image: {{ include "pdserve.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [{{ .role }}]
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- with .values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A process that hangs is started again; one that loads its model has ten minutes. */}}
{{- define "pdserve.probes" -}}
startupProbe:
  httpGet: {path: /live, port: {{ .port }}}
  periodSeconds: 2
  failureThreshold: 300
livenessProbe:
  httpGet: {path: /live, port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /health, port: {{ .port }}}
  periodSeconds: 3
  timeoutSeconds: 3
{{- end }}

{{- define "pdserve.annotations" -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
{{- with .root.Values.podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "pdserve.certificates" -}}
- name: certificates
  secret:
    secretName: {{ printf "%s-%s" .root.Values.certificates.secretPrefix .role }}
    defaultMode: 0440
- name: temporary
  emptyDir: {}
{{- end }}
