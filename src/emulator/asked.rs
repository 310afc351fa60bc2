//! What a request asks for: the name that journal, faults and network have for it.

use hyper::http::Method;

use super::accounts::Deed;
use super::http::Call;
use super::journal::Operation;
use super::target::Route;

/// What a request asks for, as far as its head tells.
pub(super) fn operation(call: &Call<'_>, route: &Route) -> Operation {
    let method = &call.head.method;
    let is_session = call.query.get("upload_id").is_some();
    match route {
        _ if method == Method::OPTIONS => Operation::Preflight,
        Route::Upload { .. } if method == Method::DELETE => Operation::Cancel,
        Route::XmlObject { .. } if method == Method::DELETE && is_session => Operation::Cancel,
        Route::Upload { .. } | Route::XmlObject { .. }
            if (method == Method::PUT && (is_session || !route.is_xml())) || (method == Method::POST && is_session) =>
        {
            let is_status = call.header("content-range").is_some_and(|range| range.starts_with("bytes */"));
            if is_status { Operation::Status } else { Operation::Chunk }
        }
        Route::Upload { .. } if method == Method::POST => match call.query.get("uploadType") {
            Some("resumable") => Operation::Initiate,
            _ => Operation::Simple,
        },
        Route::XmlObject { .. } if method == Method::POST => Operation::Initiate,
        Route::XmlObject { .. } if method == Method::PUT => Operation::Simple,
        Route::XmlObject { .. } if method == Method::HEAD => Operation::Get,
        Route::Token if method == Method::POST => Operation::Token,
        Route::Account { deed: Deed::SignBlob, .. } if method == Method::POST => Operation::SignBlob,
        Route::Account { deed: Deed::GenerateAccessToken, .. } if method == Method::POST => {
            Operation::GenerateAccessToken
        }
        Route::Object { .. } if method == Method::GET && call.query.get("alt") == Some("media") => Operation::Download,
        Route::Object { .. } if method == Method::GET => Operation::Get,
        Route::Object { .. } if method == Method::PATCH => Operation::Patch,
        Route::Object { .. } | Route::XmlObject { .. } if method == Method::DELETE => Operation::Delete,
        Route::Media { .. } | Route::XmlObject { .. } if method == Method::GET => Operation::Download,
        Route::Objects { .. } if method == Method::GET => Operation::List,
        Route::Bucket { .. } if method == Method::GET => Operation::Bucket,
        Route::Bucket { .. } if method == Method::PATCH => Operation::PatchBucket,
        Route::Buckets if method == Method::POST => Operation::CreateBucket,
        Route::Layout { .. } if method == Method::GET => Operation::Layout,
        Route::Permissions { .. } if method == Method::GET => Operation::TestPermissions,
        Route::NotificationConfigs { .. } if method == Method::POST => Operation::CreateNotificationConfig,
        Route::NotificationConfigs { .. } if method == Method::GET => Operation::ListNotificationConfigs,
        Route::NotificationConfig { .. } if method == Method::GET => Operation::GetNotificationConfig,
        Route::NotificationConfig { .. } if method == Method::DELETE => Operation::DeleteNotificationConfig,
        Route::SigningKeys | Route::Discovery if method == Method::GET => Operation::SigningKeys,
        _ => Operation::Other,
    }
}
