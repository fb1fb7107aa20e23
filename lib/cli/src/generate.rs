//! The hidden `--generate man|bash|zsh|fish`: man pages and completions from the flags themselves
//!
//! A man page is prose written by hand in man(7) macros, with placeholders for what the flags know better:
//!
//! | placeholder, alone on its line | becomes |
//! |---|---|
//! | `@SYNOPSIS@` | the name and its flags |
//! | `@OPTIONS@` | every flag and argument with its help |
//! | `@EXIT@` | the exit codes of the tool's audience |
//! | `@ENVIRONMENT@` | the variables that every tool reads |
//!
//! `@VERSION@` is replaced anywhere.
use crate::{
    exit::Failure,
    run::{Tool, VERSION},
};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use std::ffi::OsString;

const FLAG: &str = "--generate";
/// Lines of a man page's source are no longer than this.
const SOURCE_LINE_BYTES_MAX: usize = 78;

/// What `--generate` can print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generated {
    Man,
    Completions(Shell),
}

/// The variables that every tool reads, for the ENVIRONMENT section.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("MESO_NATS_URL, NATS_URL", "Address of the bus, if --nats is not given; the first that is set is used."),
    ("MESO_CONTEXT, NATS_CONTEXT", "Name of a NATS context, if --context is not given; it is read only if no address is set by then."),
    ("MESO_NATS_CREDS, NATS_CREDS", "File with credentials for the bus, if --creds is not given."),
    ("MESO_CLUSTER", "Name of the cluster, if --cluster is not given."),
    ("MESO_PRINCIPAL", "Who one is on the bus, if --principal is not given."),
    ("MESO_PATIENCE", "How long to wait for a bus or a master that is away, such as 5s; 30s if it is not set. Daemons wait for ever. See meso(7)."),
    ("NO_COLOR", "Set to anything, it turns colour and bold off."),
    ("MESO_DEBUG", "Set to anything, it makes an internal error print where it happened."),
];

/// What the command line asks to be printed, if its first word is `--generate`.
pub(crate) fn asked_for(args: &[OsString]) -> Option<Result<Generated, Failure>> {
    let first = args.get(1)?.to_str()?;
    let what = match first.strip_prefix(FLAG)? {
        "" => args.get(2).and_then(|arg| arg.to_str()).unwrap_or(""),
        joined => joined.strip_prefix('=')?,
    };
    Some(match what {
        "man" => Ok(Generated::Man),
        "bash" => Ok(Generated::Completions(Shell::Bash)),
        "zsh" => Ok(Generated::Completions(Shell::Zsh)),
        "fish" => Ok(Generated::Completions(Shell::Fish)),
        other => Err(Failure::usage(format!("cannot generate '{other}'")).hint(format!("{FLAG} man, bash, zsh or fish"))),
    })
}

/// The text of a man page, or of a completion script.
pub(crate) fn generate(command: &mut Command, tool: Tool, what: Generated) -> Result<String, Failure> {
    match what {
        Generated::Completions(shell) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, command, tool.name, &mut script);
            String::from_utf8(script).map_err(|_| Failure::internal("the completions are not text"))
        }
        Generated::Man => man_page(command, tool),
    }
}

fn man_page(command: &mut Command, tool: Tool) -> Result<String, Failure> {
    command.build();
    let man = Man::new(command.clone());
    let section = |render: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| -> Result<String, Failure> {
        let mut roff = Vec::new();
        render(&mut roff).map_err(|e| Failure::internal(format!("writing the man page: {e}")))?;
        Ok(section_body(&String::from_utf8_lossy(&roff)))
    };
    let mut page = String::new();
    for line in tool.prose.lines() {
        match line {
            "@SYNOPSIS@" => page.push_str(&section(&|w| man.render_synopsis_section(w))?),
            "@OPTIONS@" => page.push_str(&section(&|w| man.render_options_section(w))?),
            "@EXIT@" => page.push_str(&terms(tool.kind.exit_status())),
            "@ENVIRONMENT@" => page.push_str(&terms(ENVIRONMENT)),
            line => {
                page.push_str(&line.replace("@VERSION@", VERSION));
                page.push('\n');
            }
        }
    }
    Ok(page)
}

/// What clap_mangen wrote, without its preamble and first heading, in words that `mandoc -Tlint` has nothing to say about.
fn section_body(roff: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in roff.lines().map(str::trim_end) {
        // The preamble defines a string for the apostrophe, which `\(aq` is everywhere.
        if line.starts_with(".ie ") || line.starts_with(".el ") {
            continue;
        }
        let last = lines.last().map(String::as_str);
        match (line, last) {
            // The heading of the section itself is in the prose; those of groups of flags are below it.
            (heading, _) if heading.starts_with(".SH ") => match heading.trim_start_matches(".SH ").trim_matches('"') {
                "OPTIONS" | "SYNOPSIS" => {}
                group => lines.push(format!(".SS {group}")),
            },
            // An empty line is the end of a paragraph of help; inside a term that is vertical space, which ends the line before it too.
            ("", Some(".br")) => *lines.last_mut().expect("it was just seen") = ".sp".to_owned(),
            ("" | ".br", Some(".sp")) => {}
            ("", _) => lines.push(".sp".to_owned()),
            // The line after .TP is the term, all of it.
            (text, last) if last == Some(".TP") || text.starts_with('.') => lines.push(text.replace("\\*(Aq", "\\(aq")),
            (text, _) => lines.extend(folded(&text.replace("\\*(Aq", "\\(aq"))),
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// A list of terms and what they mean, in man(7) macros.
fn terms(rows: &[(&str, &str)]) -> String {
    rows.iter().map(|(term, meaning)| format!(".TP\n.B {}\n{}\n", roff_text(term), folded(&roff_text(meaning)).join("\n"))).collect()
}

/// Running text in lines of a length that mandoc likes; where a line ends does not show on the page.
fn folded(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        let is_first = lines.is_empty();
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= SOURCE_LINE_BYTES_MAX => {
                line.push(' ');
                line.push_str(word);
            }
            // A dot or quote at the start of a line would make it a macro.
            _ if !is_first && word.starts_with(['.', '\'']) => lines.push(format!("\\&{word}")),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn roff_text(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Format, ToolKind, bus_args::BusArgs, run::command};
    use std::{io::Write, process};

    /// Ask for things
    ///
    /// Asks the leader, and prints what it says.
    #[derive(clap::Parser)]
    struct Ask {
        #[command(flatten)]
        bus: BusArgs,
        /// Form of the output
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Format,
        /// Give up after this long
        ///
        /// A plain number is seconds; the leader's own words stand on stderr.
        ///
        /// 'Quoted' text and a \ backslash are harmless.
        #[arg(long, value_name = "DURATION", env = "MESO_ASK_TIMEOUT")]
        timeout: Option<String>,
        /// How to count
        #[arg(long, value_parser = ["up", "down"], default_value = "up")]
        count: String,
        /// Thing to ask for (can be repeated)
        #[arg(value_name = "THING")]
        thing: Vec<String>,
    }

    const PROSE: &str = ".TH MESO\\-ASK 1 2026-11-22 \"meso @VERSION@\" \"meso manual\"\n.SH NAME\nmeso\\-ask \\- ask for things\n.SH SYNOPSIS\n@SYNOPSIS@\n.SH DESCRIPTION\nAsks.\n.SH OPTIONS\n@OPTIONS@\n.SH EXIT STATUS\n@EXIT@\n.SH ENVIRONMENT\n@ENVIRONMENT@\n";
    const ASK: Tool = Tool { name: "meso-ask", kind: ToolKind::Plain, prose: PROSE };

    fn text(what: Generated) -> String {
        generate(&mut command::<Ask>(ASK), ASK, what).expect("it can be generated")
    }

    /// Shows that a page made of every kind of flag passes mandoc's lint, where mandoc is installed.
    #[test]
    fn the_man_page_is_clean() {
        let page = text(Generated::Man);
        for word in ["\\-\\-nats", "MESO_ASK_TIMEOUT", "MESO_CLUSTER", "69", VERSION] {
            assert!(page.contains(word), "{word} is missing in:\n{page}");
        }
        assert!(!page.contains('@') && !page.contains("generate"), "{page}");
        let (own, bus) = page.split_once(".SS BUS\n").expect("the flags of the bus stand together");
        assert!(own.contains("\\-\\-count") && bus.contains("\\-\\-nats"), "{page}");
        let mandoc = process::Command::new("mandoc").args(["-Tlint", "-Wstyle"]).stdin(process::Stdio::piped()).stdout(process::Stdio::piped()).spawn();
        let Ok(mut mandoc) = mandoc else {
            // Not a need of the build; the pages of the tools are linted by the packaging tests too.
            return;
        };
        mandoc.stdin.take().expect("it is piped").write_all(page.as_bytes()).expect("mandoc reads its stdin");
        let verdict = mandoc.wait_with_output().expect("mandoc ends");
        let said = String::from_utf8_lossy(&verdict.stdout);
        assert!(verdict.status.success() && said.is_empty(), "{said}\n{page}");
    }

    /// Shows that completions for the three shells name the flags.
    #[test]
    fn completions_name_the_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = text(Generated::Completions(shell));
            assert!(script.contains("timeout") && script.contains("meso-ask"), "{shell}");
        }
    }

    /// Shows that `--generate` counts only as the first word, and that a wrong one is wrong usage.
    #[test]
    fn asked_for_only_as_the_first_word() {
        let args = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        assert!(asked_for(&args(&["t"])).is_none());
        assert!(asked_for(&args(&["t", "--", "--generate", "man"])).is_none());
        assert!(asked_for(&args(&["t", "--generated"])).is_none());
        assert!(matches!(asked_for(&args(&["t", "--generate", "man"])), Some(Ok(Generated::Man))));
        assert!(matches!(asked_for(&args(&["t", "--generate=fish"])), Some(Ok(Generated::Completions(Shell::Fish)))));
        assert!(matches!(asked_for(&args(&["t", "--generate"])), Some(Err(_))));
    }
}
