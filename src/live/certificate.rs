//! The certificate that clients are shown.

use std::time::Duration;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use url::Url;

use super::report::Row;
use crate::clock::Clock;
use crate::model::time::Timestamp;
use crate::server::{TlsCertificate, Validity};

const NAME: &str = "certificate";

/// So long before its end a certificate should have been renewed: those of ACME are, with a third of 90 days left.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Whether it is good now and for a while, and for the public name.
pub(super) fn row(certificate: Option<&TlsCertificate>, public_url: &Url, clock: &Clock) -> Row {
    match certificate {
        Some(certificate) => judge(&certificate.leaf(), public_url, clock.now()),
        None => Row::skipped(NAME, "", "server.tls is not set: a proxy ends TLS"),
    }
}

fn judge(leaf: &CertificateDer<'_>, public_url: &Url, now: Timestamp) -> Row {
    let host = public_url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let renew = "renew it; the files are read again within seconds";
    let parsed = ParsedCertificate::try_from(leaf);
    let (Some(Validity { from, until }), Ok(parsed)) = (Validity::of(leaf), parsed) else {
        return Row::failed(NAME, host, "it cannot be read", renew);
    };
    let is_named = ServerName::try_from(host).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok());
    if now < from {
        return Row::failed(NAME, host, format!("it is not valid before {from}"), renew);
    }
    if until < now {
        return Row::failed(NAME, host, format!("it ended at {until}"), renew);
    }
    if !is_named {
        let found = "it is not for this name, which is that of server.public_url";
        return Row::failed(NAME, host, found, "take a certificate for it, or correct server.public_url");
    }
    let found = format!("good until {until}");
    if until.since(now) < SOON { Row::warning(NAME, host, found, renew) } else { Row::ok(NAME, host, found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::report::Status;

    #[test]
    fn a_certificate_is_judged_by_dates_and_name() {
        let mut parameters = rcgen::CertificateParams::new(vec!["eu.example.com".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2026, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2026, 4, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = parameters.self_signed(&key).unwrap().der().clone();
        let day = |day: i64| Timestamp::from_secs((20_454 + day) * 24 * 3600);
        for (name, url, now, expected, part) in [
            ("good", "https://eu.example.com", day(10), Status::Ok, "good until 2026-04-01"),
            ("not yet", "https://eu.example.com", day(-1), Status::Failed, "before 2026-01-01"),
            ("soon over", "https://eu.example.com", day(80), Status::Warning, "good until"),
            ("over", "https://eu.example.com", day(91), Status::Failed, "ended at 2026-04-01"),
            ("another name", "https://us.example.com", day(10), Status::Failed, "not for this name"),
            ("an address", "https://127.0.0.1", day(10), Status::Failed, "not for this name"),
        ] {
            let row = judge(&leaf, &url.parse().unwrap(), now);
            assert_eq!(row.status, expected, "{name}: {}", row.found);
            assert!(row.found.contains(part), "{name}: {}", row.found);
        }
        let broken = CertificateDer::from(vec![0x30, 3, 1, 2, 3]);
        assert_eq!(judge(&broken, &"https://a.example".parse().unwrap(), day(0)).status, Status::Failed);
    }
}
