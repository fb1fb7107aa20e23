//! `-o table|wide|json|jsonl|tsv=F1,F2|name`: one listing, and every form it is printed in
use crate::{
    exit::Failure,
    lines::{Written, json_text, write_whole},
    progress,
    table::{Head, Look, NOTHING, age_text, cell_text, lay_out, mib_text},
};
use meso_core::json::{escape_for_terminal, quoted};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};
use std::{
    error::Error,
    fmt,
    io::{self, IsTerminal},
    str::FromStr,
};

/// What `-o` understands, for messages.
const FORMS: &str = "table, wide, json, jsonl, tsv=FIELD,FIELD, name";
/// More fields than this on a line are a mistake.
const FIELDS_MAX: usize = 64;

/// The form of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// One JSON array.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// These fields, with tabs between them.
    Tsv(Vec<String>),
    /// Ids only.
    Name,
}

/// A form we do not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFormat {
    what: String,
}

impl fmt::Display for BadFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for BadFormat {}

impl FromStr for Format {
    type Err = BadFormat;

    fn from_str(text: &str) -> Result<Self, BadFormat> {
        let bad = |what: String| Err(BadFormat { what });
        match text {
            "table" => Ok(Self::Table),
            "wide" => Ok(Self::Wide),
            "json" => Ok(Self::Json),
            "jsonl" => Ok(Self::Jsonl),
            "name" => Ok(Self::Name),
            "tsv" => bad("tsv needs its fields, as in tsv=id,state".to_owned()),
            _ => match text.strip_prefix("tsv=") {
                None => bad(format!("{} is none of {FORMS}", quoted(text))),
                Some(fields) => {
                    let fields = fields.split(',').map(str::to_owned).collect::<Vec<_>>();
                    if fields.iter().any(String::is_empty) {
                        return bad("a field of tsv has no name".to_owned());
                    }
                    if fields.len() > FIELDS_MAX {
                        return bad(format!("more than {FIELDS_MAX} fields of tsv"));
                    }
                    Ok(Self::Tsv(fields))
                }
            },
        }
    }
}

/// The flag of every listing tool
#[derive(clap::Args, Clone, Debug, Default)]
pub struct OutputArgs {
    /// Form of the output: table, wide, json, jsonl, tsv=FIELD,FIELD or name
    ///
    /// json is one array, jsonl one object per line, name only the ids. In tsv a field that is missing prints as -, and a field of a field is
    /// written with a dot, as in attrs.rack.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// How a column shows its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    Id,
    Text,
    Number,
    Mib,
    Amounts,
    Age,
    Lasts,
}

/// A column of a listing: its heading, the key of its value, and how it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    key: &'static str,
    show: Show,
    wide_only: bool,
}

impl Column {
    const fn new(title: &'static str, key: &'static str, show: Show) -> Self {
        Self { title, key, show, wide_only: false }
    }

    /// An id, which is never cut and is what `-o name` prints.
    pub const fn id(title: &'static str, key: &'static str) -> Self {
        Self::new(title, key, Show::Id)
    }

    pub const fn text(title: &'static str, key: &'static str) -> Self {
        Self::new(title, key, Show::Text)
    }

    /// A number, on the right.
    pub const fn number(title: &'static str, key: &'static str) -> Self {
        Self::new(title, key, Show::Number)
    }

    /// An amount in MiB, as `1.5G`.
    pub const fn mib(title: &'static str, key: &'static str) -> Self {
        Self::new(title, key, Show::Mib)
    }

    /// An object of amounts by kind, as `cpus=4,mem=8G`.
    pub const fn amounts(title: &'static str, key: &'static str) -> Self {
        Self::new(title, key, Show::Amounts)
    }

    /// A time in milliseconds since 1970, as how long ago it was.
    pub const fn age(title: &'static str, key: &'static str) -> Self {
        Self::new(title, key, Show::Age)
    }

    /// So many milliseconds, as `12s`; none at all is nothing.
    pub const fn lasts(title: &'static str, key: &'static str) -> Self {
        Self::new(title, key, Show::Lasts)
    }

    /// The same, only with `-o wide`.
    pub const fn wide(mut self) -> Self {
        self.wide_only = true;
        self
    }

    fn head(&self) -> Head {
        Head { title: self.title, right: matches!(self.show, Show::Number | Show::Mib | Show::Lasts), whole: self.show == Show::Id }
    }

    fn cell(&self, row: &Row, look: Look) -> String {
        let value = row.field(self.key);
        let shown = match (self.show, value) {
            (_, None) => None,
            (Show::Mib, Some(value)) => value.as_f64().map(mib_text),
            (Show::Age, Some(value)) => value.as_u64().filter(|then_ms| *then_ms > 0).map(|then_ms| age_text(look.now_ms, then_ms)),
            (Show::Lasts, Some(value)) => value.as_u64().filter(|ms| *ms > 0).map(|ms| age_text(ms, 0)),
            (Show::Amounts, Some(value)) => value.as_object().map(amounts_text),
            (_, Some(value)) => Some(plain(value)),
        };
        shown.map_or_else(|| NOTHING.to_owned(), |text| cell_text(&text))
    }
}

/// One object of a listing: its keys stand in the order in which they were put, and `meso` first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row(Vec<(String, Value)>);

impl Row {
    /// Begins one of a kind, such as `task/1`.
    pub fn of(kind: &str) -> Self {
        Self(vec![("meso".to_owned(), kind.into())])
    }

    /// Puts a key behind the others; a value that has no JSON form is null.
    pub fn with(mut self, key: &str, value: impl Serialize) -> Self {
        self.0.push((key.to_owned(), serde_json::to_value(value).unwrap_or(Value::Null)));
        self
    }

    /// The value of a key, or of a key in an object (`attrs.rack`); null counts as missing.
    pub fn field(&self, key: &str) -> Option<&Value> {
        let of = |key: &str| self.0.iter().find(|(own, _)| own == key).map(|(_, value)| value);
        let found = of(key).or_else(|| {
            let (outer, inner) = key.split_once('.')?;
            field_of(of(outer)?, inner)
        })?;
        (!found.is_null()).then_some(found)
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl From<Map<String, Value>> for Row {
    fn from(map: Map<String, Value>) -> Self {
        let (first, rest): (Vec<_>, Vec<_>) = map.into_iter().partition(|(key, _)| key == "meso");
        Self(first.into_iter().chain(rest).collect())
    }
}

/// What a listing tool prints: rows as they go out as JSON, and the columns people see of them.
#[derive(Clone, Debug)]
pub struct Listing {
    pub columns: Vec<Column>,
    pub rows: Vec<Row>,
}

impl Listing {
    /// Prints itself to stdout.
    ///
    /// # Errors
    /// Any failed write but EPIPE, which is a value.
    pub fn print(&self, format: &Format) -> Result<Written, Failure> {
        let text = self.render(format, Look::of_stdout())?;
        // Through a pipe std would cut at its own buffer's size; nobody cares where a listing is cut.
        let mut stdout = io::stdout().lock();
        progress::aside(|| write_whole(&mut stdout, text.as_bytes()))
    }

    /// The whole text, as it may look.
    ///
    /// # Errors
    /// `Internal`: a row that has no JSON form.
    pub fn render(&self, format: &Format, look: Look) -> Result<String, Failure> {
        Ok(match format {
            Format::Table => self.table(false, look),
            Format::Wide => self.table(true, look),
            Format::Json => {
                let rows = self.rows.iter().map(json_text).collect::<Result<Vec<_>, _>>()?;
                if rows.is_empty() { "[]\n".to_owned() } else { format!("[\n{}\n]\n", rows.join(",\n")) }
            }
            Format::Jsonl => {
                let mut text = String::new();
                for row in &self.rows {
                    text.push_str(&json_text(row)?);
                    text.push('\n');
                }
                text
            }
            Format::Tsv(fields) => self.rows.iter().map(|row| fields.iter().map(|key| tsv_text(row.field(key))).collect::<Vec<_>>().join("\t") + "\n").collect(),
            Format::Name => {
                let first_id = self.columns.iter().find(|column| column.show == Show::Id).or_else(|| self.columns.first());
                let key = first_id.map_or("id", |column| column.key);
                self.rows.iter().filter_map(|row| row.field(key)).map(|value| format!("{}\n", escape_for_terminal(&plain(value)))).collect()
            }
        })
    }

    fn table(&self, wide: bool, look: Look) -> String {
        let columns = self.columns.iter().filter(|column| wide || !column.wide_only).collect::<Vec<_>>();
        let heads = columns.iter().map(|column| column.head()).collect::<Vec<_>>();
        let rows = self.rows.iter().map(|row| columns.iter().map(|column| column.cell(row, look)).collect()).collect::<Vec<_>>();
        // Who asks for all columns wants all of them, also on a narrow screen.
        let look = if wide { Look { width: None, ..look } } else { look };
        lay_out(&heads, &rows, look)
    }
}

/// The same inside an object.
fn field_of<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    let object = value.as_object()?;
    object.get(key).or_else(|| {
        let (outer, inner) = key.split_once('.')?;
        field_of(object.get(outer)?, inner)
    })
}

/// A value without quotes; lists of plain values with commas between them, and anything deeper as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object()) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Amounts in the notation of `-R`, memory and disk with their unit; nothing for none.
fn amounts_text(amounts: &Map<String, Value>) -> String {
    let shown = |(kind, amount): (&String, &Value)| match (kind.as_str(), amount.as_f64()) {
        ("mem" | "disk", Some(mib)) => format!("{kind}={}", mib_text(mib)),
        _ => format!("{kind}={}", plain(amount)),
    };
    amounts.iter().map(shown).collect::<Vec<_>>().join(",")
}

/// A field that cannot be taken for two, or for none: `read` in a shell merges empty ones.
fn tsv_text(value: Option<&Value>) -> String {
    let text = value.map(plain).unwrap_or_default();
    if text.is_empty() {
        return NOTHING.to_owned();
    }
    let mut escaped = String::with_capacity(text.len());
    let mut buffer = [0; 4];
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            c => escaped.push_str(&escape_for_terminal(c.encode_utf8(&mut buffer))),
        }
    }
    escaped
}

/// Whether stdout is a terminal: some tools print for people there and lines elsewhere.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PIPE: Look = Look { width: None, bold: false, now_ms: 1_000_000 };

    fn listing() -> Listing {
        let object = |value: Value| Row::from(value.as_object().cloned().expect("it is an object"));
        Listing {
            columns: vec![Column::id("ID", "id"), Column::text("NAME", "name"), Column::number("CPUS", "cpus"), Column::mib("MEM", "mem"), Column::age("AGE", "ts_ms"), Column::text("RACK", "attrs.rack").wide()],
            rows: vec![
                object(json!({"meso":"task/1","id":"task_1","name":"a\tb\n\u{1b}c","cpus":0.5,"mem":1536,"ts_ms":820_000,"attrs":{"rack":"r1"},"ports":[31000,31001]})),
                object(json!({"meso":"task/1","id":"task_2","name":"","cpus":12,"mem":256,"ts_ms":0,"exit":null})),
            ],
        }
    }

    fn rendered(format: &str) -> String {
        listing().render(&format.parse().expect("it is a form"), PIPE).expect("it has a JSON form")
    }

    /// Shows the table in a pipe: aligned, ages and sizes for people, foreign text harmless, nothing as a dash.
    #[test]
    fn tables() {
        let expected = "ID      NAME                 CPUS   MEM  AGE\ntask_1  a\\u{9}b\\u{a}\\u{1b}c   0.5  1.5G  3m\ntask_2  -                      12  256M  -\n";
        assert_eq!(rendered("table"), expected);
        assert!(rendered("wide").lines().next().is_some_and(|heading| heading.ends_with("AGE  RACK")));
        assert!(rendered("wide").contains("r1"));
    }

    /// Shows amounts by kind and times that last as people read them, and nothing where there is none.
    #[test]
    fn amounts_and_times() {
        let columns = vec![Column::amounts("LIMIT", "limit"), Column::lasts("WAITS", "waits_ms")];
        let rows = vec![Row::default().with("limit", json!({"cpus":0.5,"gpus":0,"mem":8192})).with("waits_ms", 61_000), Row::default().with("limit", json!({})).with("waits_ms", 0)];
        let table = Listing { columns, rows }.render(&Format::Table, PIPE).expect("it has a form");
        assert_eq!(table, "LIMIT                   WAITS\ncpus=0.5,gpus=0,mem=8G     1m\n-                           -\n");
    }

    /// Shows that both JSON forms read back as the very rows.
    #[test]
    fn json_forms() {
        let rows = listing().rows.iter().map(|row| serde_json::to_value(row).expect("it has a JSON form")).collect::<Vec<_>>();
        assert!(rendered("jsonl").lines().all(|line| line.starts_with("{\"meso\":\"task/1\",")), "the kind stands first");
        assert_eq!(serde_json::from_str::<Value>(&rendered("json")).expect("it is JSON"), Value::Array(rows.clone()));
        let lines = rendered("jsonl").lines().map(|line| serde_json::from_str::<Value>(line).expect("each line is JSON")).collect::<Vec<_>>();
        assert_eq!(lines, rows);
        assert!(!rendered("jsonl").contains('\u{1b}'));
        let empty = Listing { columns: vec![], rows: vec![] };
        assert_eq!(empty.render(&Format::Json, PIPE).expect("nothing can fail"), "[]\n");
        assert_eq!(empty.render(&Format::Jsonl, PIPE).expect("nothing can fail"), "");
    }

    /// Shows that a line of tsv always has as many fields as were asked for.
    #[test]
    fn tsv_and_names() {
        assert_eq!(rendered("tsv=id,name,attrs.rack,exit,ports"), "task_1\ta\\tb\\n\\u{1b}c\tr1\t-\t31000,31001\ntask_2\t-\t-\t-\t-\n");
        assert_eq!(rendered("name"), "task_1\ntask_2\n");
    }

    /// Shows which forms are refused, and that the refusal is short and harmless whatever was typed.
    #[test]
    fn wrong_forms() {
        for bad in ["", "xml", "tsv", "tsv=", "tsv=a,,b", "TABLE", "\u{1b}[2J"] {
            let error = bad.parse::<Format>().expect_err(bad).to_string();
            assert!(!error.contains('\u{1b}') && error.len() < 200, "{error:?}");
        }
        assert!(format!("tsv={}", vec!["a"; 65].join(",")).parse::<Format>().is_err());
        assert_eq!("tsv=id,attrs.rack".parse(), Ok(Format::Tsv(vec!["id".into(), "attrs.rack".into()])));
    }
}
