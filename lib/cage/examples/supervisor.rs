//! The supervisor as the tests use it: the same program, linked as cargo links by default
fn main() -> std::process::ExitCode {
    meso_cage::supervisor::main()
}
