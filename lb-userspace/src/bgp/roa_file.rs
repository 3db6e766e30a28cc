//! The file of ROA payloads while lbd runs: looks now and then whether it is another one, and reads
//! it aside, since reading the whole Internet's takes seconds that nobody may wait for.
//!
//! Stands between the file that a validator writes anew every few minutes and the announcer.
//!
//! Must not: judge routes; what cannot be used is an alarm, and what was read before stays.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use super::roa::{VrpError, Vrps};

/// How often it is looked at.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// What differs between two states of a file: device, inode, size in bytes, and the time of the
/// last change, also of its mode, in seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

/// One file. At most one thread reads it.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    /// What was read last, or could not be.
    stamp: Option<Stamp>,
    due: Duration,
    reading: Option<Receiver<Result<Vrps, VrpError>>>,
    failing: Option<String>,
}

impl Watch {
    /// Of a file that was just read; the first look, after [`LOOK_INTERVAL`], reads it again, since
    /// it may have been replaced before this began.
    #[must_use]
    pub const fn new(path: PathBuf, now: Duration) -> Self {
        let due = now.saturating_add(LOOK_INTERVAL);
        Self { path, stamp: None, due, reading: None, failing: None }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the file as it is cannot be used, in one sentence; payloads of before hold on.
    #[must_use]
    pub fn alarm(&self) -> Option<String> {
        let why = self.failing.as_ref()?;
        let path = self.path.display();
        Some(format!("`vrp_file` {path} cannot be used, and what it held before holds on: {why}"))
    }

    /// Looks at the file if that is due, and takes what was read of it; never waits. Call it now
    /// and then, at least as often as payloads are wanted.
    pub fn turn(&mut self, now: Duration) -> Option<Vrps> {
        match self.reading.as_ref().map(Receiver::try_recv) {
            Some(Err(TryRecvError::Empty)) => None,
            Some(Ok(read)) => {
                self.reading = None;
                self.take(read)
            }
            Some(Err(TryRecvError::Disconnected)) => {
                self.reading = None;
                self.take(Err(io::Error::other("its reader has failed").into()))
            }
            None => {
                if self.due <= now {
                    self.due = now.saturating_add(LOOK_INTERVAL);
                    self.look();
                }
                None
            }
        }
    }

    fn look(&mut self) {
        let stamp = fs::metadata(&self.path).map(|it| {
            let change = (it.ctime(), it.ctime_nsec());
            (it.dev(), it.ino(), it.size(), change.0, change.1)
        });
        let begun = match stamp {
            Ok(stamp) if self.stamp == Some(stamp) => return,
            // Before it is read: what is written meanwhile is another state.
            Ok(stamp) => {
                self.stamp = Some(stamp);
                self.read()
            }
            Err(error) => {
                self.stamp = None;
                Err(error)
            }
        };
        if let Err(error) = begun {
            self.take(Err(error.into()));
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let (done, reading) = sync_channel(1);
        let path = self.path.clone();
        std::thread::Builder::new().name("vrps".to_owned()).spawn(move || {
            // Nobody waits any more when another configuration came.
            drop(done.send(Vrps::read(&path)));
        })?;
        self.reading = Some(reading);
        Ok(())
    }

    fn take(&mut self, read: Result<Vrps, VrpError>) -> Option<Vrps> {
        let path = self.path.display();
        match read {
            Ok(vrps) => {
                tracing::info!(%path, payloads = vrps.len(), "ROA payloads, read again");
                self.failing = None;
                Some(vrps)
            }
            Err(error) => {
                let why = error.to_string();
                if self.failing.as_ref() != Some(&why) {
                    tracing::warn!(%path, reason = why, "ROA payloads: the old ones stay");
                }
                self.failing = Some(why);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::boot_time;

    /// How long a small file may take to be read.
    const PATIENCE: Duration = Duration::from_secs(20);
    const ONE: &str =
        r#"{ "roas": [{ "asn": 64496, "prefix": "203.0.113.0/24", "maxLength": 24 }] }"#;

    /// Looks when it is due, and waits for what comes of it.
    fn look(watch: &mut Watch, now: &mut Duration) -> Option<usize> {
        *now += LOOK_INTERVAL;
        let start = boot_time();
        let mut taken = watch.turn(*now);
        while watch.reading.is_some() {
            assert!(boot_time() < start + PATIENCE);
            std::thread::yield_now();
            taken = watch.turn(*now);
        }
        taken.map(|vrps| vrps.len())
    }

    #[test]
    fn what_is_new_is_read_once_and_what_is_wrong_is_told() {
        let directory = std::env::temp_dir().join(format!("lb-vrps-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let [path, other] = ["vrps.json", "vrps.json.new"].map(|name| directory.join(name));
        fs::write(&path, ONE).unwrap();
        let mut now = Duration::from_secs(100);
        let mut watch = Watch::new(path.clone(), now);
        assert!(watch.turn(now).is_none() && watch.reading.is_none(), "not at once");
        assert_eq!(look(&mut watch, &mut now), Some(1));
        assert_eq!(look(&mut watch, &mut now), None, "it is the same");
        // Replaced as validators do it, also by one of the same size.
        fs::write(&other, ONE).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(look(&mut watch, &mut now), Some(1));
        assert!(watch.alarm().is_none());

        fs::write(&path, &ONE[..20]).unwrap();
        assert_eq!(look(&mut watch, &mut now), None);
        assert!(watch.alarm().unwrap().contains("no VRP JSON"), "{:?}", watch.alarm());
        assert_eq!(look(&mut watch, &mut now), None);
        assert!(watch.alarm().is_some(), "as long as it is so");
        fs::write(&path, r#"{ "roas": [] }"#).unwrap();
        assert_eq!(look(&mut watch, &mut now), Some(0));
        assert!(watch.alarm().is_none());

        fs::remove_file(&path).unwrap();
        assert_eq!(look(&mut watch, &mut now), None);
        assert!(watch.alarm().unwrap().contains("No such file"), "{:?}", watch.alarm());
        fs::write(&path, ONE).unwrap();
        assert_eq!(look(&mut watch, &mut now), Some(1));
        assert!(watch.alarm().is_none());
        fs::remove_dir_all(&directory).unwrap();
    }
}
