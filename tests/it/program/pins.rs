//! Pins on a real BPF file system: what an lbd leaves is whole, and the next one goes on with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use lb_common::backend::BackendId;
use lb_common::map_name;
use lb_tests::lab::kernel::is_root;
use lb_tests::packet::{ACK, Ip, SYN, TCP};
use lb_userspace::dataplane::{Dataplane, Error, Sizes};

use super::counters::Counted;
use super::fixtures::in_kernel;
use super::world::{CLIENT_V4, HISTORY4, fill, number, settings, sizes, vip_v4};

/// A pin path of its own, removed at the end.
pub(super) struct Pins(PathBuf);

impl Pins {
    /// `None`, said aloud, when we may not pin.
    pub(super) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !is_root() {
            println!("SKIP: only root may pin maps");
            return None;
        }
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("lbtest-program-{}-{next}", std::process::id());
        Some(Self(Path::new("/sys/fs/bpf").join(name)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn create(&self) -> Dataplane {
        let mut dataplane = Dataplane::create(&self.0, &sizes()).unwrap();
        fill(&mut dataplane);
        dataplane
    }

    pub(super) fn reopen(&self) -> Dataplane {
        Dataplane::reopen(&self.0).unwrap().unwrap()
    }

    /// What lies in the directory of this build's pins.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.version()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn version(&self) -> PathBuf {
        self.0.join(format!("v{}", lb_common::ABI_VERSION))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let versions = fs::read_dir(&self.0).into_iter().flatten().flatten();
        for version in versions {
            for pin in fs::read_dir(version.path()).into_iter().flatten().flatten() {
                drop(fs::remove_file(pin.path()));
            }
            drop(fs::remove_dir(version.path()));
        }
        drop(fs::remove_dir(&self.0));
    }
}

#[test]
fn the_next_lbd_goes_on_where_the_last_one_stopped() {
    let Some(pins) = Pins::new() else { return };
    assert!(Dataplane::reopen(pins.path()).unwrap().is_none());
    let mut first = pins.create();
    first.set_journal(b"what lbd knows").unwrap();
    let flow = Ip::new(CLIENT_V4, vip_v4(HISTORY4));
    let frames = [flow.tcp(7, 80, SYN, b""), flow.tcp(7, 80, ACK, b"")].map(|p| p.frame());
    let answers: Vec<_> = frames.iter().map(|frame| in_kernel(&first, frame)).collect();
    let flows: Vec<_> = first.flows().collect();
    let counted = Counted::read(&first);
    assert_eq!(flows.len(), 1);
    drop(first);

    let mut second = pins.reopen();
    assert_eq!(second.sizes(), sizes());
    assert_eq!(second.journal(), Some(b"what lbd knows".to_vec()));
    assert_eq!(second.flows().collect::<Vec<_>>(), flows);
    assert_eq!(Counted::read(&second), counted);
    // It answers the same, before it has set anything.
    let again: Vec<_> = frames.iter().map(|frame| in_kernel(&second, frame)).collect();
    assert_eq!(again, answers);
    // A new table does not lie over one that is in use.
    for generation in 0..20 {
        second.publish_table(1, &[1; 251], &[[0; 4]; 251], generation).unwrap();
    }
    assert_eq!(in_kernel(&second, &frames[1]), answers[1]);
    let vip = number(HISTORY4, false, TCP);
    let wanted = counted.plus(vip, lb_common::verdict::Outcome::Tx, 7, frames[0].len());
    let wanted = wanted.plus(vip, lb_common::verdict::Outcome::Tx, 7, frames[1].len());
    let wanted = wanted.plus(vip, lb_common::verdict::Outcome::Tx, 7, frames[1].len());
    assert_eq!(Counted::read(&second), wanted);
    assert_eq!(second.remove_owner(BackendId(7)), 1);
}

#[test]
fn unloading_leaves_nothing() {
    let Some(pins) = Pins::new() else { return };
    assert_eq!(Dataplane::unload(pins.path()).unwrap(), Vec::<String>::new());
    let dataplane = pins.create();
    assert!(pins.names().is_superset(&BTreeSet::from([
        map_name::CONTROL.to_owned(),
        map_name::FLOWS.to_owned(),
        map_name::JOURNAL.to_owned(),
    ])));
    let names = pins.names();
    let removed = Dataplane::unload(pins.path()).unwrap();
    assert_eq!(removed.len(), names.len(), "{removed:?}");
    assert!(!pins.path().exists());
    drop(dataplane);
    assert!(Dataplane::reopen(pins.path()).unwrap().is_none());
}

#[test]
fn pins_of_another_layout_and_of_others_are_left_alone() {
    let Some(pins) = Pins::new() else { return };
    let other = pins.path().join("v999");
    fs::create_dir_all(&other).unwrap();
    let error = Dataplane::reopen(pins.path()).err().unwrap();
    assert!(matches!(&error, Error::OtherVersion { found, .. } if found == "v999"), "{error}");
    assert!(other.exists());
    fs::remove_dir(&other).unwrap();
    let foreign = pins.path().join("others");
    fs::create_dir(&foreign).unwrap();
    let error = Dataplane::reopen(pins.path()).err().unwrap();
    assert!(matches!(&error, Error::Foreign { found, .. } if *found == foreign), "{error}");
    let error = Dataplane::unload(pins.path()).unwrap_err();
    assert!(matches!(&error, Error::Foreign { .. }), "{error}");
    fs::remove_dir(&foreign).unwrap();
}

#[test]
fn pins_that_are_not_whole_are_refused_and_kept() {
    let Some(pins) = Pins::new() else { return };
    drop(pins.create());
    let all = pins.names();
    for name in &all {
        let pin = pins.version().join(name);
        let aside = pins.version().join("aside");
        fs::rename(&pin, &aside).unwrap();
        let error = Dataplane::reopen(pins.path()).err().unwrap();
        assert!(matches!(&error, Error::Broken { reason, .. } if reason.contains(name)), "{error}");
        fs::rename(&aside, &pin).unwrap();
        assert_eq!(pins.names(), all, "{name}");
    }
    // A map of another shape in the place of one.
    for (name, shape) in [
        (map_name::FLOWS, map_name::BACKEND_COUNTERS),
        (map_name::BACKENDS, map_name::JOURNAL),
        (map_name::JOURNAL, map_name::CONTROL),
        (map_name::VIP_COUNTERS, map_name::BACKEND_COUNTERS),
        (map_name::DROPS, map_name::SLOTS),
    ] {
        let [pin, other] = [name, shape].map(|name| pins.version().join(name));
        let aside = pins.version().join("aside");
        fs::rename(&pin, &aside).unwrap();
        fs::hard_link(&other, &pin).unwrap();
        let error = Dataplane::reopen(pins.path()).err().unwrap();
        assert!(matches!(error, Error::Broken { .. }), "{shape} for {name}: {error}");
        fs::remove_file(&pin).unwrap();
        fs::rename(&aside, &pin).unwrap();
        assert_eq!(pins.names(), all, "{name}");
    }
    drop(pins.reopen());
}

#[test]
fn maps_of_one_lbd_are_not_made_anew_by_another() {
    let Some(pins) = Pins::new() else { return };
    let mut first = pins.create();
    first.set_journal(b"first").unwrap();
    let names = pins.names();
    // Other sizes, as from another configuration.
    let other = Sizes { flow_buckets: sizes().flow_buckets * 2, ..sizes() };
    for sizes in [other, sizes()] {
        let error = Dataplane::create(pins.path(), &sizes).err().unwrap();
        assert!(matches!(error, Error::Broken { .. }), "{error}");
        assert_eq!(pins.names(), names);
    }
    drop(first);
    let mut second = pins.reopen();
    assert_eq!(second.journal(), Some(b"first".to_vec()));
    second.set_settings(&settings(250));
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let Some(pins) = Pins::new() else { return };
    // More than the kernel gives to one map.
    let sizes = Sizes { flow_buckets: 1 << 31, ..sizes() };
    let error = Dataplane::create(pins.path(), &sizes).err().unwrap();
    assert!(matches!(error, Error::Load(_)), "{error}");
    assert!(!pins.path().exists());
    let nowhere = Path::new("/proc/no/such/place");
    let error = Dataplane::create(nowhere, &sizes).err().unwrap();
    assert!(matches!(error, Error::Pin { .. }), "{error}");
}
