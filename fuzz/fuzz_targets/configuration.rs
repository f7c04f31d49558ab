//! Configurations: any text is taken or refused with words, and one that is taken is taken again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // Commands and files of the machine stay alone.
    if text.len() > 16 * 1024 || text.contains("exec") || text.contains("include") {
        return;
    }
    let variables = |name: &str| (name == "SECRET").then(|| "a-secret-value".to_owned());
    match bearward::config::parse_with(text, "config.yaml", &variables) {
        Ok(_) => assert!(bearward::config::parse_with(text, "config.yaml", &variables).is_ok()),
        Err(problems) => {
            let told = problems.to_string();
            assert!(!told.trim().is_empty());
            assert!(!told.chars().any(|symbol| symbol.is_control() && symbol != '\n'), "{told:?}");
        }
    }
});
