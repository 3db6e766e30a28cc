//! Running other programs, with errors that say which command failed and what it said.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{kernel, wait};

/// How much of a program's log an error shows.
const LOG_TAIL_BYTES: usize = 2_000;
/// Longer than any notification.
const NOTIFICATION_BYTES: usize = 4_096;
/// How long a program may take to end after SIGTERM.
const TERMINATE_DEADLINE: Duration = Duration::from_secs(10);

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
/// It cannot be started, or ends with another status than 0; the error quotes its stderr.
pub fn run(command: &mut Command) -> Result<String> {
    run_with_input(command, "")
}

/// Runs `command` with `input` on its standard input, else as [`run`].
///
/// # Errors
/// As [`run`].
pub fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let line = line_of(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run `{line}`"))?;
    // A thread of its own, so that a program that answers before it has read all cannot block us.
    let writer = child.stdin.take().map(|mut stdin| {
        let input = input.to_owned();
        std::thread::spawn(move || stdin.write_all(input.as_bytes()))
    });
    let output = child.wait_with_output().with_context(|| format!("cannot wait for `{line}`"))?;
    if let Some(writer) = writer {
        // A program that ended early broke the pipe; its status says more than ours would.
        drop(writer.join());
    }
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{line}`: {}: {}{stdout}", output.status, stderr.trim());
    Ok(stdout)
}

/// The command as one would type it.
fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A program that runs in the background and is killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; both its outputs go to the end of `log`.
    ///
    /// # Errors
    /// The log cannot be opened or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot open {}", log.display()))?;
        let line = line_of(command);
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            // Ctrl-C at the terminal is for us; we end our children in our own order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run `{line}`"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Fails, with the end of its log, when the program has ended by itself.
    ///
    /// # Errors
    /// It has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended: {status}\n{}", self.name, tail(&self.log));
        }
        Ok(())
    }

    /// SIGKILL, as by `kill -9`, and waits for its end.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGHUP.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn hang_up(&self) -> Result<()> {
        kernel::hang_up(self.child.id())
    }

    /// SIGSTOP: it stands still, with all its sockets open.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn freeze(&self) -> Result<()> {
        kernel::freeze(self.child.id())
    }

    /// SIGCONT: it goes on.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn resume(&self) -> Result<()> {
        kernel::resume(self.child.id())
    }

    /// SIGTERM, and does not wait for its end.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn ask_to_end(&self) -> Result<()> {
        kernel::terminate(self.child.id())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, and waits for its end.
    ///
    /// # Errors
    /// It still runs after ten seconds, or ends with another status than 0.
    pub fn terminate(mut self) -> Result<()> {
        kernel::terminate(self.child.id())?;
        let mut status = None;
        wait::until(&format!("{} ends after SIGTERM", self.name), TERMINATE_DEADLINE, || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        match status {
            Some(status) if !status.success() => {
                bail!("{} after SIGTERM: {status}\n{}", self.name, tail(&self.log))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing is left to do when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The service manager's end of sd_notify(3), for one program.
#[derive(Debug)]
pub struct Readiness {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Readiness {
    /// Listens at `path` for what `command` will say of itself.
    ///
    /// # Errors
    /// There can be no socket, for example as the path is too long for one.
    pub fn of(command: &mut Command, path: PathBuf) -> Result<Self> {
        // Of a program that was killed.
        drop(std::fs::remove_file(&path));
        let socket = UnixDatagram::bind(&path)
            .with_context(|| format!("cannot listen at {}", path.display()))?;
        socket.set_nonblocking(true)?;
        command.env("NOTIFY_SOCKET", &path);
        Ok(Self { socket, path })
    }

    /// Waits until the program says that it is ready.
    ///
    /// # Errors
    /// It ends, or says nothing within `deadline`.
    pub fn wait(&self, process: &mut Process, deadline: Duration) -> Result<()> {
        let mut buffer = [0; NOTIFICATION_BYTES];
        wait::until(&format!("{} is ready", process.name), deadline, || {
            process.check_alive()?;
            let Ok(length) = self.socket.recv(&mut buffer) else { return Ok(false) };
            let text = String::from_utf8_lossy(&buffer[..length]);
            Ok(text.lines().any(|line| line == "READY=1"))
        })
        .with_context(|| tail(&process.log))
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}

/// The end of a log, for an error message.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut start = text.len().saturating_sub(LOG_TAIL_BYTES);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    format!("{}:\n{}", log.display(), &text[start..])
}
