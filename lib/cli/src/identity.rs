//! Who runs a tool, and numbers that nobody else draws
use crate::Failure;

/// Who runs this, for people: user@host:pid.
pub fn who() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| format!("uid-{}", rustix::process::getuid().as_raw()));
    format!("{user}@{}:{}", host().trim(), std::process::id())
}

/// 64 random bits of the system.
///
/// # Errors
/// The system gives none.
pub fn random() -> Result<u64, Failure> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| Failure::failed(format!("the system gives no random numbers: {error}")))?;
    Ok(u64::from_le_bytes(bytes))
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default()
}
