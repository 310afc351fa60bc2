#!/usr/bin/env bash
# The same as main.tf, by gcloud. Edit the values, read it, run it once.
#   ./create.sh                     everything
#   ./create.sh --no-region-names   without the regions' own names, where external-dns writes them
set -euo pipefail

PROJECT=my-project
ZONE=example-com
NAME=uploads.example.com.
FENCING=()                      # (--enable-geo-fencing): never to another than the nearest region, healthy or not
declare -A REGIONS=(
    [europe-west1]=203.0.113.10
    [europe-west4]=203.0.113.40
    [us-east4]=203.0.113.20
)
# Names below the common one that lead to these regions only.
declare -A RESIDENCIES=(
    [eu]="europe-west1 europe-west4"
)

region_names=yes
case "${1-}" in
    "") ;;
    --no-region-names) region_names=no ;;
    *) echo "usage: $0 [--no-region-names]" >&2; exit 2 ;;
esac

gcloud compute health-checks create https upload-broker --project="$PROJECT" --global \
    --port=443 --host="${NAME%.}" --request-path=/v1/route \
    --check-interval=30s --timeout=5s --healthy-threshold=2 --unhealthy-threshold=2 \
    --source-regions=us-east1,europe-west4,asia-east1

# A name, and the regions that it leads to.
nearest() {
    local name=$1 region items=()
    shift
    for region; do
        items+=("--routing-policy-item=location=$region,external_endpoints=${REGIONS[$region]}")
    done
    gcloud dns record-sets create "$name" --project="$PROJECT" --zone="$ZONE" --type=A --ttl=30 \
        --routing-policy-type=GEO "${items[@]}" --health-check=upload-broker "${FENCING[@]}"
}

nearest "$NAME" "${!REGIONS[@]}"
for label in "${!RESIDENCIES[@]}"; do
    read -ra regions <<<"${RESIDENCIES[$label]}"
    nearest "$label.$NAME" "${regions[@]}"
done

if [ "$region_names" = yes ]; then
    for region in "${!REGIONS[@]}"; do
        gcloud dns record-sets create "$region.$NAME" --project="$PROJECT" --zone="$ZONE" --type=A --ttl=300 \
            --rrdatas="${REGIONS[$region]}"
    done
fi
