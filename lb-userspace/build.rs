//! Builds the eBPF programs of `lb-ebpf` into `OUT_DIR`, so that `cargo build` is all it takes.
//!
//! aya-build would do this, but it sets the compiler flags itself, and these programs need two
//! more: the v3 instruction set (32-bit ALU, compare-and-exchange) and unaligned loads, without
//! which every header field is assembled byte by byte (4-7 ns a packet).

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, ensure};

const TARGET: &str = "bpfel-unknown-none";
const PROGRAMS: [&str; 4] = ["balancer", "agent", "probe", "bench"];
const RUSTFLAGS: [&str; 4] = [
    "-Cdebuginfo=2",
    "-Clink-arg=--btf",
    "-Ctarget-cpu=v3",
    "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
];

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=LB_SKIP_EBPF");
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    if env::var_os("LB_SKIP_EBPF").is_some() {
        for program in PROGRAMS {
            fs::write(out.join(program), [])?;
        }
        return Ok(());
    }
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("no manifest dir")?);
    let root = root.parent().context("the manifest has no parent")?;
    for source in ["lb-ebpf", "lb-common", "target/tools/bin/bpf-linker"] {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    let target_dir = out.join("ebpf");
    let status = Command::new(env::var_os("CARGO").context("CARGO is not set")?)
        .args(["build", "--package", "lb-ebpf", "--bins", "--release", "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(&target_dir)
        .current_dir(root)
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"))
        // build-std is unstable; this lets the stable compiler do it, for this child only.
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC")
        .status()
        .context("cannot run cargo for lb-ebpf")?;
    ensure!(
        status.success(),
        "building lb-ebpf failed; `cargo xtask setup` installs what it needs"
    );
    for program in PROGRAMS {
        fs::copy(target_dir.join(TARGET).join("release").join(program), out.join(program))?;
    }
    Ok(())
}
