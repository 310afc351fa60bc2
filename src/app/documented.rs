//! The documentation of metrics, held to what is registered.

use std::collections::BTreeSet;

use super::*;

/// Every family of the registry, those without samples included, which no text shows: as its debug form has them.
fn registered(registry: &Registry) -> BTreeSet<String> {
    let debug = format!("{registry:?}");
    let mut prefix = "";
    let mut names = BTreeSet::new();
    // A registry says its prefix, which holds those above it, then its own metrics, then the registries inside.
    for part in debug.split("Registry { prefix: ").skip(1) {
        if let Some(rest) = part.strip_prefix("Some(Prefix(\"") {
            prefix = rest.split('"').next().unwrap();
        }
        for descriptor in part.split("Descriptor { name: \"").skip(1) {
            let name = descriptor.split('"').next().unwrap();
            let unit = if descriptor.contains("unit: Some(Seconds)") { "_seconds" } else { "" };
            let separator = if prefix.is_empty() { "" } else { "_" };
            names.insert(format!("{prefix}{separator}{name}{unit}"));
        }
    }
    names
}

#[tokio::test]
async fn the_documentation_has_every_metric_and_no_other() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let secret = format!("whsec_{}", "A".repeat(44));
    std::fs::write(directory.path().join("webhook.secret"), secret).unwrap();
    // Every section that has metrics of its own.
    let text = r#"
        region = "here"
        server = { listen = "127.0.0.1:0", admin_listen = "127.0.0.1:0", public_url = "https://b.example.com" }
        store = { url = "memory" }
        storage = { endpoint = "http://127.0.0.1:9" }
        issuers = [{ issuer = "https://i.example.com", audiences = ["a"], algorithms = ["ES256"], jwks_url = "https://i.example.com/keys" }]
        regions = [{ name = "here", bucket = "media-eu", url = "https://b.example.com" }]
        policies = [{ name = "any", object = "{id}" }]
        notifications = { audience = "a", service_account = "push@acme.iam.gserviceaccount.com" }
        webhooks = [{ url = "https://w.example.com", secret_file = "webhook.secret" }]
        telemetry = { otlp_endpoint = "http://collector:4318" }
    "#;
    let config = config::load(text, &directory.path().join("broker.toml"), []).unwrap_or_else(|e| panic!("{e}"));
    let app = App::bind(&config, World::of_this_process(Transport::HttpsOnly)).await.unwrap();
    let documented: BTreeSet<String> = include_str!("../../docs/metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.strip_suffix("_total").unwrap_or(name).to_owned())
        .collect();
    assert_eq!(registered(&app.operator_state.registry), documented);
}
