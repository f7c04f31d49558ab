//! What a preset puts where the configuration says nothing, and that whatever it says counts more.

use super::*;
use crate::oauth::preset::{self, Preset};
use crate::oauth::{ClientAuth, EndpointSource};

/// A credential of a preset with these further lines; `where_` is its token endpoint, if it needs one.
fn credential(preset: &str, more: &str) -> crate::credential::CredentialConfig {
    let text = format!(
        r#"
listeners:
  - name: legacy
    kind: reverse
    bind: 127.0.0.1:8080
    routes: [{{name: api, match: {{path_prefix: /}}, upstream: "https://api.example.com", credential: it}}]
credentials:
  it:
    preset: {preset}
    grant: refresh_token
    refresh_token: {{value: "seed-hunter3"}}
{more}
"#
    );
    let config = parse_with(&text, "config.yaml", &|_| None).unwrap_or_else(|problems| panic!("{problems}"));
    config.credentials.into_iter().next().expect("one")
}

const CLIENT: &str = "    client: {id: abc, secret: {value: hunter2-hunter2}}\n";

/// The lines that every credential of this preset needs.
fn least(preset: &Preset) -> String {
    match preset.token_endpoint() {
        Some(_) => CLIENT.to_owned(),
        None => {
            let path = Some(preset.endpoints.token).filter(|path| !path.is_empty()).unwrap_or("/token");
            format!("{CLIENT}    token_endpoint: https://id.example.com/a{path}\n")
        }
    }
}

#[test]
fn every_preset_fills_in_what_it_knows() {
    for preset in preset::ALL {
        let found = credential(preset.name, &least(preset));
        let name = preset.name;
        assert_eq!(found.oauth.preset, *preset, "{name}");
        assert_eq!(found.grace, preset.grace, "{name}");
        assert_eq!(found.min_interval, preset.min_interval, "{name}");
        assert_eq!(found.default_lifetime, preset.default_lifetime, "{name}");
        assert_eq!(found.refresh_token_lifetime, preset.refresh_token_lifetime, "{name}");
        let posts = matches!(found.oauth.client_auth, ClientAuth::Post { .. });
        assert_eq!(posts, preset.secret_auth == preset::SecretAuth::Post, "{name}");
        let EndpointSource::Url(endpoint) = &found.oauth.endpoint else { panic!("{name}") };
        assert_eq!(endpoint.scheme(), "https", "{name}");
        let login = &found.oauth.login;
        assert_eq!(login.authorization_endpoint.is_some(), name != "generic", "{name}");
        for (parameter, value) in preset.login {
            assert_eq!(login.parameters.get(*parameter).map(String::as_str), Some(*value), "{name}");
        }
    }
}

#[test]
fn every_part_of_a_preset_can_be_overridden() {
    let found = credential(
        "atlassian",
        r#"
    token_endpoint: https://elsewhere.example.com/oauth/token
    client: {id: abc, auth: client_secret_basic, secret: {value: hunter2-hunter2}}
    rotation: {mode: reusable, grace: 7s}
    refresh: {at: 0.3, min_interval: 9s}
    lifetime: {default: 11m, refresh_token: 3d}
    login:
      authorization_endpoint: https://elsewhere.example.com/login
      offline_scope: ""
      parameters: {audience: mine}
"#,
    );
    assert_eq!(found.oauth.endpoint.url().expect("one").host_str(), Some("elsewhere.example.com"));
    assert!(matches!(found.oauth.client_auth, ClientAuth::Basic { .. }));
    assert_eq!(found.rotation, crate::credential::RotationMode::Reusable);
    assert_eq!(found.grace, Duration::from_secs(7));
    assert_eq!(found.min_interval, Duration::from_secs(9));
    assert_eq!(found.default_lifetime, Duration::from_secs(660));
    assert_eq!(found.refresh_token_lifetime, Some(Duration::from_secs(3 * 86_400)));
    let login = &found.oauth.login;
    let authorization = login.authorization_endpoint.as_ref().expect("one");
    assert_eq!(authorization.as_str(), "https://elsewhere.example.com/login");
    assert_eq!(login.offline_scope, Vec::<String>::new());
    assert_eq!(login.parameters["audience"], "mine");
    assert_eq!(login.parameters["prompt"], "consent", "what is not overridden stays");
}

#[test]
fn an_issuer_tells_its_endpoints_itself() {
    let found = credential("okta", &format!("{CLIENT}    issuer: https://acme.okta.com/oauth2/default\n"));
    assert!(matches!(found.oauth.endpoint, EndpointSource::Issuer(_)));
    assert_eq!(found.oauth.login.authorization_endpoint, None);
    assert_eq!(found.oauth.login.offline_scope, ["offline_access"]);
}

#[test]
fn entra_signs_with_ps256_and_names_the_certificate_by_its_sha256() {
    let folder = tempfile::tempdir().expect("tempdir");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("key");
    let certificate = rcgen::CertificateParams::new(["a.example".to_owned()]).expect("name");
    let certificate = certificate.self_signed(&key).expect("sign");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("key.pem"), key.serialize_pem()).expect("write");
    std::fs::write(path("certificate.pem"), certificate.pem()).expect("write");
    let check = |more: &str, expected: (crate::oauth::Algorithm, bool, bool)| {
        let (key, certificate) = (path("key.pem"), path("certificate.pem"));
        let lines = format!(
            "    token_endpoint: https://login.microsoftonline.com/t/oauth2/v2.0/token\n    client: {{id: abc, key: {{file: {}}}, certificate: {{file: {}}}{more}}}\n",
            key.display(),
            certificate.display()
        );
        let found = credential("entra", &lines);
        let ClientAuth::PrivateKeyJwt { assertion, .. } = &found.oauth.client_auth else { panic!("{more}") };
        let key = &assertion.key;
        assert_eq!((key.algorithm, key.key_id.x5t_sha1, key.key_id.x5t_sha256), expected, "{more}");
    };
    check("", (crate::oauth::Algorithm::Ps256, false, true));
    check(", alg: RS256, x5t: sha1", (crate::oauth::Algorithm::Rs256, true, false));
}

#[test]
fn what_is_missing_is_told_as_the_preset_has_it() {
    let text = "
listeners:
  - name: legacy
    kind: reverse
    bind: 127.0.0.1:8080
    routes: [{name: api, match: {path_prefix: /}, upstream: 'https://api.example.com', credential: it}]
credentials:
  it: {preset: okta, client: {id: abc, auth: none}, grant: refresh_token}
";
    let problems = parse_with(text, "config.yaml", &|_| None).expect_err("no endpoint").to_string();
    assert!(problems.contains("`token_endpoint: https://…/v1/token`"), "{problems}");
}
