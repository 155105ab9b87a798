{{/* Names. A Service's begins with a letter, which a release's need not. */}}
{{- define "tidegate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "tidegate.fullname" -}}
{{- $name := include "tidegate.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else if regexMatch "^[0-9]" .Release.Name -}}
{{- printf "%s-%s" $name .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "tidegate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tidegate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* Every value is quoted: a release named n, 1e3 or true is no string to YAML. */}}
{{- define "tidegate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tidegate.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: gateway
{{- end }}

{{/* (list $ "component") */}}
{{- define "tidegate.labels" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ include "tidegate.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ last . | quote }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | quote }}
{{- include "tidegate.quoted" $root.Values.commonLabels }}
{{- end }}

{{/* Those of a pod: without the chart's version, for a chart that changes nothing of the pod restarts none. */}}
{{- define "tidegate.podLabels" -}}
{{ include "tidegate.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- include "tidegate.quoted" (merge dict .Values.podLabels .Values.commonLabels) }}
{{- end }}

{{/* Labels or annotations, quoted; nothing for an empty map. */}}
{{- define "tidegate.quoted" -}}
{{- range $key, $value := . }}
{{ $key | quote }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "tidegate.image" -}}
{{- $image := .Values.image -}}
{{- $registry := default $image.registry .Values.global.imageRegistry -}}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default .Chart.AppVersion $image.tag }}{{ end -}}
{{- end }}

{{- define "tidegate.imagePullSecrets" -}}
{{- with concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The port of a listener: of the first of its addresses that is no socket file. */}}
{{- define "tidegate.port" -}}
{{- $addresses := list -}}
{{- range (kindIs "string" . | ternary (list .) .) -}}
{{- if not (hasPrefix "unix:" .) }}{{ $addresses = append $addresses . }}{{ end -}}
{{- end -}}
{{- with $addresses }}{{ first . | regexFind "[0-9]+$" }}{{ end -}}
{{- end }}

{{- define "tidegate.publicPort" -}}
{{- include "tidegate.port" (.Values.config.public).listen -}}
{{- end }}
{{- define "tidegate.internalPort" -}}
{{- include "tidegate.port" (.Values.config.internal).listen -}}
{{- end }}

{{/* A duration of the configuration (5s, 1m30s, 500ms) in whole seconds, rounded up. */}}
{{- define "tidegate.seconds" -}}
{{- $milliseconds := 0 -}}
{{- range regexFindAll "[0-9]+(h|ms|m|s)" . -1 -}}
{{- $unit := get (dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1) (regexFind "[a-z]+" .) -}}
{{- $milliseconds = add $milliseconds (mul (regexFind "[0-9]+" . | int64) $unit) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end }}

{{/* From the signal to the kill: the gateway's own drain and 15 s to flush and exit. */}}
{{- define "tidegate.gracePeriod" -}}
{{- $drain := .Values.config.drain | default dict -}}
{{- $notice := include "tidegate.seconds" ($drain.notice | default "5s") -}}
{{- $period := include "tidegate.seconds" ($drain.period | default "20s") -}}
{{- add $notice $period 15 .Values.preStopSleepSeconds -}}
{{- end }}

{{/* The most gateways that there may be. */}}
{{- define "tidegate.maxReplicas" -}}
{{- eq .Values.autoscaling.type "none" | ternary .Values.replicas .Values.autoscaling.maxReplicas | int -}}
{{- end }}
{{- define "tidegate.minReplicas" -}}
{{- eq .Values.autoscaling.type "none" | ternary .Values.replicas .Values.autoscaling.minReplicas | int -}}
{{- end }}

{{- define "tidegate.brokerURL" -}}
{{- (.Values.config.broker).url | default "memory:" -}}
{{- end }}

{{/* Not empty where messages are in the gateway's own memory. */}}
{{- define "tidegate.memory" -}}
{{- if and (hasPrefix "memory:" (include "tidegate.brokerURL" .)) (not (and .Values.redis.existingSecret .Values.redis.urlKey)) }}true{{ end -}}
{{- end }}

{{/* Not empty where anyone must show a credential. */}}
{{- define "tidegate.credentials" -}}
{{- $auth := .Values.auth -}}
{{- if or $auth.keys.existingSecret $auth.keys.entries $auth.jwt.existingSecret (dig "auth" "jwt" "jwks_url" "" .Values.config) (dig "auth" "jwt" "key_file" "" .Values.config) (dig "auth" "keys_file" "" .Values.config) }}true{{ end -}}
{{- end }}
