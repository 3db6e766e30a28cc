//! Reads the configuration's files and the cluster secret from disk.
//!
//! The one part of the room that touches files; what is in them is judged elsewhere. Sizes are
//! bounded, so that a wrong path cannot fill the memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::diagnostic::{Finding, Id, Report, Source};
use super::password::{Password, PasswordFormat};
use crate::desired::Secret;

/// The largest file that is read: ten times 30,000 backends, one a line.
const MAX_FILE_BYTES: u64 = 32 << 20;

/// The most files beside the main one.
const MAX_FRAGMENTS: usize = 4_096;

/// The largest secret file that is read; the secret is 32 bytes, blanks may stand around it.
const MAX_SECRET_BYTES: u64 = 4_096;

/// The most of a password file that is read: enough to say how much too long it is.
const MAX_PASSWORD_FILE_BYTES: u64 = 4_096;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file cannot be opened or read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// Its group or everybody may read or write it; the mode's last nine bits.
    #[error("its mode is {0:04o}")]
    Permissions(u32),
    /// What it holds is no password.
    #[error("{0}")]
    Format(#[from] PasswordFormat),
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be opened or read.
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    /// Its group or everybody may read or write it; the mode's last nine bits.
    #[error("its mode is {0:04o}")]
    Permissions(u32),
    /// It does not hold 32 hex digits; how many bytes there are instead of them.
    #[error("it does not hold 32 hex digits (there are {0} bytes)")]
    Format(usize),
}

/// Reads the main file and those beside it: for `lb.toml`, `lb.toml.d/*.toml` by name.
///
/// # Errors
/// A report that names each file that cannot be read, is too large or is not UTF-8.
pub fn read_sources(path: &Path) -> Result<Vec<Source>, Report> {
    let mut sources = Vec::new();
    let mut findings = Vec::new();
    let fragments = fragments(path).unwrap_or_else(|(directory, error)| {
        findings.push(unreadable(&directory, &error));
        Vec::new()
    });
    for path in std::iter::once(path.to_owned()).chain(fragments) {
        match read_text(&path) {
            Ok(text) => sources.push(Source { path, text }),
            Err(error) => findings.push(unreadable(&path, &error)),
        }
    }
    match findings.is_empty() {
        true => Ok(sources),
        false => Err(Report::new(sources, findings)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Finding {
    Finding::general(Id::Unreadable, format!("cannot read {}: {error}", path.display()))
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > MAX_FILE_BYTES) {
        return Err(io::Error::other(format!("more than {} MiB", MAX_FILE_BYTES >> 20)));
    }
    Ok(text)
}

/// The `*.toml` files in the directory `path` + `.d`, by name; none if there is no directory.
fn fragments(path: &Path) -> Result<Vec<PathBuf>, (PathBuf, io::Error)> {
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    let directory = PathBuf::from(directory);
    let list = || {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let hidden = path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
            if path.extension().is_some_and(|extension| extension == "toml") && !hidden {
                paths.push(path);
            }
        }
        if paths.len() > MAX_FRAGMENTS {
            return Err(io::Error::other(format!("more than {MAX_FRAGMENTS} files")));
        }
        paths.sort();
        Ok(paths)
    };
    match list() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(|error| (directory.clone(), error)),
    }
}

/// Reads the cluster secret.
///
/// # Errors
/// See [`SecretError`].
pub fn read_secret(path: &Path) -> Result<Secret, SecretError> {
    let bytes = match read_private(path, MAX_SECRET_BYTES)? {
        Private::Bytes(bytes) => bytes,
        Private::Shared(mode) => return Err(SecretError::Permissions(mode)),
    };
    parse_secret(&bytes).ok_or(SecretError::Format(bytes.len()))
}

/// Reads a peer's password.
///
/// # Errors
/// See [`PasswordError`].
pub fn read_password(path: &Path) -> Result<Password, PasswordError> {
    match read_private(path, MAX_PASSWORD_FILE_BYTES)? {
        Private::Bytes(bytes) => Ok(Password::parse(&bytes)?),
        Private::Shared(mode) => Err(PasswordError::Permissions(mode)),
    }
}

/// A file that only its owner should be able to read.
enum Private {
    /// The first bytes of it.
    Bytes(Vec<u8>),
    /// Others can read or write it, and it was not read; the mode's last nine bits.
    Shared(u32),
}

/// Reads a private file. It is checked when it is open, so that it cannot be swapped between.
fn read_private(path: &Path, max: u64) -> io::Result<Private> {
    /// Group and others, to read, write or run.
    const OTHERS: u32 = 0o077;
    // Without it, opening a pipe would wait for its writer for ever.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if metadata.mode() & OTHERS != 0 {
        return Ok(Private::Shared(metadata.mode() & 0o777));
    }
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(Private::Bytes(bytes))
}

/// Two hex digits a byte, first byte first; blanks and line ends around them do not count.
fn parse_secret(text: &[u8]) -> Option<Secret> {
    let (pairs, []) = text.trim_ascii().as_chunks::<2>() else { return None };
    let mut bytes = [0; 16];
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(Secret::new(bytes))
}
