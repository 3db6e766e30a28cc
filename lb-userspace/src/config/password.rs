//! The password of a peer: a TCP MD5 key that is never shown.
//!
//! Stands between the configuration, which reads it out of a file, and the socket that gets it.
//!
//! Must not: be written to a log, to JSON or into an error.

use std::fmt;

/// The longest password, in bytes (`TCP_MD5SIG_MAXKEYLEN` of Linux).
pub const MAX_PASSWORD: usize = 80;

/// A TCP MD5 key (RFC 2385): 1 to 80 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

/// Why a text is no password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFormat {
    /// It is empty or too long; its bytes.
    #[error("it must hold 1 to {MAX_PASSWORD} bytes and holds {0}")]
    Length(usize),
    /// It has a line end inside, or another control character; counted from 0.
    #[error("it has a line end or another control character at byte {0}")]
    Control(usize),
}

impl Password {
    /// The password that a file holds: its bytes without one line feed at the end.
    ///
    /// # Errors
    /// See [`PasswordFormat`].
    pub fn parse(text: &[u8]) -> Result<Self, PasswordFormat> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        if text.is_empty() || text.len() > MAX_PASSWORD {
            return Err(PasswordFormat::Length(text.len()));
        }
        match text.iter().position(u8::is_ascii_control) {
            Some(at) => Err(PasswordFormat::Control(at)),
            None => Ok(Self(text.to_vec())),
        }
    }

    /// The bytes, for the one place that hands them to the kernel.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_end_is_not_part_of_it() {
        let bytes = |text: &[u8]| Password::parse(text).map(|it| it.bytes().to_vec());
        assert_eq!(bytes(b"s3cret"), Ok(b"s3cret".to_vec()));
        assert_eq!(bytes(b" s3 cret \n"), Ok(b" s3 cret ".to_vec()), "blanks are part of it");
        assert_eq!(bytes(&[b'x'; 80]), Ok(vec![b'x'; 80]));
        assert_eq!(bytes(&[b'x'; 81]), Err(PasswordFormat::Length(81)));
        assert_eq!(bytes(b""), Err(PasswordFormat::Length(0)));
        assert_eq!(bytes(b"\n"), Err(PasswordFormat::Length(0)));
        assert_eq!(bytes(b"x\n\n"), Err(PasswordFormat::Control(1)));
        assert_eq!(bytes(b"x\r\n"), Err(PasswordFormat::Control(1)));
    }

    #[test]
    fn it_is_not_shown() {
        let password = Password::parse(b"s3cret").unwrap();
        assert_eq!(format!("{password:?}"), "Password(..)");
    }
}
