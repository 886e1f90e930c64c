//! Cleans up after the process that started a server, however that process ends.
//!
//! A shell waits for its standard input to close, which the kernel does even for a process that was
//! killed; then it ends the servers whose ids stand in the folder and removes the folder.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

/// `$1`: the folder; `$2`: the file in it whose first line is the server's id.
const SCRIPT: &str = r#"
read -r _
if read -r server <"$1/$2"; then
  kill -QUIT "$server"
  n=0
  while kill -0 "$server" && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
  kill -KILL "$server"
fi
rm -rf "$1"
"#;

/// Waits for the end of this process.
#[derive(Debug)]
pub(crate) struct Janitor(Child);

impl Janitor {
    /// For the server whose id is in the first line of `pid_file` in `folder`.
    pub(crate) fn hire(folder: &Path, pid_file: &str) -> Self {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "janitor"])
            .arg(folder)
            .arg(pid_file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start a shell");
        Self(child)
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        // Closing its input is what it waits for.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
