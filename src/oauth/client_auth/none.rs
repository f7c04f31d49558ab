//! `none`: a public client, named by its id alone (RFC 6749 3.2.1).

use super::super::draft::{Draft, Facts};

pub(super) fn apply(facts: &Facts<'_>, draft: &mut Draft) {
    if !facts.client_id.is_empty() {
        draft.form.set("client_id", facts.client_id);
    }
}
