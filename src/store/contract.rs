//! The store contract as one suite that every kind runs in its tests.
