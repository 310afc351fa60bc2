//! The OpenAPI document, assembled from the same list as the router.

use utoipa::OpenApi;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Services, admin, events, examples, notifications, policies, route, schemas, uploads, wire};

/// What the document says beside the operations.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "upload-broker",
        description = "Hands out resumable upload sessions of Google Cloud Storage to authenticated end users, and tells \
what became of each upload. Create an upload, `PUT` the bytes to its `transfer.uri` (which belongs to storage and needs no \
token), then complete it.

Version 1 only grows. Operations, optional fields, headers, enum values and problem codes are added without notice: clients \
ignore fields that they do not know, and take an enum value or code that they do not know for none of those they do. Nothing \
is removed, renamed or made stricter. What is not to be used any more is marked `deprecated` here and named in \
`openapi/CHANGES.md`, with what takes its place, and works on; it goes with version 2, which will have paths of its own, \
at least twelve months after it was marked.

Requests beyond the limits of this document are refused, and answers keep to them.",
    ),
    servers((
        url = "https://{region}.{domain}", description = "The broker of a region, where host names are made like this",
        variables(
            ("region" = (default = "eu", description = "What the region is called in host names")),
            ("domain" = (default = "uploads.example.com", description = "What all regions have in common")),
        ),
    )),
    tags(
        (name = "uploads", description = "Uploads of the caller"),
        (name = "policies", description = "What the caller may upload"),
        (name = "routing", description = "Which region to upload to"),
        (name = "notifications", description = "For storage, not for clients"),
        (name = "admin", description = "For callers whose issuer's `admin_when` holds; others get 403 `forbidden`"),
    ),
    // What stands in no body of its own: the data of events.
    components(schemas(wire::UploadProgress)),
    security(("bearer" = [])),
    modifiers(&SecuritySchemes),
)]
struct Document;

/// What users and storage's notifications authenticate with.
struct SecuritySchemes;

impl utoipa::Modify for SecuritySchemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let schemes = &mut document.components.get_or_insert_default().security_schemes;
        for (name, description) in [
            ("bearer", "A token of a configured OpenID issuer."),
            ("push", "An OpenID token of the service account that pushes notifications."),
        ] {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
            let scheme = SecurityScheme::Http(scheme.description(Some(description)).build());
            schemes.insert(name.to_owned(), scheme.into());
        }
    }
}

/// What every operation can answer, because it stands behind the same layers. An operation that has more to say of a
/// status says it itself.
const COMMON_PROBLEMS: [(&str, &str); 5] = [
    ("401", "`unauthenticated`"),
    ("403", "`https-required`"),
    ("406", "`not-acceptable`"),
    ("500", "`internal-error`"),
    ("503", "`store-unavailable`, `identity-unavailable`, `overloaded`"),
];

/// The headers of answers, each with the statuses that have it; with no status named, all have it.
const COMMON_HEADERS: [(&str, &[&str], Type, &str); 5] = [
    ("x-request-id", &[], Type::String, "Names the request in the broker's logs"),
    (
        "www-authenticate",
        &["401"],
        Type::String,
        "What kind of token is needed, and what is wrong with this one (RFC 6750)",
    ),
    ("retry-after", &["429", "503", "504"], Type::Integer, "The seconds after which to try again"),
    ("ratelimit", &["429"], Type::String, "What is left of the limit, and the seconds until there is more"),
    ("ratelimit-policy", &["429"], Type::String, "The limit that is reached, and its window in seconds"),
];

/// Adds what all operations have in common.
fn add_common(document: &mut utoipa::openapi::OpenApi) {
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            let needs_no_token = operation.security.as_deref() == Some(&[SecurityRequirement::default()]);
            let responses = &mut operation.responses.responses;
            for (status, description) in COMMON_PROBLEMS {
                if status == "401" && needs_no_token {
                    continue;
                }
                responses.entry(status.to_owned()).or_insert_with(|| problem(description).into());
            }
            for (status, response) in responses {
                let RefOr::T(response) = response else { continue };
                for (name, statuses, kind, description) in COMMON_HEADERS {
                    if statuses.is_empty() || statuses.contains(&&status[..]) {
                        let schema = ObjectBuilder::new().schema_type(kind);
                        let header = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
                        response.headers.insert(name.to_owned(), header.into());
                    }
                }
            }
        }
    }
}

fn problem(description: &str) -> Response {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}

/// The operations of version 1, as routes and as a document.
pub(super) fn operations() -> (axum::Router<Services>, utoipa::openapi::OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(uploads::create, uploads::list))
        .routes(routes!(uploads::get, uploads::cancel))
        .routes(routes!(uploads::complete))
        .routes(routes!(uploads::renew))
        .routes(routes!(events::watch))
        .routes(routes!(policies::list))
        .routes(routes!(route::route))
        .routes(routes!(notifications::receive))
        .routes(routes!(admin::list))
        .routes(routes!(admin::get, admin::cancel))
        .routes(routes!(admin::usage))
        .routes(routes!(admin::webhooks))
        .routes(routes!(admin::parked))
        .routes(routes!(admin::replay))
        .routes(routes!(admin::replay_all))
        .split_for_parts();
    add_common(&mut document);
    examples::add(&mut document);
    schemas::bound(&mut document);
    (router, document)
}

/// The document as it is served, printed and kept in the repository: indented JSON with a line break at the end.
///
/// # Errors
/// When the document cannot be written as JSON, which a test rules out.
pub fn document() -> Result<String, serde_json::Error> {
    let (_, document) = operations();
    document.to_pretty_json().map(|text| text + "\n")
}
