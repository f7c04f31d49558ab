//! What an upstream says of its own addresses, in the terms of the client: `Location`, `Content-Location`, `Refresh` and
//! `Set-Cookie`.
//!
//! Owns: which addresses are the upstream's, and their form under the listener. What leads elsewhere passes as it came. A
//! route that does not ask for it pays for one look at an `Option`.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::forward::{X_FORWARDED_HOST, X_FORWARDED_PROTO};
use super::{Client, admit};
use crate::origin::{Origin, Scheme};
use crate::route::RouteConfig;
use crate::route::authority::Authority;
use crate::route::table::matches_prefix;

const REFRESH: HeaderName = HeaderName::from_static("refresh");

/// How a route's answers are told to clients.
#[derive(Debug, Clone)]
pub(super) struct Backward {
    /// Whose addresses are translated; the first is meant where none is named.
    origins: Vec<Origin>,
    /// The prefix that the client uses, and the upstream's, where they differ.
    prefixes: Option<(String, String)>,
    location: bool,
    cookies: bool,
}

/// How a client called the listener.
#[derive(Debug)]
pub(super) struct Called {
    secure: bool,
    authority: Option<HeaderValue>,
}

impl Backward {
    /// `None`: answers pass as they come.
    pub(super) fn of(config: &RouteConfig) -> Option<Box<Self>> {
        let rewrites = &config.rewrites;
        (rewrites.location || rewrites.cookies).then(|| {
            let origins = config.upstream.origins().cloned().collect();
            let prefixes = config.rewrite_prefix.clone().map(|theirs| (config.path_prefix.clone(), theirs));
            Box::new(Self { origins, prefixes, location: rewrites.location, cookies: rewrites.cookies })
        })
    }

    /// Reads how the listener was called, of a head that is stripped and not edited yet.
    #[cold]
    pub(super) fn called(client: &Client, head: &Parts) -> Box<Called> {
        // What is left of these fields is a trusted proxy's.
        let told =
            |name: HeaderName| head.headers.get(name).filter(|_| client.link.forwarded.peer_is_trusted());
        let secure = told(X_FORWARDED_PROTO).map_or(client.link.secure, |proto| proto == "https");
        let named = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        let own = || named.or_else(|| head.headers.get(header::HOST).cloned());
        let authority = told(X_FORWARDED_HOST).filter(|host| is_authority(host)).cloned().or_else(own);
        Box::new(Called { secure, authority })
    }

    /// Translates the fields of an answer.
    #[cold]
    pub(super) fn translate(&self, called: &Called, headers: &mut HeaderMap) {
        if self.location {
            for name in [header::LOCATION, header::CONTENT_LOCATION, REFRESH] {
                let Some(value) = headers.get(&name).and_then(|value| value.to_str().ok()) else { continue };
                let translated =
                    if name == REFRESH { self.refresh(called, value) } else { self.reference(called, value) };
                if let Some(translated) = translated.and_then(|text| HeaderValue::try_from(text).ok()) {
                    headers.insert(name, translated);
                }
            }
        }
        if self.cookies && headers.contains_key(header::SET_COOKIE) {
            let cookies: Vec<_> = headers
                .get_all(header::SET_COOKIE)
                .iter()
                .map(|cookie| self.cookie(called, cookie))
                .collect();
            headers.remove(header::SET_COOKIE);
            for cookie in cookies {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
    }

    /// A reference to the upstream (RFC 3986, 4.1) as one to the listener. `None`: it leads elsewhere, or need not change.
    fn reference(&self, called: &Called, text: &str) -> Option<String> {
        let scheme = |name: &str| match name {
            name if name.eq_ignore_ascii_case("https") => Some(Scheme::Https),
            name if name.eq_ignore_ascii_case("http") => Some(Scheme::Http),
            _ => None,
        };
        let (scheme, rest) = match (text.strip_prefix("//"), text.split_once("://")) {
            (Some(rest), _) => (self.origins.first()?.scheme(), rest),
            (None, Some((name, rest))) if scheme(name).is_some() => (scheme(name)?, rest),
            _ if text.starts_with('/') && self.prefixes.is_some() => return self.path(text),
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if !self.is_upstream(scheme, authority) {
            return None;
        }
        let path = self.path(&if path.starts_with('/') { path.to_owned() } else { ["/", path].concat() })?;
        match called.authority.as_ref().and_then(|authority| authority.to_str().ok()) {
            Some(authority) => {
                Some([if called.secure { "https://" } else { "http://" }, authority, &path].concat())
            }
            // Without a host it would become one.
            None => Some(path).filter(|path| !path.starts_with("//")),
        }
    }

    fn is_upstream(&self, scheme: Scheme, authority: &str) -> bool {
        let Some(authority) = Authority::parse(authority) else { return false };
        let port = authority.port.unwrap_or(scheme.default_port());
        let is = |origin: &Origin| {
            origin.scheme() == scheme && origin.host() == authority.host && origin.port() == port
        };
        self.origins.iter().any(is)
    }

    /// A path of the upstream, with what follows it, as the client has to ask for it. `None`: the route does not lead there.
    fn path(&self, text: &str) -> Option<String> {
        let Some((ours, theirs)) = &self.prefixes else { return Some(text.to_owned()) };
        let (path, behind) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
        let bare = |prefix: &str| prefix.trim_end_matches('/').to_owned();
        let mapped = if matches_prefix(theirs, path) {
            admit::join(ours, &path[theirs.len()..])
        } else if path == bare(theirs) {
            bare(ours)
        } else {
            return None;
        };
        Some([if mapped.is_empty() { "/" } else { &mapped }, behind].concat())
    }

    /// `5; url=…`
    fn refresh(&self, called: &Called, text: &str) -> Option<String> {
        let at = text.find([';', ','])? + 1;
        let (seconds, rest) = text.split_at(at);
        let name = rest.trim_start();
        let gap = &rest[..rest.len() - name.len()];
        let (key, url) = name.split_at_checked(4)?;
        if !key.eq_ignore_ascii_case("url=") {
            return None;
        }
        let quote = url.chars().next().filter(|first| matches!(first, '"' | '\''));
        let bare = quote.map_or(url, |quote| url[1..].strip_suffix(quote).unwrap_or(&url[1..]));
        let quote = quote.map(String::from).unwrap_or_default();
        Some([seconds, gap, key, &quote, &self.reference(called, bare)?, &quote].concat())
    }

    /// A cookie of the upstream as one of the listener: for its host, under its prefix, and over cleartext where the client
    /// speaks that.
    fn cookie(&self, called: &Called, cookie: &HeaderValue) -> HeaderValue {
        let Ok(text) = cookie.to_str() else { return cookie.clone() };
        let mut parts = text.split(';').map(str::trim);
        let pair = parts.next().unwrap_or_default();
        // Their names promise what cannot be kept (RFC 6265bis, 4.1.3).
        let promises = ["__host-", "__secure-"]
            .iter()
            .any(|prefix| pair.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix)));
        let open = !called.secure && !promises;
        let mut kept = vec![pair.to_owned()];
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            match name.as_str() {
                "domain" if self.is_own_domain(value) => {}
                "secure" | "partitioned" if open => {}
                "samesite" if open && value.eq_ignore_ascii_case("none") => {}
                "path" if !promises => kept
                    .push(self.cookie_path(value).map_or(part.to_owned(), |path| ["Path=", &path].concat())),
                _ => kept.push(part.to_owned()),
            }
        }
        let Ok(mut translated) = HeaderValue::try_from(kept.join("; ")) else { return cookie.clone() };
        translated.set_sensitive(cookie.is_sensitive());
        translated
    }

    /// Whether a `Domain` covers the upstream's host.
    fn is_own_domain(&self, domain: &str) -> bool {
        let domain = domain.trim_start_matches('.').to_ascii_lowercase();
        let covers = |host: &str| {
            host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        !domain.is_empty() && self.origins.iter().any(|origin| covers(origin.host()))
    }

    fn cookie_path(&self, path: &str) -> Option<String> {
        let (ours, theirs) = self.prefixes.as_ref()?;
        // One that covers more than the route covers all of it.
        self.path(path)
            .or_else(|| (path.starts_with('/') && matches_prefix(path, theirs)).then(|| ours.clone()))
    }
}

fn is_authority(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|text| Authority::parse(text).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backward(prefixes: Option<(&str, &str)>) -> Backward {
        let origin = |text| Origin::try_new(text).expect("an origin");
        Backward {
            origins: vec![origin("https://api.example.com"), origin("http://10.0.0.1:8080")],
            prefixes: prefixes.map(|(ours, theirs)| (ours.to_owned(), theirs.to_owned())),
            location: true,
            cookies: true,
        }
    }

    fn called(authority: Option<&'static str>, secure: bool) -> Called {
        Called { secure, authority: authority.map(HeaderValue::from_static) }
    }

    #[test]
    fn a_reference_to_the_upstream_becomes_one_to_the_listener() {
        let listener = called(Some("localhost:8080"), false);
        let check = |text: &str, expected: Option<&str>| {
            let got = backward(None).reference(&listener, text);
            assert_eq!(got.as_deref(), expected, "{text}");
        };
        check("https://api.example.com/a?b#c", Some("http://localhost:8080/a?b#c"));
        check("HTTPS://API.Example.com:443/a", Some("http://localhost:8080/a"));
        check("https://api.example.com", Some("http://localhost:8080/"));
        check("https://api.example.com?q", Some("http://localhost:8080/?q"));
        check("//api.example.com/a", Some("http://localhost:8080/a"));
        check("http://10.0.0.1:8080/a", Some("http://localhost:8080/a"));
        for other in [
            "http://api.example.com/a",
            "https://api.example.com:444/a",
            "https://api.example.com.evil/a",
            "https://evil@api.example.com/a",
            "https://api.example.com@evil/a",
            "https://api.example.com\\@evil/a",
            "https:/api.example.com/a",
            "//evil/a",
            "/a",
            "a",
            "?q",
            "",
            "javascript://api.example.com/",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn a_path_goes_back_under_the_prefix_that_was_cut_off() {
        let listener = called(Some("h"), true);
        let check = |prefixes: (&str, &str), text: &str, expected: Option<&str>| {
            let got = backward(Some(prefixes)).reference(&listener, text);
            assert_eq!(got.as_deref(), expected, "{prefixes:?} {text}");
        };
        check(("/pds/", "/api/"), "https://api.example.com/api/x?y", Some("https://h/pds/x?y"));
        check(("/pds/", "/api/"), "/api/x", Some("/pds/x"));
        check(("/pds/", "/api/"), "/api", Some("/pds"));
        check(("/pds/", "/api/"), "/apix", None);
        check(("/pds/", "/api/"), "https://api.example.com/login", None);
        check(("/pds/", "/"), "/x#y", Some("/pds/x#y"));
        check(("/pds", "/"), "/x", Some("/pds/x"));
        check(("/pds", "/"), "//evil/x", None);
        check(("/pds", "/api"), "/api", Some("/pds"));
        check(("/", "/api/"), "/api/x", Some("/x"));
        check(("/", "/api/"), "/api//evil/x", Some("/evil/x"));
        check(("/pds/", "/api/"), "x", None);
        let nameless = called(None, false);
        assert_eq!(backward(None).reference(&nameless, "https://api.example.com/a").as_deref(), Some("/a"));
        assert_eq!(backward(None).reference(&nameless, "https://api.example.com//evil/a"), None);
    }

    #[test]
    fn a_refresh_keeps_its_form() {
        let listener = called(Some("h"), false);
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(backward(None).refresh(&listener, text).as_deref(), expected, "{text}");
        };
        check("5; url=https://api.example.com/a", Some("5; url=http://h/a"));
        check("0;URL=\"https://api.example.com/a\"", Some("0;URL=\"http://h/a\""));
        check("0; url='https://api.example.com/a'", Some("0; url='http://h/a'"));
        check("5", None);
        check("5; url=https://evil/", None);
        check("5; u", None);
        check("5; x=https://api.example.com/", None);
    }

    #[test]
    fn a_cookie_becomes_the_listeners() {
        let check = |prefixes: Option<(&str, &str)>, secure: bool, cookie: &'static str, expected: &str| {
            let got =
                backward(prefixes).cookie(&called(Some("h"), secure), &HeaderValue::from_static(cookie));
            assert_eq!(got, expected, "{cookie}");
        };
        check(None, false, "a=b; Path=/; HttpOnly", "a=b; Path=/; HttpOnly");
        check(None, false, "a=b; Domain=api.example.com; Secure; SameSite=None", "a=b");
        check(None, true, "a=b; domain=.example.com; Secure; SameSite=None", "a=b; Secure; SameSite=None");
        check(None, false, "a=b; Domain=evil.com; SameSite=Lax", "a=b; Domain=evil.com; SameSite=Lax");
        check(None, false, "a=b; Domain=i.example.com", "a=b; Domain=i.example.com");
        check(None, false, "__Host-a=b; Path=/; Secure", "__Host-a=b; Path=/; Secure");
        check(Some(("/pds/", "/api/")), false, "a=b; Path=/api/x; Max-Age=5", "a=b; Path=/pds/x; Max-Age=5");
        check(Some(("/pds/", "/api/")), false, "a=b; Path=/", "a=b; Path=/pds/");
        check(Some(("/pds/", "/api/")), false, "a=b; path=/other", "a=b; path=/other");
        check(None, false, "a=\"x; y\"; Secure", "a=\"x; y\"");
    }
}
