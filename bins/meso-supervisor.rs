//! meso-supervisor: stands over one task; started by meso-agent, never by hand
fn main() -> std::process::ExitCode {
    meso_cage::supervisor::main()
}
