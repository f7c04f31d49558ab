//! Grants: the form parameters of each kind of token request.
