//! The embedded authorization server and echo API of `bearward try` and of the tests.
