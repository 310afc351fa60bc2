{{/* The configuration of the broker, and what must hold before anything is rendered from it. */}}

{{/* The configuration as JSON, with the region's address as the public one where none is given. */}}
{{- define "upload-broker.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if not $config.server.public_url }}
{{- range $config.regions }}
{{- if eq (toString .name) (toString $config.region) }}{{ $_ := set $config.server "public_url" .url }}{{ end }}
{{- end }}
{{- end }}
{{- $config | toJson }}
{{- end }}

{{/*
Makes whole numbers in .value integers again, in place: Helm reads every number of a values file as a float, which TOML
tells apart.
*/}}
{{- define "upload-broker.wholeNumbers" -}}
{{- $holder := . }}
{{- $value := .value }}
{{- if kindIs "map" $value }}
{{- range $key, $inner := $value }}
{{- $entry := dict "value" $inner }}
{{- include "upload-broker.wholeNumbers" $entry }}
{{- $_ := set $value $key $entry.value }}
{{- end }}
{{- else if kindIs "slice" $value }}
{{- $items := list }}
{{- range $value }}
{{- $entry := dict "value" . }}
{{- include "upload-broker.wholeNumbers" $entry }}
{{- $items = append $items $entry.value }}
{{- end }}
{{- $_ := set $holder "value" $items }}
{{- else if kindIs "float64" $value }}
{{- if eq $value (floor $value) }}{{ $_ := set $holder "value" (int64 $value) }}{{ end }}
{{- end }}
{{- end }}

{{/* The configuration as TOML. */}}
{{- define "upload-broker.toml" -}}
{{- $holder := dict "value" (include "upload-broker.config" . | fromJson) }}
{{- include "upload-broker.wholeNumbers" $holder }}
{{- toToml $holder.value }}
{{- end }}

{{/* Of what a change must replace the pods: all that the broker does not read again by itself. */}}
{{- define "upload-broker.fixedConfig" -}}
{{- $config := include "upload-broker.config" . | fromJson }}
{{- /* Storage is opened with other rights where a policy asks for signed URLs. */}}
{{- $signs := false }}
{{- range $config.policies }}
{{- if or (has "simple" (default list .transfers)) (has "signed_resumable" (default list .transfers)) }}{{ $signs = true }}{{ end }}
{{- end }}
{{- range .Values.reloadedSections }}
{{- $steps := splitList "." . }}
{{- $holder := ternary (get $config (first $steps)) $config (gt (len $steps) 1) }}
{{- if kindIs "map" $holder }}{{ $_ := unset $holder (last $steps) }}{{ end }}
{{- end }}
{{- toJson (list $config .Values.configFiles $signs) | sha256sum }}
{{- end }}

{{/*
The address of Redis, where a Secret has its password: the kubelet puts the password in. Percent-encoding is the Secret's.
*/}}
{{- define "upload-broker.redisUrl" -}}
{{- $credentials := printf "%s:$(REDIS_PASSWORD)@" .Values.secrets.redisPassword.username }}
{{- regexReplaceAll "^([a-z+]+://)" .Values.config.store.url (printf "${1}%s" ($credentials | replace "$" "$$")) }}
{{- end }}

{{/* The port of an address, or of one without a scheme; `.default` is for those that name none. */}}
{{- define "upload-broker.port" -}}
{{- $place := regexReplaceAll "^[a-z0-9+]+://" .address "" | regexFind "^[^/?#]*" }}
{{- regexFind ":[0-9]+$" $place | trimPrefix ":" | default .default }}
{{- end }}

{{/*
The ports, as JSON, on which the configuration has the broker call somebody: 443, and what it names. Redis's are apart.
*/}}
{{- define "upload-broker.calledPorts" -}}
{{- $config := include "upload-broker.config" . | fromJson }}
{{- $addresses := list (dig "storage" "endpoint" "" $config) (dig "telemetry" "otlp_endpoint" "" $config) }}
{{- range $config.webhooks }}{{ $addresses = append $addresses .url }}{{ end }}
{{- range $config.regions }}
{{- if ne (toString .name) (toString $config.region) }}{{ $addresses = append $addresses .url }}{{ end }}
{{- end }}
{{- /* Keys that are no file are fetched: from where it says, or from where the issuer itself does. */}}
{{- range append (default list $config.issuers) (default dict $config.notifications) }}
{{- if not .jwks_file }}{{ $addresses = append $addresses (default .issuer .jwks_url) }}{{ end }}
{{- end }}
{{- range $name, $value := .Values.env }}
{{- if regexMatch "(?i)^(https?|all)_proxy$" $name }}{{ $addresses = append $addresses $value }}{{ end }}
{{- end }}
{{- $ports := list "443" }}
{{- range $address := $addresses | compact }}
{{- /* What stays in the pod is no policy's business. */}}
{{- if not (regexMatch "^https?://(localhost|127[.][0-9.]+|\\[::1\\])(:|/|$)" $address) }}
{{- $default := hasPrefix "http://" $address | ternary "80" "443" }}
{{- $ports = append $ports (include "upload-broker.port" (dict "address" $address "default" $default)) }}
{{- end }}
{{- end }}
{{- $ports | uniq | sortAlpha | toJson }}
{{- end }}

{{/* The ports of Redis, as JSON: those of the values, and what its address in the configuration names. */}}
{{- define "upload-broker.redisPorts" -}}
{{- $ports := list }}
{{- range .Values.networkPolicy.redisPorts }}{{ $ports = append $ports (toString .) }}{{ end }}
{{- $url := dig "store" "url" "" .Values.config }}
{{- if regexMatch "^rediss?([+](sentinel|cluster))?://" $url }}
{{- $default := contains "+sentinel:" $url | ternary "26379" "6379" }}
{{- range regexReplaceAll "^[a-z+]+://([^/?#]*).*$" $url "${1}" | splitList "," }}
{{- $ports = append $ports (include "upload-broker.port" (dict "address" . "default" $default)) }}
{{- end }}
{{- end }}
{{- $ports | uniq | sortAlpha | toJson }}
{{- end }}

{{/* Writes every text at or below .value into .texts. */}}
{{- define "upload-broker.texts" -}}
{{- $texts := .texts }}
{{- if kindIs "map" .value }}
{{- range .value }}{{ include "upload-broker.texts" (dict "value" . "texts" $texts) }}{{ end }}
{{- else if kindIs "slice" .value }}
{{- range .value }}{{ include "upload-broker.texts" (dict "value" . "texts" $texts) }}{{ end }}
{{- else if kindIs "string" .value }}
{{- $_ := set $texts .value true }}
{{- end }}
{{- end }}

{{/* The files that the configuration names, as JSON: of each, the key and the path. */}}
{{- define "upload-broker.files" -}}
{{- $found := list (dict "key" "trusted_ca" "path" .trusted_ca) }}
{{- range $key := list "certificate" "key" }}
{{- $found = append $found (dict "key" (printf "server.tls.%s" $key) "path" (dig "server" "tls" $key "" $)) }}
{{- end }}
{{- range $key := list "ca" "certificate" "key" }}
{{- $found = append $found (dict "key" (printf "store.tls.%s" $key) "path" (dig "store" "tls" $key "" $)) }}
{{- end }}
{{- range $index, $key := dig "store" "encryption_keys" list . }}
{{- $found = append $found (dict "key" (printf "store.encryption_keys[%d].file" $index) "path" $key.file) }}
{{- end }}
{{- $credentials := dig "storage" "credentials" "auto" . }}
{{- if kindIs "map" $credentials }}
{{- $found = append $found (dict "key" "storage.credentials.file" "path" $credentials.file) }}
{{- end }}
{{- range $index, $issuer := .issuers }}
{{- $found = append $found (dict "key" (printf "issuers[%d].jwks_file" $index) "path" $issuer.jwks_file) }}
{{- end }}
{{- $found = append $found (dict "key" "notifications.jwks_file" "path" (dig "notifications" "jwks_file" "" .)) }}
{{- range $index, $receiver := .webhooks }}
{{- $found = append $found (dict "key" (printf "webhooks[%d].secret_file" $index) "path" $receiver.secret_file) }}
{{- end }}
{{- $found = append $found (dict "key" "routing.geoip_database" "path" (dig "routing" "geoip_database" "" .)) }}
{{- $named := list }}
{{- range $found }}{{ if .path }}{{ $named = append $named . }}{{ end }}{{ end }}
{{- $named | toJson }}
{{- end }}

{{/* Says "true" of an absolute .path where the pod has something mounted, by .values. */}}
{{- define "upload-broker.isMounted" -}}
{{- $path := clean .path }}
{{- $mounted := hasKey .values.configFiles (trimPrefix "/etc/upload-broker/" $path) }}
{{- $directories := list }}
{{- range $directory := keys .values.secrets.files }}
{{- $directories = append $directories (printf "/run/secrets/upload-broker/%s" $directory) }}
{{- end }}
{{- if .values.federation.audience }}{{ $directories = append $directories "/run/secrets/upload-broker/federation" }}{{ end }}
{{- range .values.extraVolumeMounts }}{{ $directories = append $directories .mountPath }}{{ end }}
{{- range $directories }}
{{- if hasPrefix (printf "%s/" (trimSuffix "/" .)) $path }}{{ $mounted = true }}{{ end }}
{{- end }}
{{- if $mounted }}true{{ end }}
{{- end }}

{{/* Fails with all that is wrong at once, each with the value to look at. */}}
{{- define "upload-broker.validate" -}}
{{- $values := .Values }}
{{- $config := include "upload-broker.config" . | fromJson }}
{{- $store := default dict $config.store }}
{{- $wrong := list }}

{{- if not $values.image.repository }}
{{- $wrong = append $wrong "image.repository is needed: where you pushed the image" }}
{{- end }}
{{- if not $config.region }}
{{- $wrong = append $wrong "config.region is needed: the region that this release serves" }}
{{- end }}
{{- range list "regions" "issuers" "policies" }}
{{- if not (get $config .) }}{{ $wrong = append $wrong (printf "config.%s is needed: at least one" .) }}{{ end }}
{{- end }}

{{- $names := list }}
{{- range $config.regions }}{{ $names = append $names (toString .name) }}{{ end }}
{{- if and $config.region $names (ne $config.region "auto") (not (has $config.region $names)) }}
{{- $wrong = append $wrong (printf "config.region is %q, which is no name in config.regions (%s)" $config.region (join ", " $names)) }}
{{- else if and $config.region $names (not $config.server.public_url) }}
{{- $wrong = append $wrong "config.server.public_url is needed: what clients call this region's broker" }}
{{- end }}
{{- if not (or $config.server.tls $config.server.trusted_proxies) }}
{{- $wrong = append $wrong "config.server.tls or config.server.trusted_proxies is needed: without either, every request is refused" }}
{{- end }}

{{- $redisUrl := $values.secrets.redisUrl.name }}
{{- $redisPassword := $values.secrets.redisPassword.name }}
{{- if and $redisUrl (or $store.url $redisPassword) }}
{{- $wrong = append $wrong "secrets.redisUrl stands for the whole address: leave out config.store.url and secrets.redisPassword" }}
{{- else if not (or $redisUrl $store.url) }}
{{- $wrong = append $wrong "config.store.url or secrets.redisUrl.name is needed: where Redis is" }}
{{- else if and $redisPassword (not (hasPrefix "redis" (toString $store.url))) }}
{{- $wrong = append $wrong "secrets.redisPassword is for a config.store.url of Redis" }}
{{- end }}
{{- if eq (toString $store.url) "memory" }}
{{- if or $values.autoscaling.enabled (gt (int $values.replicas) 1) }}
{{- $wrong = append $wrong "config.store.url \"memory\" serves one instance: set replicas to 1, and autoscaling.enabled to false" }}
{{- end }}
{{- else if not $store.encryption_keys }}
{{- $wrong = append $wrong "config.store.encryption_keys is needed: session URIs are sealed with them" }}
{{- end }}

{{- $texts := dict }}
{{- include "upload-broker.texts" (dict "value" $config "texts" $texts) }}
{{- range $text := keys $texts | sortAlpha }}
{{- if regexMatch "PRIVATE KEY|://[^/@ ]*:[^/@ ]*@|^whsec_" $text }}
{{- $wrong = append $wrong "config holds a password or a key: put it into a Secret, and name that in secrets" }}
{{- end }}
{{- if and (hasPrefix "/run/secrets/upload-broker/" $text) (not (include "upload-broker.isMounted" (dict "values" $values "path" $text))) }}
{{- $directory := trimPrefix "/run/secrets/upload-broker/" $text | splitList "/" | first }}
{{- $wrong = append $wrong (printf "config names %s, but secrets.files has no %q" $text $directory) }}
{{- end }}
{{- end }}
{{- range include "upload-broker.files" $config | fromJsonArray }}
{{- $path := clean .path }}
{{- if not (or (hasPrefix "/" $path) (hasKey $values.configFiles $path)) }}
{{- $wrong = append $wrong (printf "config.%s is %q, which is no name in configFiles" .key .path) }}
{{- /* Secrets are looked at above. A database may be in an image of one's own, and one that is missing is no fault. */}}
{{- else if and (hasPrefix "/" $path) (not (hasPrefix "/run/secrets/upload-broker/" $path)) (ne .key "routing.geoip_database") (not (include "upload-broker.isMounted" (dict "values" $values "path" $path))) }}
{{- $wrong = append $wrong (printf "config.%s is %q, where nothing is mounted: see configFiles, secrets.files and extraVolumeMounts" .key .path) }}
{{- end }}
{{- end }}

{{- range keys $values.secrets.env | sortAlpha }}
{{- if hasKey $values.env . }}{{ $wrong = append $wrong (printf "%s is in env and in secrets.env: keep one" .) }}{{ end }}
{{- end }}

{{- $fewest := include "upload-broker.fewest" . | int }}
{{- if and $values.podDisruptionBudget.enabled (ge (int $values.podDisruptionBudget.minAvailable) $fewest) }}
{{- $wrong = append $wrong (printf "podDisruptionBudget.minAvailable (%d) must be below the number of instances (%d), or no node can be drained" (int $values.podDisruptionBudget.minAvailable) $fewest) }}
{{- end }}
{{- if and $values.autoscaling.enabled (gt (int $values.autoscaling.minReplicas) (int $values.autoscaling.maxReplicas)) }}
{{- $wrong = append $wrong "autoscaling.minReplicas must not be above autoscaling.maxReplicas" }}
{{- end }}
{{- $needed := add 35 (int $values.preStopSleepSeconds) | int }}
{{- if lt (int $values.terminationGracePeriodSeconds) $needed }}
{{- $wrong = append $wrong (printf "terminationGracePeriodSeconds must be at least %d: preStopSleepSeconds, and 35 s to drain" $needed) }}
{{- end }}
{{- if and $values.podMonitor.enabled $values.serviceMonitor.enabled }}
{{- $wrong = append $wrong "podMonitor and serviceMonitor would count everything twice: enable one" }}
{{- end }}
{{- $monitored := or $values.podMonitor.enabled $values.serviceMonitor.enabled }}
{{- if and $monitored $values.prometheusRule.job }}
{{- $wrong = append $wrong "prometheusRule.job is for series that something else makes: leave it out beside podMonitor or serviceMonitor" }}
{{- else if and $values.prometheusRule.enabled (not $monitored) (not $values.prometheusRule.job) }}
{{- $wrong = append $wrong "prometheusRule.enabled without podMonitor or serviceMonitor would fire UploadBrokerDown for ever: enable one, or name in prometheusRule.job the job of what reads the metrics" }}
{{- end }}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) }}
{{- $wrong = append $wrong "httpRoute.parentRefs is needed: the gateways that the route belongs to" }}
{{- end }}

{{- with $wrong }}
{{- fail (printf "\n\nThese values do not make a release:\n  - %s\n" (join "\n  - " .)) }}
{{- end }}
{{- end }}
