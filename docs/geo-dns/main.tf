# One name that leads each client to its nearest healthy region, and one name for each region.
#
#   terraform init && terraform apply -var project=PROJECT -var managed_zone=ZONE -var 'name=uploads.example.com.' \
#     -var 'regions={"europe-west1"="203.0.113.10","us-east4"="203.0.113.20","asia-northeast1"="203.0.113.30"}'

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

variable "probe_regions" {
  type        = list(string)
  default     = ["us-east1", "europe-west4", "asia-east1"]
  description = "From where health is checked: exactly three."
}

variable "residency" {
  type        = bool
  default     = false
  description = "Whether a client is never sent to another than its nearest region, healthy or not."
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
  project      = var.project
  managed_zone = var.managed_zone
  name         = var.name
  type         = "A"
  ttl          = 30

  routing_policy {
    health_check       = google_compute_health_check.broker.id
    enable_geo_fencing = var.residency

    dynamic "geo" {
      for_each = var.regions
      content {
        location = geo.key
        health_checked_targets {
          external_endpoints = [geo.value]
        }
      }
    }
  }
}

# Sessions are pinned: clients come back to the region that took their upload by its own name.
resource "google_dns_record_set" "region" {
  for_each     = var.regions
  project      = var.project
  managed_zone = var.managed_zone
  name         = "${each.key}.${var.name}"
  type         = "A"
  ttl          = 300
  rrdatas      = [each.value]
}
