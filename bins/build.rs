//! How programs are linked: small, and the task supervisor statically, so that it starts with few page faults and needs nothing of the host.
//!
//! `-C target-feature=+crt-static` would do it for the whole build only, and a whole static build cannot hold
//! procedural macros. So this one program gets `-static` and a folder in which every system library that std
//! asks for is an archive: rustc says `-Wl,-Bdynamic` before them, and the linker takes what it finds first.
use std::{env, fs, path::PathBuf, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=bins/build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let archive = |name: &str| -> String {
        let found = Command::new("cc").arg(format!("-print-file-name={name}")).output().expect("a C compiler drives the linker, as for every Rust program");
        String::from_utf8_lossy(&found.stdout).trim().to_owned()
    };
    for lib in ["c", "m", "rt", "pthread", "util", "dl"] {
        fs::write(out.join(format!("lib{lib}.a")), format!("INPUT({})\n", archive(&format!("lib{lib}.a")))).expect("OUT_DIR is writable");
    }
    fs::write(out.join("libgcc_s.a"), format!("INPUT({})\n", archive("libgcc_eh.a"))).expect("OUT_DIR is writable");
    // At a fixed place a program needs no half megabyte of relocations, nor the time to work through them at each start.
    println!("cargo:rustc-link-arg-bins=-no-pie");
    if links_with_lld() {
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
    }
    for arg in [format!("-L{}", out.display()), "-static".into(), "-no-pie".into()] {
        println!("cargo:rustc-link-arg-bin=meso-supervisor={arg}");
    }
}

/// Whether the linker is the one that rustc brings along (from 1.90, for this target), which can fold equal functions into one.
fn links_with_lld() -> bool {
    let version = env::var_os("RUSTC").and_then(|rustc| Command::new(rustc).arg("--version").output().ok()).map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok()).unwrap_or(0);
    let is_its_own = env::var_os("RUSTC_LINKER").is_none() && !env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().contains("link");
    let target = env::var("TARGET").unwrap_or_default();
    minor >= 90 && version.starts_with("rustc 1.") && is_its_own && target == "x86_64-unknown-linux-gnu"
}
