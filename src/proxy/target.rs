//! The target of a request as the upstream sees it.
//!
//! Owns: the path in normal form in the place of the client's, the route's own query parameters, and the absolute-form for an
//! outbound proxy. Every form that is sent was judged before.

use bytes::Bytes;
use http::Uri;
use http::uri::PathAndQuery;

use super::{Refusal, Route};
use crate::route::QueryEdits;
use crate::route::path::PathError;

/// The target; `None`: the one that came in.
pub(super) fn target(route: &Route, uri: &Uri, path: Option<String>) -> Result<Option<Uri>, Refusal> {
    let path_and_query = match (path, &route.query) {
        (path, Some(query)) => {
            let mut target = path.unwrap_or_else(|| uri.path().to_owned());
            query.apply(uri.query(), &mut target);
            Some(PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| PathError::BadCharacter)?)
        }
        (None, None) if uri.authority().is_none() && route.absolute.is_none() => return Ok(None),
        // Without a path of its own it would be written as nothing.
        (None, None) if uri.path() == "/" && uri.query().is_none() => Some(PathAndQuery::from_static("/")),
        (None, None) => uri.path_and_query().cloned(),
        (Some(mut path), None) => {
            if let Some(query) = uri.query() {
                path.push('?');
                path.push_str(query);
            }
            Some(PathAndQuery::from_maybe_shared(Bytes::from(path)).map_err(|_| PathError::BadCharacter)?)
        }
    };
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = path_and_query;
    if let Some((scheme, authority)) = &route.absolute {
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority.clone());
    }
    Ok(Some(Uri::from_parts(parts).map_err(|_| PathError::BadCharacter)?))
}

/// A route's query parameters, ready to be written.
#[derive(Debug, Clone)]
pub(super) struct OwnQuery {
    /// What clients send under these names is removed.
    names: Vec<String>,
    /// `name=value&…`.
    pairs: String,
}

impl OwnQuery {
    /// `None`: queries pass as they come.
    pub(super) fn of(edits: &QueryEdits) -> Option<Box<Self>> {
        (!edits.set.is_empty() || !edits.remove.is_empty()).then(|| {
            let names = edits.set.iter().map(|(name, _)| name).chain(&edits.remove).cloned().collect();
            let pairs = form_urlencoded::Serializer::new(String::new()).extend_pairs(&edits.set).finish();
            Box::new(Self { names, pairs })
        })
    }

    /// Adds the query to `target`: the client's parameters in their order, then ours.
    fn apply(&self, query: Option<&str>, target: &mut String) {
        let foreign = |pair: &&str| {
            let parts = || pair.split(';');
            !pair.is_empty() && !parts().any(|part| self.names.iter().any(|name| names_parameter(part, name)))
        };
        let kept = query.unwrap_or_default().split('&').filter(foreign);
        let mut gap = '?';
        for pair in kept.chain(Some(self.pairs.as_str()).filter(|pairs| !pairs.is_empty())) {
            target.push(gap);
            target.push_str(pair);
            gap = '&';
        }
    }
}

/// Whether some server reads `name` out of this: names are decoded, and some servers do not tell letter case.
pub(super) fn names_parameter(pair: &str, name: &str) -> bool {
    let written = pair.split('=').next().unwrap_or_default().replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&written).decode_utf8_lossy();
    decoded.trim().eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routes_parameters_are_nobody_elses() {
        let edits =
            QueryEdits { set: vec![("api-version".into(), "1 & 2".into())], remove: vec!["debug".into()] };
        let own = OwnQuery::of(&edits).expect("something to do");
        let check = |query: Option<&str>, expected: &str| {
            let mut target = "/x".to_owned();
            own.apply(query, &mut target);
            assert_eq!(target, ["/x?", expected].concat(), "{query:?}");
        };
        let ours = "api-version=1+%26+2";
        check(None, ours);
        check(Some(""), ours);
        check(Some("a=b&c"), &["a=b&c&", ours].concat());
        check(Some("api-version=7"), ours);
        check(Some("API-Version=7&a=b"), &["a=b&", ours].concat());
        check(Some("api%2Dversion=7&api%2dversion"), ours);
        check(Some("debug&x=debug&debug=1"), &["x=debug&", ours].concat());
        check(Some("a=b;debug=1"), ours);
        check(Some("a=%00&b=+"), &["a=%00&b=+&", ours].concat());
        assert!(OwnQuery::of(&QueryEdits::default()).is_none());
        let only = OwnQuery::of(&QueryEdits { set: Vec::new(), remove: vec!["debug".into()] }).expect("one");
        let mut target = "/x".to_owned();
        only.apply(Some("debug=1"), &mut target);
        assert_eq!(target, "/x");
    }
}
