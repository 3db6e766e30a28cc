//! Child processes, and how a signal reaches them.
//!
//! Every child but a foreground one leads a process group of its own, so that Ctrl-C reaches
//! xtask alone; xtask passes it on to the whole group, waits for it, and its caller then cleans
//! up. Nothing else in xtask starts a process.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::report::complain;

/// The signal that ended the run, 0 for none.
static STOPPED_BY: AtomicI32 = AtomicI32::new(0);

/// What `kill` should be given for the running child: its process group as a negative number, or
/// the pid of a foreground child; 0 while none runs.
static CHILD: AtomicI32 = AtomicI32::new(0);

/// The caller asked to stop; what was begun is to be cleaned up, and nothing new started.
#[derive(Debug)]
pub(crate) struct Stopped(i32);

impl Stopped {
    /// The shell's convention: 128 + the signal's number.
    pub(crate) fn exit_code(&self) -> u8 {
        u8::try_from(self.0 + 128).unwrap_or(1)
    }
}

impl std::error::Error for Stopped {}

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stopped by signal {}", self.0)
    }
}

/// From here on SIGINT, SIGTERM and SIGHUP end the running child instead of xtask.
pub(crate) fn catch_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot catch signals")?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            STOPPED_BY.store(signal, Ordering::SeqCst);
            pass_on(signal, CHILD.load(Ordering::SeqCst));
        }
    });
    Ok(())
}

/// std cannot send a signal but SIGKILL; the shell's built-in can. A child that is gone already
/// is no error.
fn pass_on(signal: i32, child: i32) {
    if child != 0 {
        let kill = format!("kill -s {signal} -- {child}");
        let told = Command::new("/bin/sh").args(["-c", &kill]).stderr(Stdio::null()).status();
        if let Err(error) = told {
            complain(&format!("cannot pass signal {signal} on: {error}"));
        }
    }
}

/// An error if the caller asked to stop.
pub(crate) fn check_stopped() -> Result<()> {
    match STOPPED_BY.load(Ordering::SeqCst) {
        0 => Ok(()),
        signal => Err(Stopped(signal).into()),
    }
}

/// Runs a command to its end; its output passes through. The status is the caller's to judge.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.stdin(Stdio::null()).process_group(0);
    supervise(command, Place::Group, |_| Ok(()))
}

/// Runs a command with the caller's terminal: it gets Ctrl-C itself, and may read the keyboard. It
/// also knows best how it ended: a request to stop is no error here.
pub(crate) fn foreground(command: &mut Command) -> Result<ExitStatus> {
    supervise(command, Place::Foreground, |_| Ok(()))
}

/// As `status`, but anything other than success is an error that names the command.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {}", shown(command), ended(status));
    }
    Ok(())
}

/// Runs a command and gives every line of its stdout to `on_line` as it comes.
pub(crate) fn lines(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<ExitStatus> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    supervise(command, Place::Group, |child| {
        let Some(stdout) = child.stdout.take() else { return Ok(()) };
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? != 0 {
            on_line(String::from_utf8_lossy(&line).trim_end_matches('\n'));
            line.clear();
        }
        Ok(())
    })
}

/// The stdout of a command that must succeed, without its stderr.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    check_stopped()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}: {}", shown(command), ended(output.status), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

enum Place {
    Group,
    Foreground,
}

fn supervise(
    command: &mut Command,
    place: Place,
    read: impl FnOnce(&mut std::process::Child) -> Result<()>,
) -> Result<ExitStatus> {
    check_stopped()?;
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", shown(command)))?;
    let pid = i32::try_from(child.id()).context("a pid beyond i32")?;
    let address = match place {
        Place::Group => -pid,
        Place::Foreground => pid,
    };
    CHILD.store(address, Ordering::SeqCst);
    // A signal between the check above and the store found no child.
    let early = STOPPED_BY.load(Ordering::SeqCst);
    if early != 0 {
        pass_on(early, address);
    }
    let read = read(&mut child);
    let status = child.wait().context("cannot wait for a child");
    CHILD.store(0, Ordering::SeqCst);
    let status = status?;
    if matches!(place, Place::Group) {
        check_stopped()?;
    }
    read?;
    Ok(status)
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    words.join(" ")
}

/// How a process ended, in words.
pub(crate) fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended for an unknown reason".to_owned(),
    }
}

/// The exit code to pass on for a finished child.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| status.signal().unwrap_or(0) + 128);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_arrive_one_by_one() {
        let mut seen = Vec::new();
        let status = lines(&mut shell("echo one; echo; printf three"), |line| {
            seen.push(line.to_owned());
        });
        assert!(status.unwrap().success());
        assert_eq!(seen, ["one", "", "three"]);
    }

    #[test]
    fn failures_name_the_command_and_its_end() {
        let error = run(&mut shell("exit 7")).unwrap_err().to_string();
        assert_eq!(error, "`/bin/sh -c exit 7` failed: exit code 7");
        let error = capture(&mut shell("echo why >&2; false")).unwrap_err().to_string();
        assert!(error.ends_with("exit code 1: why"), "{error}");
        let error = run(&mut Command::new("/nonexistent/program")).unwrap_err().to_string();
        assert_eq!(error, "cannot run `/nonexistent/program`");
    }

    #[test]
    fn exit_codes_pass_on() {
        assert_eq!(code(status(&mut shell("exit 3")).unwrap()), 3);
        assert_eq!(code(status(&mut shell("kill -TERM $$")).unwrap()), 143);
        assert_eq!(Stopped(SIGINT).exit_code(), 130);
    }

    #[test]
    fn a_signal_reaches_the_whole_group() {
        let script = "sleep 60 & echo started; wait";
        let pid = std::cell::Cell::new(0);
        let mut command = shell(script);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        pid.set(i32::try_from(child.id()).unwrap());
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        pass_on(SIGTERM, -pid.get());
        // Ends only when the sleeping grandchild has closed its copy of the pipe.
        line.clear();
        assert_eq!(out.read_line(&mut line).unwrap(), 0);
        assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
    }
}
