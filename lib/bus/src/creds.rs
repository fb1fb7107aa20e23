//! The credentials file of NATS: a user's JWT and the seed that signs for it, each between two lines of dashes
//!
//! The client library reads the same with regular expressions, and the engine for them is a tenth of a small tool.

use std::sync::Arc;

use async_nats::{AuthError, ConnectOptions};
use nkeys::KeyPair;

/// Dashes that begin and end the line around a part, at least
const RULE: &str = "---";

/// See the module.
pub(crate) struct Creds {
    jwt: String,
    key: Arc<KeyPair>,
}

impl Creds {
    /// Reads the file's text; none if it does not hold both.
    pub(crate) fn parse(text: &str) -> Option<Creds> {
        let mut parts = parts(text);
        let (jwt, seed) = (parts.next()?, parts.next()?);
        Some(Creds { jwt: jwt.to_owned(), key: Arc::new(KeyPair::from_seed(seed).ok()?) })
    }

    /// Has the connection log in with them.
    pub(crate) fn log_in(self, options: ConnectOptions) -> ConnectOptions {
        let Creds { jwt, key } = self;
        options.jwt(jwt, move |nonce| {
            let key = key.clone();
            async move { key.sign(&nonce).map_err(AuthError::new) }
        })
    }
}

/// The lines that stand alone between two lines of dashes.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at + 2 < lines.len() {
            let [open, part, close] = [lines[at], lines[at + 1], lines[at + 2]];
            if is_rule(open) && is_rule(close) && !part.is_empty() && !is_rule(part) {
                at += 3;
                return Some(part);
            }
            at += 1;
        }
        None
    })
}

fn is_rule(line: &str) -> bool {
    line.len() > 2 * RULE.len() && line.starts_with(RULE) && line.ends_with(RULE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key pair that the library's own documentation shows.
    const SEED: &str = "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY";

    /// Shows that both parts are found between their lines, whatever stands around them and however lines end, and that
    /// the key signs.
    #[test]
    fn both_parts_are_read() {
        let text = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.eyJq-d_Q.x\n------END NATS USER JWT------\n\n*** IMPORTANT ***\nkeep it secret\n\n\
             -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
        );
        for text in [text.clone(), text.replace('\n', "\r\n"), format!("\n{text}\n-----BEGIN MORE-----")] {
            let creds = Creds::parse(&text).expect("both are there");
            assert_eq!(creds.jwt, "eyJ0.eyJq-d_Q.x");
            let signed = creds.key.sign(b"nonce").expect("a seed signs");
            assert!(creds.key.verify(b"nonce", &signed).is_ok());
        }
    }

    /// Shows that half a file, a seed that is none, and parts that are not between lines are refused.
    #[test]
    fn what_is_not_both_is_refused() {
        let jwt = "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n";
        for text in [String::new(), jwt.to_owned(), format!("{jwt}{SEED}\n"), format!("{jwt}-----BEGIN-----\nSUAN\n-----END-----\n"), format!("{jwt}-----BEGIN-----\n\n-----END-----\n"), "---\n---\n---\n".repeat(3)] {
            assert!(Creds::parse(&text).is_none(), "{text}");
        }
    }
}
