//! Records how this binary was built. The report shows it, since the figures depend on it.

use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let variable = |name| env::var(name).unwrap_or_default();
    let compiler = Command::new(variable("RUSTC")).arg("--version").output();
    let compiler = compiler.map_or_else(
        |_| "an unknown compiler".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    println!("cargo:rustc-env=LOADTEST_COMPILER={compiler}");
    println!("cargo:rustc-env=LOADTEST_PROFILE={}", variable("PROFILE"));
    println!(
        "cargo:rustc-env=LOADTEST_OPT_LEVEL={}",
        variable("OPT_LEVEL")
    );
}
