use base64::Engine as _;
use serde_json::json;

use super::super::journal::Operation;
use super::super::{OWN_ACCOUNT, accounts};
use super::*;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

impl Stand {
    fn key_file(&self) -> serde_json::Value {
        serde_json::from_str(&self.emulator.service_account_key().unwrap()).unwrap()
    }

    /// An assertion of the emulator's account, made by another hand than ours.
    fn assertion(&self, change: impl FnOnce(&mut serde_json::Value)) -> String {
        let now = Clock::System.now().as_secs();
        let mut claims = json!({
            "iss": OWN_ACCOUNT,
            "aud": format!("{}/token", self.emulator.url()),
            "scope": "https://www.googleapis.com/auth/devstorage.read_write",
            "iat": now,
            "exp": now + 3600,
        });
        change(&mut claims);
        let file = self.key_file();
        let key = jsonwebtoken::EncodingKey::from_rsa_pem(file["private_key"].as_str().unwrap().as_bytes()).unwrap();
        jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256), &claims, &key).unwrap()
    }

    async fn token(&self, form: &[(&str, &str)]) -> Seen {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let url = format!("{}/token", self.emulator.url());
        send(self.client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body.finish()))
            .await
    }
}

#[tokio::test]
async fn the_key_file_is_one_that_libraries_take() {
    let stand = stand().await;
    let file = stand.key_file();
    assert_eq!((&file["type"], &file["client_email"]), (&json!("service_account"), &json!(OWN_ACCOUNT)));
    assert_eq!(file["token_uri"], format!("{}/token", stand.emulator.url()));
    let pem = file["private_key"].as_str().unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n") && pem.ends_with("\n-----END PRIVATE KEY-----\n"));
    assert!(pem.lines().all(|line| line.len() <= 64));
    let another = super::stand().await;
    assert_eq!(another.key_file()["private_key_id"], file["private_key_id"], "one key a process");
}

#[tokio::test]
async fn tokens_are_given_for_what_they_are_given_for() {
    let stand = stand().await;
    let good = stand.assertion(|_| {});
    let seen = stand.token(&[("grant_type", GRANT), ("assertion", &good)]).await;
    assert_eq!(seen.status, 200, "{seen:?}");
    let token = seen.json();
    assert_eq!((&token["expires_in"], &token["token_type"]), (&json!(3599), &json!("Bearer")));
    let token = token["access_token"].as_str().unwrap();
    let bucket = stand.client.get(format!("{}/storage/v1/b/media", stand.emulator.url())).bearer_auth(token);
    assert_eq!(send(bucket).await.status, 200);

    let old = stand.assertion(|claims| {
        claims["iat"] = json!(claims["iat"].as_i64().unwrap() - 4000);
        claims["exp"] = json!(claims["exp"].as_i64().unwrap() - 4000);
    });
    let long = stand.assertion(|claims| claims["exp"] = json!(claims["exp"].as_i64().unwrap() + 1));
    let elsewhere = stand.assertion(|claims| claims["aud"] = json!("https://other.example/token"));
    let documented = stand.assertion(|claims| claims["aud"] = json!("https://oauth2.googleapis.com/token"));
    // As some libraries do; what is padded is signed.
    let pad = |part: &str| format!("{part}{}", "=".repeat((4 - part.len() % 4) % 4));
    let mut parts = good.split('.').map(pad);
    let signed = format!("{}.{}", parts.next().unwrap(), parts.next().unwrap());
    let signature = accounts::sign(signed.as_bytes()).unwrap().signature;
    let padded = format!("{signed}.{}", base64::engine::general_purpose::URL_SAFE.encode(signature));
    let stranger = stand.assertion(|claims| claims["iss"] = json!("nobody@emulator.example"));
    let aimless = stand.assertion(|claims| claims["scope"] = json!(""));
    let mut forged = good.clone();
    forged.replace_range(forged.len() - 20..forged.len() - 10, "AAAAAAAAAA");
    let login = [("grant_type", "refresh_token"), ("client_id", "a"), ("client_secret", "b"), ("refresh_token", "c")];
    let grant = ("grant_type", GRANT);
    for (name, form, error) in [
        ("a login", &login[..], None),
        ("a login without a token", &login[..3], Some("invalid_request")),
        ("a login without a client", &login[..2], Some("invalid_client")),
        ("the documented audience", &[grant, ("assertion", &documented)], None),
        ("padded", &[grant, ("assertion", &padded)], None),
        ("expired", &[grant, ("assertion", &old)], Some("invalid_grant")),
        ("too long", &[grant, ("assertion", &long)], Some("invalid_grant")),
        ("for another server", &[grant, ("assertion", &elsewhere)], Some("invalid_grant")),
        ("of a stranger", &[grant, ("assertion", &stranger)], Some("invalid_grant")),
        ("for no scope", &[grant, ("assertion", &aimless)], Some("invalid_grant")),
        ("forged", &[grant, ("assertion", &forged)], Some("invalid_grant")),
        ("no JWT", &[grant, ("assertion", "x")], Some("invalid_grant")),
        ("another grant", &[("grant_type", "password")], Some("unsupported_grant_type")),
        ("nothing", &[], Some("invalid_request")),
    ] {
        let seen = stand.token(form).await;
        assert_eq!(seen.status, if error.is_none() { 200 } else { 400 }, "{name}: {seen:?}");
        assert_eq!(seen.json()["error"].as_str(), error, "{name}");
    }
    assert_eq!(stand.emulator.journal().count(Operation::Token), 15);
}

#[tokio::test]
async fn iam_credentials_signs_and_gives_tokens() {
    let stand = stand().await;
    let call = |account: &str, deed: &str, body: serde_json::Value| {
        let path = format!("/v1/projects/-/serviceAccounts/{account}:{deed}");
        send(stand.request(Method::POST, &path).body(body.to_string()))
    };
    let signed = call(OWN_ACCOUNT, "signBlob", json!({"payload": "aGVsbG8="})).await.json();
    assert_eq!(signed["keyId"], stand.key_file()["private_key_id"]);
    let signature = base64::engine::general_purpose::STANDARD.decode(signed["signedBlob"].as_str().unwrap());
    assert_eq!(
        signature.unwrap(),
        accounts::sign(b"hello").unwrap().signature,
        "PKCS #1 signatures have no randomness"
    );

    let blob = [0xfb, 0xef, 0xff, 0x3e];
    for payload in ["++//Pg==", "--__Pg==", "--__Pg", "++//Pg"] {
        let signed = call(OWN_ACCOUNT, "signBlob", json!({"payload": payload})).await.json();
        let expected = base64::engine::general_purpose::STANDARD.encode(accounts::sign(&blob).unwrap().signature);
        assert_eq!(signed["signedBlob"], expected, "{payload}");
    }

    let scope = json!({"scope": ["https://www.googleapis.com/auth/cloud-platform"], "lifetime": "600s"});
    let given = call(OWN_ACCOUNT, "generateAccessToken", scope).await.json();
    assert!(given["accessToken"].as_str().is_some_and(|token| !token.is_empty()));
    assert_eq!(given["expireTime"], "2025-11-22T10:10:00Z");

    for (name, account, deed, body, status, says) in [
        ("no base64", OWN_ACCOUNT, "signBlob", json!({"payload": "?"}), 400, "INVALID_ARGUMENT"),
        ("no payload", OWN_ACCOUNT, "signBlob", json!({}), 400, "INVALID_ARGUMENT"),
        ("another account", "a@b.example", "signBlob", json!({"payload": ""}), 403, "PERMISSION_DENIED"),
        ("no scope", OWN_ACCOUNT, "generateAccessToken", json!({"scope": []}), 400, "INVALID_ARGUMENT"),
        (
            "too long",
            OWN_ACCOUNT,
            "generateAccessToken",
            json!({"scope": ["a"], "lifetime": "3601s"}),
            400,
            "INVALID_ARGUMENT",
        ),
    ] {
        let seen = call(account, deed, body).await;
        assert_eq!((seen.status, seen.json()["error"]["status"].as_str()), (status, Some(says)), "{name}");
    }
    let url = format!("{}/v1/projects/-/serviceAccounts/{OWN_ACCOUNT}:signBlob", stand.emulator.url());
    assert_eq!(send(stand.client.post(url).body("{}")).await.status, 401);
    let counts = [Operation::SignBlob, Operation::GenerateAccessToken].map(|kind| stand.emulator.journal().count(kind));
    assert_eq!(counts, [9, 3]);
}

#[tokio::test]
async fn other_signers_are_taken_by_their_public_key() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let add = |settings: &mut Settings| drop(settings.signers.insert("other@b.example".into(), key.public_key_pem()));
    let stand = stand_with(add).await;
    assert!(stand.emulator.world.accounts.verify("other@b.example", b"x", b"y") == accounts::Verdict::Wrong);
    for (account, pem) in [
        ("other@b.example", "no key".to_owned()),
        ("other@b.example", rcgen::KeyPair::generate().unwrap().public_key_pem()),
        (OWN_ACCOUNT, key.public_key_pem()),
    ] {
        let mut settings = Settings::default();
        settings.signers.insert(account.to_owned(), pem);
        let error = Emulator::start(settings).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(account), "{error}");
    }
}
