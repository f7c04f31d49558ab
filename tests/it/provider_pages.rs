//! The pages of `docs/providers`: one a preset, listed in the index, and each configuration in them is a valid one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use bearward::oauth::preset;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/providers");

fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<_> = std::fs::read_dir(FOLDER)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("UTF-8"))
        })
        .collect();
    pages.sort();
    pages
}

/// The fenced blocks of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let open = format!("```{language}");
    let mut found = Vec::new();
    let mut lines = page.lines();
    while lines.any(|line| line == open) {
        found
            .push(lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect());
    }
    found
}

#[test]
fn every_preset_has_a_page_that_the_index_names() {
    let pages = pages();
    let named: BTreeSet<&str> =
        pages.iter().map(|(name, _)| name.as_str()).filter(|name| *name != "README").collect();
    let presets: BTreeSet<&str> = preset::ALL.iter().map(|preset| preset.name).collect();
    assert_eq!(named, presets);
    let index = &pages.iter().find(|(name, _)| name == "README").expect("an index").1;
    for name in presets {
        assert!(index.contains(&format!("| [`{name}`]({name}.md) |")), "{name} is not in the index");
    }
    for (name, page) in &pages {
        if name == "README" || name == "generic" {
            continue;
        }
        assert!(page.starts_with("# ") && page.contains(&format!("`preset: {name}`")), "{name}");
        assert!(page.contains("## What to create") && page.contains("## What to expect"), "{name}");
        let blocks = blocks(page, "yaml");
        assert!(!blocks.is_empty(), "{name} has no configuration");
        assert!(blocks.iter().all(|block| block.contains(&format!("preset: {name}\n"))), "{name}");
    }
}

/// Files that pages name, under a folder of the test's.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("tempdir");
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("key");
        let certificate = rcgen::CertificateParams::new(["client.example.com".to_owned()]).expect("name");
        let certificate = certificate.self_signed(&key).expect("sign");
        for (name, text) in [("client.pem", key.serialize_pem()), ("client.crt", certificate.pem())] {
            std::fs::write(folder.path().join(name), text).expect("write");
        }
        std::fs::write(folder.path().join("refresh_token"), "seed\n").expect("write");
        std::fs::write(folder.path().join("password"), "a password\n").expect("write");
        let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
        std::fs::write(folder.path().join("ec.pem"), ec.serialize_pem()).expect("write");
        Self(folder)
    }

    /// Where `/run/secrets/x` and `/etc/bearward/x` are here.
    fn here(&self, page: &str) -> String {
        let here = format!("{}/", self.0.path().display());
        let text = page.replace("/run/secrets/", &here).replace("/etc/bearward/", &here);
        // An elliptic curve's key where the page signs with one.
        if text.contains("alg: ES256") { text.replace("client.pem", "ec.pem") } else { text }
    }

    fn check(&self, path: &Path, text: &str) -> (bool, String) {
        std::fs::write(path, text).expect("write");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bearward"));
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        for name in text.split("{env: ").skip(1).filter_map(|rest| rest.split('}').next()) {
            command.env(name, "a-secret-of-some-length");
        }
        let output = command.arg("check").arg("-c").arg(path).output().expect("it starts");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).expect("UTF-8"))
    }
}

#[test]
fn every_configuration_of_every_page_is_valid_without_a_warning() {
    let machine = Machine::new();
    let mut count = 0;
    for (name, page) in pages() {
        for block in blocks(&page, "yaml") {
            count += 1;
            let path: PathBuf = machine.0.path().join(format!("{name}-{count}.yaml"));
            let (valid, said) = machine.check(&path, &machine.here(&block));
            assert!(valid, "{name}: {said}\n{block}");
            let warned = said.lines().any(|line| line.starts_with("warning"));
            // The password grant is warned about, which its page says.
            assert!(!warned || block.contains("grant: password"), "{name}: {said}");
        }
    }
    assert!(count >= 25, "{count} configurations");
}
