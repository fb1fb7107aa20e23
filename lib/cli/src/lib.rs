//! What the tools share: flags, lines, tables, errors, exit codes, man pages
