//! The schedule: a pure function from state, time and jitter to the next action.
