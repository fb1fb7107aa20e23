//! How much room a tree of files takes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The most files that are looked at; a task that left more is counted with these alone, and goes by its age.
const FILES_MAX: usize = 1_000_000;
/// What a file system counts blocks in, bytes.
const BLOCK_BYTES: u64 = 512;

/// The room that a directory takes on the disk with all that is in it, bytes; what cannot be looked at counts as nothing.
///
/// No link is followed. A file of several names counts once for each.
pub fn bytes_of(dir: &Path) -> u64 {
    let mut bytes = 0_u64;
    let mut left: Vec<PathBuf> = vec![dir.to_owned()];
    let mut files = 0;
    while let Some(path) = left.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        bytes = bytes.saturating_add(found.blocks().saturating_mul(BLOCK_BYTES));
        files += 1;
        if files > FILES_MAX {
            break;
        }
        if found.is_dir() {
            let room = FILES_MAX - left.len().min(FILES_MAX);
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()).take(room));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows that all that is below counts, what a link leads to does not, and holes do not either.
    #[test]
    fn a_tree() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let (tree, outside) = (folder.path().join("tree"), folder.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).expect("it is ours");
        let large = vec![1; 1 << 20];
        fs::write(&outside, &large).expect("it is ours");
        std::os::unix::fs::symlink(&outside, tree.join("link")).expect("it is ours");
        std::os::unix::fs::symlink(folder.path(), tree.join("a/link")).expect("it is ours");
        fs::File::create(tree.join("hole")).and_then(|file| file.set_len(1 << 40)).expect("it is ours");
        let few = bytes_of(&tree);
        assert!(few < 1 << 19, "{few}");
        fs::write(tree.join("a/b/large"), &large).expect("it is ours");
        let more = bytes_of(&tree) - few;
        assert!((1 << 20..3 << 19).contains(&more), "{more}");
        assert_eq!(bytes_of(&folder.path().join("none")), 0);
    }
}
