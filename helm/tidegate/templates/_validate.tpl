{{/*
What a schema cannot say, or says badly: one sentence for each mistake, all of them at once.
*/}}
{{- define "tidegate.validate" -}}
{{- $wrong := list -}}
{{- $v := .Values -}}
{{- $config := $v.config -}}

{{- $credentials := include "tidegate.credentials" . -}}
{{- if not (or $credentials $v.insecure) }}
{{- $wrong = append $wrong "no credentials are configured: set auth.keys.existingSecret (who publishes) and auth.jwt.existingSecret or config.auth.jwt.jwks_url (who subscribes); or insecure: true, which lets everyone who reaches the Services subscribe and publish" }}
{{- end }}
{{- if and $credentials $v.insecure }}
{{- $wrong = append $wrong "insecure: true and credentials are both configured: remove one" }}
{{- end }}
{{- if and $v.auth.keys.existingSecret $v.auth.keys.entries }}
{{- $wrong = append $wrong "auth.keys.existingSecret and auth.keys.entries are both set: remove one" }}
{{- end }}

{{- /* Secrets in a tree that lands in a ConfigMap. */}}
{{- range $key, $instead := dict "password" "passwordKey" "sentinel_password" "sentinelPasswordKey" }}
{{- if dig "broker" $key "" $config }}
{{- $wrong = append $wrong (printf "config.broker.%s would stand readable in a ConfigMap: use redis.existingSecret with redis.%s" $key $instead) }}
{{- end }}
{{- end }}
{{- if regexMatch "^[a-z+-]+://[^/?]*@" (include "tidegate.brokerURL" .) }}
{{- $wrong = append $wrong "config.broker.url has a password, which would stand readable in a ConfigMap: use redis.existingSecret with redis.passwordKey or redis.urlKey" }}
{{- end }}
{{- if dig "auth" "keys" list $config }}
{{- $wrong = append $wrong "config.auth.keys would stand readable in a ConfigMap: use auth.keys.existingSecret or auth.keys.entries" }}
{{- end }}

{{- range $name := list "public" "internal" }}
{{- $listen := dig $name "listen" "" $config }}
{{- $addresses := kindIs "string" $listen | ternary (list $listen) $listen }}
{{- if not (include "tidegate.port" $listen) }}
{{- $wrong = append $wrong (printf "config.%s.listen has no address with a port, which the Service needs" $name) }}
{{- else }}
{{- range $addresses }}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\])" . }}
{{- $wrong = append $wrong (printf "config.%s.listen %s is loopback: neither the Service nor the kubelet's probes would reach it" $name .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if eq (include "tidegate.publicPort" .) (include "tidegate.internalPort" .) }}
{{- $wrong = append $wrong "config.public.listen and config.internal.listen have the same port" }}
{{- end }}

{{- with $v.redis }}
{{- if and .existingSecret (not (or .urlKey .passwordKey .sentinelPasswordKey)) }}
{{- $wrong = append $wrong "redis.existingSecret is set, but none of its keys: redis.urlKey, redis.passwordKey, redis.sentinelPasswordKey" }}
{{- end }}
{{- if and (not .existingSecret) .urlKey }}
{{- $wrong = append $wrong "redis.urlKey is set, but not redis.existingSecret" }}
{{- end }}
{{- if and .existingSecret .urlKey (dig "broker" "url" "" $config) }}
{{- $wrong = append $wrong "config.broker.url and redis.urlKey are both set: remove one" }}
{{- end }}
{{- if ne (empty .tls.certKey) (empty .tls.keyKey) }}
{{- $wrong = append $wrong "redis.tls.certKey and redis.tls.keyKey go together" }}
{{- end }}
{{- end }}
{{- if and $v.tls.internal.clientCAKey (not $v.tls.internal.existingSecret) }}
{{- $wrong = append $wrong "tls.internal.clientCAKey is a key of tls.internal.existingSecret, which is empty" }}
{{- end }}
{{- if and $v.tls.internal.clientCAKey $v.test.enabled }}
{{- $wrong = append $wrong "tls.internal.clientCAKey demands a client certificate, which the test pod has none of: set test.enabled: false" }}
{{- end }}

{{- if and (include "tidegate.memory" .) (gt (include "tidegate.maxReplicas" . | int) 1) }}
{{- $wrong = append $wrong "more than one gateway with the memory broker would each have channels of their own: set config.broker.url to a Redis, or redis.existingSecret with redis.urlKey; or replicas: 1 and autoscaling.type: none" }}
{{- end }}
{{- if and (ne $v.autoscaling.type "none") (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) }}
{{- $wrong = append $wrong "autoscaling.minReplicas is over autoscaling.maxReplicas" }}
{{- end }}

{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) (not $v.gateway.enabled) }}
{{- $wrong = append $wrong "httpRoute.parentRefs is empty: name a Gateway, or let the chart make one with gateway.enabled" }}
{{- end }}
{{- if and $v.gateway.enabled (not $v.httpRoute.enabled) }}
{{- $wrong = append $wrong "gateway.enabled makes a Gateway without a route: set httpRoute.enabled" }}
{{- end }}
{{- if and $v.httpRoute.publish.enabled (not (or $v.auth.keys.existingSecret $v.auth.keys.entries)) }}
{{- $wrong = append $wrong "httpRoute.publish.enabled without auth.keys would let everyone publish" }}
{{- end }}
{{- if and $v.httpRoute.publish.enabled (not $v.httpRoute.enabled) }}
{{- $wrong = append $wrong "httpRoute.publish.enabled needs httpRoute.enabled" }}
{{- end }}

{{- if and $v.preStopSleepSeconds (semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version) }}
{{- $wrong = append $wrong (printf "preStopSleepSeconds needs Kubernetes 1.30, this is %s; config.drain.notice does the same everywhere" .Capabilities.KubeVersion.Version) }}
{{- end }}

{{- if $wrong }}
{{- fail (printf "\n\ntidegate: %s\n" (join "\ntidegate: " $wrong)) }}
{{- end }}
{{- end }}
