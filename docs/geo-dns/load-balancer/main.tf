# One global load balancer before all regions: it ends TLS, says where clients are, and sends each to the nearest healthy
# region. The regions' own names lead to it, too, and from there to that region alone.
#
# First give each region the values of values.yaml: GKE then makes the network endpoint groups that are looked up here.
#
#   terraform init && terraform apply -var project=PROJECT -var managed_zone=ZONE -var 'name=uploads.example.com.' \
#     -var 'regions={"europe-west1"=["europe-west1-b","europe-west1-c"],"us-east4"=["us-east4-a","us-east4-b"]}'

terraform {
  required_version = ">= 1.5"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 6.20"
    }
  }
}

variable "project" {
  type = string
}

variable "managed_zone" {
  type        = string
  description = "The name of the public Cloud DNS zone."
}

variable "name" {
  type        = string
  description = "The name that clients know, with the final dot."
}

variable "regions" {
  type        = map(list(string))
  description = "The zones in which each region's cluster has nodes: GKE makes a group in each of them."
}

variable "residencies" {
  type        = map(list(string))
  default     = {}
  description = "Names below the common one that lead to these regions only, such as {eu = [\"europe-west1\", \"europe-west4\"]}."
}

variable "drained" {
  type        = list(string)
  default     = []
  description = "Regions that get no new clients. Their own names go on leading there, for the uploads that they have."
}

variable "endpoint_group" {
  type        = string
  default     = "upload-broker"
  description = "What the groups are called: the name in the annotation of the Service."
}

variable "max_rate_per_endpoint" {
  type        = number
  default     = 1000
  description = "Requests a second that an instance is sent before others go to the next region, far from their clients."
}

variable "network" {
  type        = string
  default     = "default"
  description = "The VPC network of the clusters."
}

variable "node_tags" {
  type        = list(string)
  default     = null
  description = "The network tags of the clusters' nodes. Left out, the firewall rule is for every machine of the network."
}

locals {
  host = trimsuffix(var.name, ".")

  # The names below the common one, and the regions behind each.
  labels = merge({ for region in keys(var.regions) : region => [region] }, var.residencies)

  # One backend service for each name.
  services = merge({ all = keys(var.regions) }, local.labels)

  # The region of each zone.
  zones = merge([for region, zones in var.regions : { for zone in zones : zone => region }]...)
}

# Google does not say which of its addresses a request comes from, only that it is one of these.
resource "google_compute_firewall" "load_balancer" {
  project       = var.project
  name          = "upload-broker-load-balancer"
  network       = var.network
  direction     = "INGRESS"
  source_ranges = ["35.191.0.0/16", "130.211.0.0/22"]
  target_tags   = var.node_tags

  allow {
    protocol = "tcp"
    ports    = ["8443"]
  }
}

# Over TLS: the broker answers 403 to a probe in the clear. Only one that can hand out sessions answers 200.
resource "google_compute_health_check" "endpoints" {
  project             = var.project
  name                = "upload-broker-endpoints"
  check_interval_sec  = 5
  timeout_sec         = 5
  healthy_threshold   = 2
  unhealthy_threshold = 2

  http2_health_check {
    port_specification = "USE_SERVING_PORT"
    host               = local.host
    request_path       = "/v1/route"
  }
}

data "google_compute_network_endpoint_group" "zone" {
  for_each = local.zones
  project  = var.project
  name     = var.endpoint_group
  zone     = each.key
}

resource "google_compute_backend_service" "broker" {
  for_each              = local.services
  project               = var.project
  name                  = each.key == "all" ? "upload-broker" : "upload-broker-${each.key}"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  health_checks         = [google_compute_health_check.endpoints.id]

  # TLS up to the pods, whose certificate the load balancer does not check. It keeps idle connections for 600 s, and the
  # broker those of trusted_proxies for 620 s. Should they be missing there, it closes after 75 s: over HTTP/2 it says so
  # first, over HTTP/1.1 a request could meet that and get a 502.
  protocol = "HTTP2"

  # Of a whole answer. Streams of events live for 600 s.
  timeout_sec                     = 660
  connection_draining_timeout_sec = 60

  # A country, and where it is known latitude and longitude: as routing.geo_header reads it.
  custom_request_headers = ["x-client-geo: {client_region},{client_city_lat_long}"]

  dynamic "backend" {
    for_each = { for zone, region in local.zones : zone => region if contains(each.value, region) }
    content {
      group                 = data.google_compute_network_endpoint_group.zone[backend.key].id
      balancing_mode        = "RATE"
      max_rate_per_endpoint = var.max_rate_per_endpoint
      capacity_scaler       = contains(var.drained, backend.value) && each.key != backend.value ? 0 : 1
    }
  }
}

resource "google_compute_url_map" "broker" {
  project         = var.project
  name            = "upload-broker"
  default_service = google_compute_backend_service.broker["all"].id

  dynamic "host_rule" {
    for_each = local.labels
    content {
      hosts        = ["${host_rule.key}.${local.host}"]
      path_matcher = host_rule.key
    }
  }

  dynamic "path_matcher" {
    for_each = local.labels
    content {
      name            = path_matcher.key
      default_service = google_compute_backend_service.broker[path_matcher.key].id
    }
  }
}

# Proved by a record in the zone: so the certificate is there before clients are sent here.
resource "google_certificate_manager_dns_authorization" "broker" {
  project = var.project
  name    = "upload-broker"
  domain  = local.host
}

resource "google_dns_record_set" "authorization" {
  project      = var.project
  managed_zone = var.managed_zone
  name         = google_certificate_manager_dns_authorization.broker.dns_resource_record[0].name
  type         = google_certificate_manager_dns_authorization.broker.dns_resource_record[0].type
  ttl          = 300
  rrdatas      = [google_certificate_manager_dns_authorization.broker.dns_resource_record[0].data]
}

resource "google_certificate_manager_certificate" "broker" {
  project = var.project
  name    = "upload-broker"

  managed {
    domains            = [local.host, "*.${local.host}"]
    dns_authorizations = [google_certificate_manager_dns_authorization.broker.id]
  }
}

resource "google_certificate_manager_certificate_map" "broker" {
  project = var.project
  name    = "upload-broker"
}

resource "google_certificate_manager_certificate_map_entry" "broker" {
  project      = var.project
  name         = "upload-broker"
  map          = google_certificate_manager_certificate_map.broker.name
  certificates = [google_certificate_manager_certificate.broker.id]
  matcher      = "PRIMARY"
}

resource "google_compute_ssl_policy" "broker" {
  project         = var.project
  name            = "upload-broker"
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

resource "google_compute_global_address" "broker" {
  project = var.project
  name    = "upload-broker"
}

# HTTPS alone: session URIs are not given in the clear, and nobody is to send a token so.
resource "google_compute_target_https_proxy" "broker" {
  project         = var.project
  name            = "upload-broker"
  url_map         = google_compute_url_map.broker.id
  certificate_map = "//certificatemanager.googleapis.com/${google_certificate_manager_certificate_map.broker.id}"
  ssl_policy      = google_compute_ssl_policy.broker.id
}

resource "google_compute_global_forwarding_rule" "broker" {
  project               = var.project
  name                  = "upload-broker"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.broker.id
  port_range            = "443"
  target                = google_compute_target_https_proxy.broker.id
}

resource "google_dns_record_set" "name" {
  for_each     = toset(concat([var.name], [for label in keys(local.labels) : "${label}.${var.name}"]))
  project      = var.project
  managed_zone = var.managed_zone
  name         = each.key
  type         = "A"
  ttl          = 300
  rrdatas      = [google_compute_global_address.broker.address]
}

output "address" {
  value       = google_compute_global_address.broker.address
  description = "The load balancer's own address, which belongs into server.trusted_proxies."
}
