//! The instructions of a built eBPF program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};

use crate::args::Program;
use crate::process;
use crate::report::say;
use crate::tree::Tree;

const OBJDUMP: &str = "/usr/lib/llvm-22/bin/llvm-objdump";

/// Disassembles the newest build of the program, or one symbol of it.
pub(crate) fn run(tree: &Tree, program: Program, symbol: Option<&str>) -> Result<u8> {
    let Some(object) = newest(&tree.target, program.name()) else {
        bail!("no built `{}` below {}; run `cargo build`", program.name(), tree.target.display());
    };
    if !Path::new(OBJDUMP).is_file() {
        bail!("there is no {OBJDUMP}; `cargo xtask setup` installs it");
    }
    let mut command = Command::new(OBJDUMP);
    command.args(["--no-show-raw-insn", "--demangle", "--reloc", "--line-numbers"]);
    match symbol {
        Some(symbol) => command.arg(format!("--disassemble-symbols={symbol}")),
        None => command.arg("--disassemble"),
    };
    command.arg(&object);
    say!("$ {}", process::shown(&command));
    let output = command.output().with_context(|| format!("cannot run {OBJDUMP}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // objdump only warns of a symbol that is not there.
    if let Some(symbol) = symbol.filter(|symbol| !text.contains(&format!("<{symbol}>:"))) {
        bail!("`{}` has no symbol `{symbol}`; without one all of it is shown", program.name());
    }
    say!("{text}");
    Ok(process::code(output.status))
}

/// The newest object of that name among the outputs of the build script. An empty one comes from
/// a build that skipped the programs.
fn newest(target: &Path, name: &str) -> Option<PathBuf> {
    let mut best: Option<(SystemTime, PathBuf)> = None;
    for profile in ["release", "debug"] {
        let Ok(builds) = fs::read_dir(target.join(profile).join("build")) else { continue };
        for build in builds.flatten() {
            if !build.file_name().to_string_lossy().starts_with("lb-userspace-") {
                continue;
            }
            let object = build.path().join("out").join(name);
            let Ok(metadata) = object.metadata() else { continue };
            let Ok(modified) = metadata.modified() else { continue };
            if metadata.len() > 0 && best.as_ref().is_none_or(|(time, _)| modified > *time) {
                best = Some((modified, object));
            }
        }
    }
    best.map(|(_, object)| object)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_newest_object_that_is_not_empty_is_taken() {
        let target = std::env::temp_dir().join(format!("xtask-disasm-{}", std::process::id()));
        let make = |directory: &str, text: &str, age: u64| {
            let out = target.join(directory).join("out");
            fs::create_dir_all(&out).unwrap();
            let path = out.join("balancer");
            fs::write(&path, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - age);
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            path
        };
        assert_eq!(newest(&target, "balancer"), None);
        make("debug/build/lb-userspace-1", "old", 50);
        let expected = make("release/build/lb-userspace-2", "new", 10);
        make("release/build/lb-userspace-3", "", 5);
        make("debug/build/other-4", "newest", 1);
        assert_eq!(newest(&target, "balancer"), Some(expected));
        assert_eq!(newest(&target, "agent"), None);
        fs::remove_dir_all(&target).unwrap();
    }
}
