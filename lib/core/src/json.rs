//! Lines from outside: read strictly, shown harmlessly

mod escape;

pub use escape::{ECHO_CHARS_MAX, escape_for_terminal, quoted};
