//! Writes frames where Wireshark can read them, for a case that failed.

use std::io;
use std::path::{Path, PathBuf};

/// The classic file header: native magic, version 2.4, snap length 65,535, Ethernet.
fn header() -> Vec<u8> {
    let mut bytes = 0xa1b2_c3d4_u32.to_le_bytes().to_vec();
    bytes.extend([2, 0, 4, 0]);
    bytes.extend([0; 8]);
    bytes.extend(65_535_u32.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes
}

/// The file of these frames; the first at time 0, each next a second later.
#[must_use]
pub fn file(frames: &[&[u8]]) -> Vec<u8> {
    let mut bytes = header();
    for (second, frame) in frames.iter().enumerate() {
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        bytes.extend(u32::try_from(second).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(length.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(*frame);
    }
    bytes
}

/// Writes `target/packets/<name>.pcap`; where it is.
///
/// # Errors
/// The file system says no.
pub fn write(name: &str, frames: &[&[u8]]) -> io::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/packets");
    std::fs::create_dir_all(&directory)?;
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = directory.join(format!("{name}.pcap"));
    std::fs::write(&path, file(frames))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_file_has_one_record_for_each_frame() {
        let bytes = super::file(&[&[1, 2, 3], &[4]]);
        assert_eq!(bytes.len(), 24 + 16 + 3 + 16 + 1);
        assert_eq!(bytes[24 + 8..24 + 19], [3, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3]);
    }
}
