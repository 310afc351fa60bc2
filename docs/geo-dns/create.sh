#!/usr/bin/env bash
# The same as main.tf, by gcloud. Edit the values, read it, run it once.
set -euo pipefail

PROJECT=my-project
ZONE=example-com
NAME=uploads.example.com.
FENCING=()                      # (--enable-geo-fencing) where residency is required
declare -A REGIONS=(
    [europe-west1]=203.0.113.10
    [us-east4]=203.0.113.20
    [asia-northeast1]=203.0.113.30
)

gcloud compute health-checks create https upload-broker --project="$PROJECT" --global \
    --port=443 --host="${NAME%.}" --request-path=/v1/route \
    --check-interval=30s --timeout=5s --healthy-threshold=2 --unhealthy-threshold=2 \
    --source-regions=us-east1,europe-west4,asia-east1

targets=()
for region in "${!REGIONS[@]}"; do
    targets+=("$region=${REGIONS[$region]}")
    gcloud dns record-sets create "$region.$NAME" --project="$PROJECT" --zone="$ZONE" --type=A --ttl=300 \
        --rrdatas="${REGIONS[$region]}"
done

gcloud dns record-sets create "$NAME" --project="$PROJECT" --zone="$ZONE" --type=A --ttl=30 \
    --routing-policy-type=GEO --routing-policy-data="$(IFS=';'; echo "${targets[*]}")" \
    --health-check=upload-broker "${FENCING[@]}"
