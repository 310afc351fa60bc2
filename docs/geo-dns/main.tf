# One name that leads each client to its nearest healthy region, a name for each region, and names that lead to some
# regions only.
#
#   terraform init && terraform apply -var project=PROJECT -var managed_zone=ZONE -var 'name=uploads.example.com.' \
#     -var 'regions={"europe-west1"="203.0.113.10","europe-west4"="203.0.113.40","us-east4"="203.0.113.20"}' \
#     -var 'residencies={"eu"=["europe-west1","europe-west4"]}'

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
  type        = map(string)
  description = "The public address of each region's load balancer."
}

variable "residencies" {
  type        = map(list(string))
  default     = {}
  description = "Names below the common one that lead to these regions only, each to the nearest healthy one of them."
}

variable "drained" {
  type        = list(string)
  default     = []
  description = "Regions that get no new clients. Their own names stay, for the uploads that they have."
}

variable "region_names" {
  type        = bool
  default     = true
  description = "Whether the regions' own names are made here; false where external-dns writes them."
}

variable "geo_fencing" {
  type        = bool
  default     = false
  description = "Whether a client is never sent to another than its nearest region, healthy or not."
}

variable "probe_regions" {
  type        = list(string)
  default     = ["us-east1", "europe-west4", "asia-east1"]
  description = "From where health is checked: exactly three."
}

locals {
  # The regions behind each name that has a policy.
  policies = merge(
    { (var.name) = keys(var.regions) },
    { for label, regions in var.residencies : "${label}.${var.name}" => regions },
  )
}

# Cloud DNS asks external endpoints no more often than every 30 s.
resource "google_compute_health_check" "broker" {
  project             = var.project
  name                = "upload-broker"
  check_interval_sec  = 30
  timeout_sec         = 5
  healthy_threshold   = 2
  unhealthy_threshold = 2
  source_regions      = var.probe_regions

  https_health_check {
    port         = 443
    host         = trimsuffix(var.name, ".")
    request_path = "/v1/route"
  }
}

resource "google_dns_record_set" "nearest" {
  for_each     = local.policies
  project      = var.project
  managed_zone = var.managed_zone
  name         = each.key
  type         = "A"
  ttl          = 30

  routing_policy {
    health_check       = google_compute_health_check.broker.id
    enable_geo_fencing = var.geo_fencing

    dynamic "geo" {
      for_each = setsubtract(each.value, var.drained)
      content {
        location = geo.value
        health_checked_targets {
          external_endpoints = [var.regions[geo.value]]
        }
      }
    }
  }
}

# Sessions are pinned: clients come back to the region that took their upload by its own name.
resource "google_dns_record_set" "region" {
  for_each     = var.region_names ? var.regions : {}
  project      = var.project
  managed_zone = var.managed_zone
  name         = "${each.key}.${var.name}"
  type         = "A"
  ttl          = 300
  rrdatas      = [each.value]
}
