//! Finds the binaries under test beside the test executable.

use std::{env, fs, path::PathBuf, sync::OnceLock};

/// What builds them.
const BUILD: &str = "cargo build --workspace --all-features";
/// Text that only a build with faults contains: a value that the switch for the planted bug takes.
const FAULTS: &[u8] = b"ack-before-append";

/// The path of a binary of this workspace, built in the same profile as the tests.
pub fn find(name: &str) -> PathBuf {
    let test = env::current_exe().expect("the path of the test executable");
    // target/<profile>/deps/<test>, or target/<profile>/examples/<test>.
    let folder = test.parent().and_then(|deps| deps.parent());
    let path = folder.expect("a target directory").join(name);
    assert!(
        path.is_file(),
        "there is no {}; build it with `{BUILD}` (and --release if these tests are)",
        path.display()
    );
    path
}

/// As [`find`], for a binary that writes and has to be watched while it does.
pub fn find_with_faults(name: &'static str) -> PathBuf {
    static CHECKED: OnceLock<()> = OnceLock::new();
    let path = find(name);
    CHECKED.get_or_init(|| {
        let bytes = fs::read(&path).expect("read the binary");
        let found = bytes.windows(FAULTS.len()).any(|window| window == FAULTS);
        assert!(
            found,
            "{} was built without faults; build it with `{BUILD}`",
            path.display()
        );
    });
    path
}
