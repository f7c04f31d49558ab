//! The composition root: builds, binds, spawns.
