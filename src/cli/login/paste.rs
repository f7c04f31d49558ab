//! The redirect of a login, pasted by a person.

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::oauth::login::{Authorization, RedirectError};
use crate::secret::Secret;

/// How many lines are looked at.
const MAX_TRIES: usize = 5;

/// Reads lines until one is the redirect of this login.
pub(super) async fn code(authorization: &Authorization, deadline: Instant) -> Result<Secret, String> {
    let mut lines = read_lines();
    for _ in 0..MAX_TRIES {
        let line = match timeout_at(deadline, lines.recv()).await {
            Ok(Some(line)) => line,
            Ok(None) => return Err("nothing was pasted: standard input ended".into()),
            Err(_) => return Err("nothing was pasted in time; `--timeout` says how long to wait".into()),
        };
        if line.expose().trim().is_empty() {
            continue;
        }
        match authorization.code(query_of(line.expose())) {
            Ok(code) => return Ok(code),
            Err(error @ (RedirectError::Foreign | RedirectError::Empty)) => {
                anstream::eprintln!(
                    "That is not the address of this login ({error}). It has `code=` and `state=` in it; paste it whole:"
                );
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("none of {MAX_TRIES} lines was the address of this login"))
}

/// Lines of standard input, read on a thread of its own: a read cannot be called off.
fn read_lines() -> mpsc::Receiver<Secret> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(Secret::new(line)).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The query of a URL, or the text itself where it is one already.
fn query_of(text: &str) -> &str {
    let text = text.trim().trim_matches(['"', '\'', '<', '>']);
    let query = text.split_once('?').map_or(text, |(_, query)| query);
    query.split_once('#').map_or(query, |(query, _)| query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_found_in_what_people_paste() {
        let check = |text: &str, expected: &str| assert_eq!(query_of(text), expected, "{text}");
        check("http://127.0.0.1/callback?code=a&state=b", "code=a&state=b");
        check("  \"http://127.0.0.1/callback?code=a&state=b#\"\n", "code=a&state=b");
        check("?code=a", "code=a");
        check("code=a&state=b", "code=a&state=b");
    }
}
