#!/usr/bin/env bash
# The same as main.tf, by gcloud. Give each region the values of values.yaml first: GKE then makes the network endpoint
# groups that this adds to the load balancer. Edit the values, read it, run it once.
set -euo pipefail

PROJECT=my-project
ZONE=example-com                # of Cloud DNS
NAME=uploads.example.com.
NETWORK=default
ENDPOINT_GROUP=upload-broker    # the name in the annotation of the Service
# The zones in which each region's cluster has nodes.
declare -A REGIONS=(
    [europe-west1]="europe-west1-b europe-west1-c europe-west1-d"
    [europe-west4]="europe-west4-a europe-west4-b europe-west4-c"
    [us-east4]="us-east4-a us-east4-b us-east4-c"
)
# Names below the common one that lead to these regions only.
declare -A RESIDENCIES=(
    [eu]="europe-west1 europe-west4"
)

HOST=${NAME%.}

compute() { gcloud compute "$@" --project="$PROJECT"; }
certificates() { gcloud certificate-manager "$@" --project="$PROJECT"; }
record() { gcloud dns record-sets create "$@" --project="$PROJECT" --zone="$ZONE" --ttl=300; }

# The certificate, proved by a record in the zone: so it is there before clients are sent here.
certificates dns-authorizations create upload-broker --domain="$HOST"
proof() { certificates dns-authorizations describe upload-broker --format="value(dnsResourceRecord.$1)"; }
proof_name=$(proof name)
proof_data=$(proof data)
record "$proof_name" --type=CNAME --rrdatas="$proof_data"
certificates certificates create upload-broker --domains="$HOST,*.$HOST" --dns-authorizations=upload-broker
certificates maps create upload-broker
certificates maps entries create upload-broker --map=upload-broker --certificates=upload-broker --set-primary

# For every machine of the network; with --target-tags, for the clusters' nodes alone.
compute firewall-rules create upload-broker-load-balancer --network="$NETWORK" --direction=INGRESS \
    --source-ranges=35.191.0.0/16,130.211.0.0/22 --allow=tcp:8443

# Over TLS: the broker answers 403 to a probe in the clear. Only one that can hand out sessions answers 200.
compute health-checks create http2 upload-broker-endpoints --global \
    --use-serving-port --host="$HOST" --request-path=/v1/route \
    --check-interval=5s --timeout=5s --healthy-threshold=2 --unhealthy-threshold=2

# A backend service, and the regions behind it. Why HTTP/2 and this timeout: see main.tf.
service() {
    local name=$1 region zones zone
    shift
    compute backend-services create "$name" --global --load-balancing-scheme=EXTERNAL_MANAGED --protocol=HTTP2 \
        --health-checks=upload-broker-endpoints --global-health-checks --timeout=660s --connection-draining-timeout=60s \
        --custom-request-header='x-client-geo: {client_region},{client_city_lat_long}'
    for region; do
        read -ra zones <<<"${REGIONS[$region]}"
        for zone in "${zones[@]}"; do
            compute backend-services add-backend "$name" --global \
                --network-endpoint-group="$ENDPOINT_GROUP" --network-endpoint-group-zone="$zone" \
                --balancing-mode=RATE --max-rate-per-endpoint=1000
        done
    done
}

# A name below the common one, and the regions behind it.
host() {
    local label=$1
    shift
    service "upload-broker-$label" "$@"
    compute url-maps add-path-matcher upload-broker --global --path-matcher-name="$label" \
        --default-service="upload-broker-$label" --new-hosts="$label.$HOST"
}

service upload-broker "${!REGIONS[@]}"
compute url-maps create upload-broker --global --default-service=upload-broker
for region in "${!REGIONS[@]}"; do
    host "$region" "$region"
done
for label in "${!RESIDENCIES[@]}"; do
    read -ra regions <<<"${RESIDENCIES[$label]}"
    host "$label" "${regions[@]}"
done

# HTTPS alone: session URIs are not given in the clear, and nobody is to send a token so.
compute ssl-policies create upload-broker --global --profile=MODERN --min-tls-version=1.2
compute target-https-proxies create upload-broker --global --url-map=upload-broker --global-url-map \
    --certificate-map=upload-broker --ssl-policy=upload-broker --global-ssl-policy
compute addresses create upload-broker --global
compute forwarding-rules create upload-broker --global --load-balancing-scheme=EXTERNAL_MANAGED \
    --address=upload-broker --target-https-proxy=upload-broker --ports=443

address=$(compute addresses describe upload-broker --global --format='value(address)')
record "$NAME" --type=A --rrdatas="$address"
for label in "${!REGIONS[@]}" "${!RESIDENCIES[@]}"; do
    record "$label.$NAME" --type=A --rrdatas="$address"
done
echo "Add $address/32 to server.trusted_proxies of every region."
