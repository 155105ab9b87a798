{{/*
A table as TOML (dict "path" "a.b" "table" {…}): its plain values first, then its tables. JSON's strings, numbers and
lists are TOML's too; toToml would write a whole number as a float.
*/}}
{{- define "tidegate.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .table -}}
{{- if not (or (kindIs "invalid" $value) (include "tidegate.toml.nested" $value)) }}
{{ $key }} = {{ toRawJson $value }}
{{- end -}}
{{- end -}}
{{- range $key, $value := .table -}}
{{- if include "tidegate.toml.nested" $value -}}
{{- $inner := empty $path | ternary $key (printf "%s.%s" $path $key) -}}
{{- if kindIs "map" $value }}
{{- with $value }}

[{{ $inner }}]
{{- include "tidegate.toml" (dict "path" $inner "table" .) }}
{{- end }}
{{- else }}
{{- range $value }}

[[{{ $inner }}]]
{{- include "tidegate.toml" (dict "path" $inner "table" .) }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "tidegate.toml.nested" -}}
{{- if kindIs "map" . }}true{{ else if kindIs "slice" . }}{{ if . }}{{ if kindIs "map" (first .) }}true{{ end }}{{ end }}{{ end -}}
{{- end }}

{{/* The gateway's file: the tree of the values, and the paths of what is mounted. */}}
{{- define "tidegate.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $paths := dict -}}
{{- with .Values.redis }}
{{- $broker := dict -}}
{{- if .existingSecret }}
{{- if .passwordKey }}{{ $_ := set $broker "password_file" (printf "/etc/tidegate/redis/%s" .passwordKey) }}{{ end -}}
{{- if .sentinelPasswordKey }}{{ $_ := set $broker "sentinel_password_file" (printf "/etc/tidegate/redis/%s" .sentinelPasswordKey) }}{{ end -}}
{{- end -}}
{{- if .tls.existingSecret }}
{{- if .tls.caKey }}{{ $_ := set $broker "ca_file" (printf "/etc/tidegate/redis-tls/%s" .tls.caKey) }}{{ end -}}
{{- if .tls.certKey }}{{ $_ := set $broker "cert_file" (printf "/etc/tidegate/redis-tls/%s" .tls.certKey) }}{{ end -}}
{{- if .tls.keyKey }}{{ $_ := set $broker "key_file" (printf "/etc/tidegate/redis-tls/%s" .tls.keyKey) }}{{ end -}}
{{- end -}}
{{- with $broker }}{{ $_ := set $paths "broker" . }}{{ end -}}
{{- end -}}
{{- if .Values.auth.jwt.existingSecret }}
{{- $_ := set $paths "auth" (dict "jwt" (dict "key_file" (printf "/etc/tidegate/jwt/%s" .Values.auth.jwt.secretKey))) -}}
{{- end -}}
{{- if .Values.tls.public.existingSecret }}
{{- $_ := set $paths "public" (dict "tls_cert_file" "/etc/tidegate/tls-public/tls.crt" "tls_key_file" "/etc/tidegate/tls-public/tls.key") -}}
{{- end -}}
{{- with .Values.tls.internal }}
{{- if .existingSecret }}
{{- $internal := dict "tls_cert_file" "/etc/tidegate/tls-internal/tls.crt" "tls_key_file" "/etc/tidegate/tls-internal/tls.key" -}}
{{- if .clientCAKey }}{{ $_ := set $internal "client_ca_file" (printf "/etc/tidegate/tls-internal/%s" .clientCAKey) }}{{ end -}}
{{- $_ := set $paths "internal" $internal -}}
{{- end -}}
{{- end -}}
{{- include "tidegate.toml" (dict "path" "" "table" (mergeOverwrite $config $paths)) | trim -}}
{{- end }}

{{/* The publishers' keys that stand in the values. */}}
{{- define "tidegate.keys" -}}
{{- range .Values.auth.keys.entries }}
[[auth.keys]]
{{- include "tidegate.toml" (dict "path" "auth.keys" "table" .) }}
{{ end -}}
{{- end }}
