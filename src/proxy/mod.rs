//! The proxy: one request in, one request out, one answer back.
//!
//! Owns: the order of work on a request, header rules, framing rules, error answers. Sees only the read
//! half of `credential`.
