//! Documents that must say what the code does.

use std::path::Path;

use serde_json::Value;
use upload_broker::http::openapi;

use crate::support::Broker;

pub fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn the_openapi_file_is_what_the_routes_say() {
    let kept = std::fs::read_to_string(repository("openapi/upload-broker.json")).unwrap_or_default();
    assert!(kept == openapi::document().unwrap(), "write it anew: cargo run -- openapi > openapi/upload-broker.json");
}

#[tokio::test]
async fn the_document_and_its_page_are_served_to_anyone() {
    let broker = Broker::start().await;
    let nobody = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("http://{}{path}", broker.address);
    let served = nobody.get(url("/openapi.json")).send().await.unwrap().text().await.unwrap();
    assert_eq!(served, openapi::document().unwrap());
    let page = nobody.get(url("/docs")).send().await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    let page = page.text().await.unwrap();
    for name in ["createUpload", "completeUpload", "/v1/policies", "CreateUpload"] {
        assert!(page.contains(name), "no {name}");
    }
    assert!(!page.contains("<script"));
}

#[test]
fn every_operation_is_described_and_every_reference_leads_somewhere() {
    let document: Value = serde_json::from_str(&openapi::document().unwrap()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for field in ["title", "description", "version"] {
        assert!(!document["info"][field].as_str().unwrap().is_empty(), "{field}");
    }
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for field in ["operationId", "summary"] {
                assert!(operation[field].is_string(), "{method} {path} has no {field}");
            }
        }
    }
    let text = document.to_string();
    for form in ["oneOf", "anyOf", "allOf"] {
        assert!(!text.contains(form), "{form}, which client generators get wrong");
    }
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
}

#[test]
fn every_operation_tells_what_the_layers_before_it_can_answer() {
    let document: Value = serde_json::from_str(&openapi::document().unwrap()).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let responses = &operation["responses"];
            let needs_a_token = operation["security"] != serde_json::json!([{}]);
            assert_eq!(responses["401"].is_object(), needs_a_token, "{method} {path}");
            for status in ["401", "403", "406", "500", "503"] {
                if status == "401" && !needs_a_token {
                    continue;
                }
                let body = &responses[status]["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(body, "#/components/schemas/Problem", "{method} {path} {status}");
            }
            for (status, response) in responses.as_object().unwrap() {
                let headers = &response["headers"];
                assert!(headers["x-request-id"].is_object(), "{method} {path} {status}");
                let waits = ["429", "503", "504"].contains(&&status[..]);
                assert_eq!(headers["retry-after"].is_object(), waits, "{method} {path} {status}");
                assert_eq!(headers["ratelimit"].is_object(), status == "429", "{method} {path} {status}");
            }
        }
    }
    let create = &document["paths"]["/v1/uploads"]["post"]["responses"];
    assert!(create["403"]["description"].as_str().unwrap().contains("policy-denied"), "its own words stay");
}

/// The tests that ARCHITECTURE.md says attack the invariants are there, under these names.
#[test]
fn every_test_that_the_architecture_names_exists() {
    let architecture = std::fs::read_to_string(repository("ARCHITECTURE.md")).unwrap();
    let invariants = architecture.split("## What must always hold").nth(1).unwrap().split("## ").next().unwrap();
    let named: Vec<&str> = invariants.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
    assert!(named.len() > 10, "{named:?}");
    for name in named {
        let parts: Vec<&str> = name.split("::").collect();
        let file = match parts[..] {
            [module, _] => format!("tests/it/{module}.rs"),
            ["model", module, "tests", _] => format!("src/model/{module}.rs"),
            _ => panic!("{name} is in no place that this test knows"),
        };
        let test = parts[parts.len() - 1];
        let source = std::fs::read_to_string(repository(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(source.contains(&format!("fn {test}()")), "{file} has no test {test}");
    }
}
