//! Which one is meant: an id, an unambiguous prefix of it, a name, or `@last`
use crate::exit::Failure;
use meso_core::id::is_id;
use std::{error::Error, fmt, str::FromStr};

/// A shorter text is a name, never the beginning of an id.
const PREFIX_CHARS_MIN: usize = 4;
/// As many candidates are listed when several fit.
const LISTED_MAX: usize = 8;
/// My newest.
const LAST: &str = "@last";

/// What a person typed where an id is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `@last`: the newest of one's own.
    Last,
    /// An id, the beginning of one, or a name.
    Text(String),
}

/// One of the things to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub id: String,
    pub name: String,
    /// Whose it is.
    pub principal: String,
    /// When it began, milliseconds since 1970.
    pub ts_ms: u64,
}

/// Why no single one could be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOne {
    /// Nothing that could be an id or a name; nobody needs to be asked.
    BadSelector(String),
    NotFound(String),
    /// Several fit: the text, and their ids with their names.
    Ambiguous(String, Vec<(String, String)>),
    /// `@last`, and one has none.
    NoneIsMine,
}

impl Selector {
    /// Reads what was typed.
    ///
    /// # Errors
    /// `BadSelector` if it can be neither id nor name.
    pub fn parse(text: &str) -> Result<Self, NotOne> {
        match text {
            LAST => Ok(Self::Last),
            text if is_id(text) => Ok(Self::Text(text.to_owned())),
            text => Err(NotOne::BadSelector(text.to_owned())),
        }
    }
}

impl FromStr for Selector {
    type Err = NotOne;

    fn from_str(text: &str) -> Result<Self, NotOne> {
        Self::parse(text)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str(LAST),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Chooses the one that is meant; `me` is one's own principal.
///
/// A whole id wins over a name, and a name over the beginning of an id, so that a name that looks like the beginning of an id can be used.
///
/// # Errors
/// `NotFound`, `Ambiguous` or `NoneIsMine`.
pub fn resolve<'a>(selector: &Selector, candidates: &'a [Candidate], me: &str) -> Result<&'a Candidate, NotOne> {
    let text = match selector {
        Selector::Last => {
            let mine = candidates.iter().filter(|candidate| candidate.principal == me);
            return mine.max_by(|a, b| (a.ts_ms, &a.id).cmp(&(b.ts_ms, &b.id))).ok_or(NotOne::NoneIsMine);
        }
        Selector::Text(text) => text,
    };
    let fits: [&dyn Fn(&Candidate) -> bool; 3] =
        [&|candidate| candidate.id == *text, &|candidate| candidate.name == *text, &|candidate| text.len() >= PREFIX_CHARS_MIN && candidate.id.starts_with(text.as_str())];
    for fits in fits {
        let mut found = candidates.iter().filter(|candidate| fits(candidate));
        if let Some(first) = found.next() {
            let others = found.collect::<Vec<_>>();
            if others.is_empty() {
                return Ok(first);
            }
            let mut all = std::iter::once(first).chain(others).map(|c| (c.id.clone(), c.name.clone())).collect::<Vec<_>>();
            all.sort();
            return Err(NotOne::Ambiguous(text.clone(), all));
        }
    }
    Err(NotOne::NotFound(text.clone()))
}

impl fmt::Display for NotOne {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadSelector(text) => write!(f, "{} is neither an id nor a name", meso_core::json::quoted(text)),
            Self::NotFound(text) => write!(f, "there is no {text}"),
            Self::Ambiguous(text, all) => {
                write!(f, "{text} may be any of {}:", all.len())?;
                for (id, name) in all.iter().take(LISTED_MAX) {
                    write!(f, " {id}")?;
                    if !name.is_empty() {
                        write!(f, " ({name})")?;
                    }
                }
                if all.len() > LISTED_MAX { f.write_str(" ...") } else { Ok(()) }
            }
            Self::NoneIsMine => f.write_str("you have none, so there is no @last"),
        }
    }
}

impl Error for NotOne {}

impl From<NotOne> for Failure {
    fn from(not_one: NotOne) -> Self {
        let what = not_one.to_string();
        match not_one {
            NotOne::BadSelector(_) => Failure::usage(what).hint("an id, the first 4 or more characters of one, a name, or @last"),
            NotOne::NotFound(_) | NotOne::NoneIsMine => Failure::failed(what).hint("meso-ps"),
            NotOne::Ambiguous(..) => Failure::failed(what).hint("more characters of the id"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FailureKind;

    fn candidates() -> Vec<Candidate> {
        let candidate = |id: &str, name: &str, principal: &str, ts_ms| Candidate { id: id.into(), name: name.into(), principal: principal.into(), ts_ms };
        vec![
            candidate("task_7k3q9x2mfa", "web", "me", 10),
            candidate("task_7k3q000000", "db", "me", 20),
            candidate("task_2aaaaaaaaa", "web", "other", 30),
            candidate("task_3bbbbbbbbb", "task_7k3q9", "other", 5),
        ]
    }

    fn resolved(text: &str) -> Result<String, NotOne> {
        resolve(&Selector::parse(text)?, &candidates(), "me").map(|candidate| candidate.id.clone())
    }

    /// Shows each way to name one, and that id wins over name and name over the beginning of an id.
    #[test]
    fn each_way_to_name_one() {
        assert_eq!(resolved("task_7k3q9x2mfa").as_deref(), Ok("task_7k3q9x2mfa"));
        assert_eq!(resolved("task_7k3q0").as_deref(), Ok("task_7k3q000000"));
        assert_eq!(resolved("db").as_deref(), Ok("task_7k3q000000"));
        assert_eq!(resolved("task_7k3q9").as_deref(), Ok("task_3bbbbbbbbb"), "it is a name too");
        assert_eq!(resolved("@last").as_deref(), Ok("task_7k3q000000"), "the newest is another's");
    }

    /// Shows that what fits several is refused with the list of them, in order.
    #[test]
    fn several_fit() {
        let NotOne::Ambiguous(text, all) = resolved("web").expect_err("two have the name") else { panic!("it is ambiguous") };
        assert_eq!((text.as_str(), all.len(), all[0].0.as_str()), ("web", 2, "task_2aaaaaaaaa"));
        let failure = Failure::from(resolved("task").expect_err("all begin so"));
        assert!(failure.kind() == FailureKind::Failed && failure.what().contains("any of 4: task_2aaaaaaaaa (web)"), "{failure}");
    }

    /// Shows that a short text is never the beginning of an id, and that nonsense is refused without a look.
    #[test]
    fn none_fits() {
        assert_eq!(resolved("tas"), Err(NotOne::NotFound("tas".into())));
        assert_eq!(resolve(&Selector::Last, &candidates(), "nobody"), Err(NotOne::NoneIsMine));
        for bad in ["", "a.b", "@first", "-x", "a b", "\u{1b}[2J"] {
            let failure = Failure::from(Selector::parse(bad).expect_err(bad));
            assert!(failure.kind() == FailureKind::Usage && !failure.what().contains('\u{1b}'), "{failure}");
        }
    }
}
