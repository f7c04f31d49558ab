//! `/proxy.pac`: which hosts a browser or a Java program is to reach through this listener.
//!
//! Owns: the script. It holds what the rules name and the listener's own address as the client wrote it, nothing else of a
//! request.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::Egress;
use crate::policy::egress::HostPattern;
use crate::route::authority::Authority;

const HEAD: &str = r"function FindProxyForURL(url, host) {
  host = host.toLowerCase().replace(/\.$/, '');
  var named = /^[a-z]+:\/\/(?:[^\/@]*@)?(?:\[[^\]]*\]|[^\/:]*):([0-9]+)/i.exec(url);
  var port = named ? +named[1] : /^(https|wss):/i.test(url) ? 443 : 80;
";

/// The script, for whoever reached the listener as `own`.
pub(super) fn answer(egress: &Egress, own: Option<&HeaderValue>) -> Response<Bytes> {
    let own = own.and_then(|own| own.to_str().ok()).filter(|own| Authority::parse(own).is_some());
    let Some(own) = own else {
        let mut answer = Response::new(Bytes::from_static(b"a Host field is missing\n"));
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        return answer;
    };
    let rules = egress.rules.iter().take(egress.rules.len() - 1);
    let conditions = rules.map(|site| {
        let condition = &site.config.rule.condition;
        condition_of(&condition.hosts, &condition.ports)
    });
    let mut answer = Response::new(Bytes::from(script(own, conditions)));
    let kind = HeaderValue::from_static("application/x-ns-proxy-autoconfig");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}

fn script(own: &str, conditions: impl Iterator<Item = String>) -> String {
    let mut text = HEAD.to_owned();
    for condition in conditions {
        text.push_str(&format!("  if ({condition}) return 'PROXY {own}';\n"));
    }
    text.push_str("  return 'DIRECT';\n}\n");
    text
}

/// What a rule matches, in JavaScript. Denied hosts count too: they are not to be reached some other way.
fn condition_of(hosts: &[HostPattern], ports: &[(u16, u16)]) -> String {
    let hosts: Vec<_> = hosts.iter().map(|host| format!("/^{}$/.test(host)", expression(host))).collect();
    let ports: Vec<_> =
        ports
            .iter()
            .map(|(from, to)| {
                if from == to {
                    format!("port == {from}")
                } else {
                    format!("(port >= {from} && port <= {to})")
                }
            })
            .collect();
    let any = |texts: &[String]| {
        if texts.is_empty() { "true".to_owned() } else { format!("({})", texts.join(" || ")) }
    };
    [any(&hosts), any(&ports)].join(" && ")
}

/// A pattern as a regular expression: labels, digits and brackets, nothing that a script would read otherwise.
fn expression(host: &HostPattern) -> String {
    let text = host.to_string();
    if text == "**" {
        return ".*".to_owned();
    }
    let labels = text.trim_matches(['[', ']']).split('.').map(|label| match label {
        "**" => ".+",
        "*" => "[^.]+",
        label => label,
    });
    labels.collect::<Vec<_>>().join("\\.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_become_conditions() {
        let check = |hosts: &[&str], ports: &[(u16, u16)], expected: &str| {
            let hosts: Vec<_> = hosts.iter().map(|text| HostPattern::parse(text).expect(text)).collect();
            assert_eq!(condition_of(&hosts, ports), expected);
        };
        check(&["api.example.com"], &[(443, 443)], r"(/^api\.example\.com$/.test(host)) && (port == 443)");
        check(
            &["*.a.test", "**.b.test"],
            &[(80, 80), (8000, 8999)],
            r"(/^[^.]+\.a\.test$/.test(host) || /^.+\.b\.test$/.test(host)) && (port == 80 || (port >= 8000 && port <= 8999))",
        );
        check(&["**"], &[], r"(/^.*$/.test(host)) && true");
        check(&["::1"], &[], r"(/^::1$/.test(host)) && true");
        check(&[], &[], "true && true");
    }
}
