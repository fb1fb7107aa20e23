//! meso-doctor on real clusters: what is well, what is not, and each with its next step
mod script;

#[test]
fn nothing() {}
