{{/* Names, labels, and what several templates have in common. */}}

{{- define "upload-broker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of objects. 50 characters at most, so that what is added to it still fits. */}}
{{- define "upload-broker.fullname" -}}
{{- $name := include "upload-broker.name" . }}
{{- $default := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) }}
{{- default $default .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* What selects the pods of the service. It must never change: selectors are immutable. */}}
{{- define "upload-broker.selector" -}}
app.kubernetes.io/name: {{ include "upload-broker.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: broker
{{- end }}

{{/* The labels of every object. */}}
{{- define "upload-broker.labels" -}}
app.kubernetes.io/name: {{ include "upload-broker.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "upload-broker.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{- define "upload-broker.serviceAccountName" -}}
{{- default (.Values.serviceAccount.create | ternary (include "upload-broker.fullname" .) "default") .Values.serviceAccount.name }}
{{- end }}

{{/* What the restricted pod security standard asks of a pod, and of a container in it. 65532 is the image's user. */}}
{{- define "upload-broker.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "upload-broker.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Whether the broker ends TLS itself: the name of the public port. */}}
{{- define "upload-broker.publicPort" -}}
{{- .Values.config.server.tls | empty | ternary "http" "https" }}
{{- end }}

{{/* The host of server.public_url. */}}
{{- define "upload-broker.publicHost" -}}
{{- $config := include "upload-broker.config" . | fromJson }}
{{- get (urlParse (dig "server" "public_url" "" $config)) "hostname" }}
{{- end }}

{{/* The fewest instances that there are. */}}
{{- define "upload-broker.fewest" -}}
{{- .Values.autoscaling.enabled | ternary .Values.autoscaling.minReplicas .Values.replicas }}
{{- end }}

{{/* Labels of series: the region, where it is known. */}}
{{- define "upload-broker.regionRelabeling" -}}
{{- with .Values.config.region }}{{ if ne . "auto" }}
relabelings:
  - targetLabel: region
    replacement: {{ . | quote }}
{{- end }}{{ end }}
{{- end }}
