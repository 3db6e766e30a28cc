//! Tests of the room as a whole: cases are files, `NAME.toml` in and `NAME.txt` out.
//!
//! `UPDATE=1 cargo test -p lb-userspace --lib config` writes what is out of date; read the diff.
//! A line `# file: PATH` in a case begins another file of the same configuration.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::diagnostic::{Id, Report, Source};
use super::files::{PasswordError, SecretError};
use super::{Loaded, Password, Readers, check, load, reference, schema};
use crate::bgp::roa::{VrpError, Vrps};
use crate::desired::{Secret, Tracking, Via, VipKey};

/// Secrets by the path that a case names.
fn secret(path: &Path) -> Result<Secret, SecretError> {
    match path.to_str() {
        Some("/secret/missing") => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        Some("/secret/open") => Err(SecretError::Permissions(0o644)),
        Some("/secret/short") => Err(SecretError::Format(31)),
        Some("/secret/weak") => Ok(Secret::new([0; 16])),
        _ => Ok(Secret::new([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])),
    }
}

fn sources(text: &str) -> Vec<Source> {
    let mut path = PathBuf::from("lb.toml");
    let mut sources = Vec::new();
    let mut lines = String::new();
    for line in text.split_inclusive('\n') {
        if let Some(next) = line.strip_prefix("# file: ") {
            let text = std::mem::take(&mut lines);
            let path = std::mem::replace(&mut path, PathBuf::from(next.trim_end()));
            sources.push(Source { path, text });
        } else {
            lines.push_str(line);
        }
    }
    sources.push(Source { path, text: lines });
    sources
}

/// Passwords by the path that a case names.
fn password(path: &Path) -> Result<Password, PasswordError> {
    match path.to_str() {
        Some("/password/missing") => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        Some("/password/open") => Err(PasswordError::Permissions(0o640)),
        Some("/password/empty") => Ok(Password::parse(b"\n")?),
        _ => Ok(Password::parse(b"s3cret")?),
    }
}

/// Validated ROA payloads by the path that a case names.
fn vrps(path: &Path) -> Result<Vrps, VrpError> {
    match path.to_str() {
        Some("/vrps/missing") => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        Some("/vrps/none") => Ok(Vrps::default()),
        Some("/vrps/large") => Err(VrpError::TooLarge),
        _ => Vrps::parse(
            br#"{ "roas": [
                { "asn": "AS64496", "prefix": "203.0.113.0/24", "maxLength": 24 },
                { "asn": "AS64497", "prefix": "198.51.100.0/24", "maxLength": 24 },
                { "asn": "AS64498", "prefix": "198.51.100.0/24", "maxLength": 24 },
                { "asn": "AS64499", "prefix": "198.51.100.0/24", "maxLength": 24 },
                { "asn": "AS64500", "prefix": "198.51.100.0/24", "maxLength": 24 }
            ] }"#,
        ),
    }
}

const READERS: Readers<'_> = Readers { secret: &secret, password: &password, vrps: &vrps };

pub(super) fn load_text(text: &str) -> Result<Loaded, Report> {
    check(sources(text), &READERS)
}

/// Compares a committed text with what it should be, or writes it.
fn expect(path: &Path, actual: &str) -> Result<(), String> {
    if fs::read_to_string(path).is_ok_and(|expected| expected == actual) {
        return Ok(());
    }
    if std::env::var_os("UPDATE").is_some() {
        return fs::write(path, actual).map_err(|error| error.to_string());
    }
    Err(format!("{} is out of date (UPDATE=1 writes it); now:\n{actual}", path.display()))
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn each_case_says_what_its_text_says() {
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for entry in fs::read_dir(root().join("src/config/cases")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let report = match load_text(&fs::read_to_string(&path).unwrap()) {
            Ok(loaded) => loaded.warnings,
            Err(report) => report,
        };
        let text = report.render(false);
        seen.extend(report.findings().iter().map(super::diagnostic::Finding::id));
        wrong.extend(expect(&path.with_extension("txt"), &text).err());
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if let Some(id) = Id::ALL.iter().find(|id| id.word() == name) {
            let found = report.findings().iter().any(|finding| finding.id() == *id);
            assert!(found, "case {name} does not show its finding:\n{text}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What only a disk can show is tested below.
    let on_disk = [Id::Unreadable];
    let missing: Vec<&str> = (Id::ALL.iter())
        .filter(|id| !seen.contains(id) && !on_disk.contains(id))
        .map(|id| id.word())
        .collect();
    assert!(missing.is_empty(), "findings without a case: {missing:?}");
}

#[test]
fn the_example_is_taken_without_a_finding() {
    let loaded = load_text(reference::example()).unwrap_or_else(|r| panic!("{}", r.render(false)));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.render(false));
    let desired = loaded.desired;
    assert_eq!(desired.vips.len(), 7);
    let web = desired.pools["web"].health.as_ref().unwrap();
    assert_eq!((web.port, web.via), (80, Via::Tunnel([203, 0, 113, 10].into())));
    let key: VipKey = "203.0.113.53:53/udp".parse().unwrap();
    assert_eq!(desired.vips[&key].tracking, Tracking::Stateless);
    let key: VipKey = "203.0.113.10:443/udp".parse().unwrap();
    assert_eq!(desired.vips[&key].tracking, Tracking::Always);
    assert_eq!(desired.vips[&key].flow_timeouts.udp.as_secs(), 60);
    assert!(!format!("{desired:?}").contains("Secret"));
}

#[test]
fn the_example_lacks_nothing_but_its_secret() {
    let text = reference::example().replace("/etc/lb/secret", "/nonexistent/secret");
    let directory = Directory::new("example");
    let report = load(&directory.write("lb.toml", text.as_bytes(), 0o644)).unwrap_err();
    let ids: Vec<Id> = report.findings().iter().map(super::diagnostic::Finding::id).collect();
    assert_eq!(ids, [Id::SecretUnreadable], "{}", report.render(false));
}

#[test]
fn the_example_shows_every_key_and_its_default() {
    let example = reference::example();
    for section in schema::SECTIONS {
        for key in section.keys.iter().filter(|_| !std::ptr::eq(section, &schema::VIP_TIMEOUT)) {
            let shown = example.contains(&format!("{} = ", key.name));
            assert!(shown, "{} `{}` is not in the example", section.header, key.name);
        }
    }
    // Take every comment that is a key for real: the defaults that it shows must be the defaults.
    let mut text = String::new();
    for line in example.lines() {
        match line.strip_prefix("# ").filter(|rest| is_setting(rest)) {
            Some(setting) if !setting.starts_with("group") && !setting.starts_with("port") => {
                text.push_str(setting);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    let spelled_out = load_text(&text).unwrap_or_else(|r| panic!("{}", r.render(false)));
    assert_eq!(spelled_out.desired, load_text(example).unwrap().desired);
}

/// The example with its part about BGP in force.
pub(super) fn with_bgp(example: &str) -> String {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with([' ', '#']) => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    example.lines().map(uncommented).collect()
}

#[test]
fn the_example_of_bgp_is_taken_when_its_marks_are_removed() {
    let loaded = load_text(&with_bgp(reference::example()))
        .unwrap_or_else(|r| panic!("{}", r.render(false)));
    let found: Vec<Id> = loaded.warnings.findings().iter().map(|it| it.id()).collect();
    // It shows both, and the payloads here do not know its IPv6 prefix.
    assert_eq!(found, [Id::BfdGracefulRestart, Id::RoaNotFound]);
    let bgp = loaded.desired.bgp.unwrap();
    assert_eq!((bgp.peers.len(), bgp.prefixes.len(), bgp.shedding.len()), (2, 2, 2));
    assert_eq!(loaded.passwords["edge1"].bytes(), b"s3cret");
}

fn is_setting(text: &str) -> bool {
    let word = text.split(" = ").next().unwrap_or_default();
    text.contains(" = ") && word.chars().all(|c| c.is_ascii_lowercase() || "_6".contains(c))
}

#[test]
fn the_reference_is_up_to_date() {
    let path = root().join("../docs/config.md");
    expect(&path, &reference::markdown()).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn the_defaults_are_a_file_that_reads_as_the_defaults() {
    let text = reference::defaults();
    let filled = text
        .replacen("# name =\n", "name = \"lb1\"\n", 1)
        .replacen(
            "# secret_file =\n",
            "secret_file = \"/etc/lb/secret\"\naddress = \"192.0.2.1\"\n",
            1,
        )
        .replacen("# interfaces =\n", "interfaces = [\"eth0\"]\n", 1);
    let all = load_text(&filled).unwrap_or_else(|r| panic!("{}", r.render(false)));
    let least = "version = 1\n[node]\nname = \"lb1\"\naddress = \"192.0.2.1\"\n\
                 secret_file = \"/etc/lb/secret\"\n[dataplane]\ninterfaces = [\"eth0\"]\n\
                 [metrics]\n";
    assert_eq!(all.desired, load_text(least).unwrap().desired);
}

/// How pool `web` is probed, given the node's addresses, the check's keys and the VIPs (each its
/// address, protocol, ports and pool).
fn via(node: &str, check: &str, vips: &[(&str, &str, &str, &str)]) -> Via {
    let mut text = format!(
        "version = 1\n[node]\nname = \"lb1\"\n{node}\nsecret_file = \"/etc/lb/secret\"\n\
         [dataplane]\ninterfaces = [\"eth0\"]\n[health.connect]\nkind = \"tcp\"\n{check}\n"
    );
    text += "[[pool]]\nname = \"web\"\nhealth = \"connect\"\nbackends = []\n";
    text += "[[pool]]\nname = \"other\"\nbackends = []\n";
    for (index, (address, protocol, ports, pool)) in vips.iter().enumerate() {
        text += &format!(
            "[[vip]]\nname = \"v{index}\"\naddress = \"{address}\"\n\
             protocol = \"{protocol}\"\nports = {ports}\npool = \"{pool}\"\n"
        );
    }
    let loaded = load_text(&text).unwrap_or_else(|r| panic!("{}", r.render(false)));
    loaded.desired.pools["web"].health.as_ref().unwrap().via
}

#[test]
fn a_probe_goes_to_a_vip_that_leads_to_its_pool() {
    const BOTH: &str = "address = \"192.0.2.11\"\naddress6 = \"2001:db8::11\"";
    const V4: &str = "address = \"192.0.2.11\"";
    const V6: &str = "address6 = \"2001:db8::11\"";
    let tunnel = |vip: &str| Via::Tunnel(vip.parse().unwrap());
    let web = ("203.0.113.1", "tcp", "[80, 443]", "web");
    let web6 = ("2001:db8:53::1", "tcp", "[80]", "web");
    let any = ("203.0.113.2", "tcp", "\"any\"", "web");
    let udp = ("203.0.113.3", "udp", "[80]", "web");
    let taken = ("203.0.113.2", "tcp", "[80]", "other");
    let first = tunnel("203.0.113.1");
    assert_eq!(via(BOTH, "port = 80", &[web6, web, udp]), first, "IPv4 first");
    assert_eq!(via(BOTH, "via = \"tunnel\"\nport = 443", &[web6, web]), first);
    assert_eq!(via(BOTH, "via = \"direct\"\nport = 443", &[web]), Via::Direct);
    assert_eq!(via(V4, "port = 80", &[web6]), Via::Direct, "no address to start from");
    assert_eq!(via(V6, "port = 80", &[web, web6]), tunnel("2001:db8:53::1"));
    assert_eq!(via(BOTH, "port = 80", &[udp]), Via::Direct, "UDP has no connections");
    assert_eq!(via(BOTH, "port = 8080", &[web]), Via::Direct, "another port");
    assert_eq!(via(BOTH, "port = 80", &[any]), tunnel("203.0.113.2"));
    assert_eq!(via(BOTH, "port = 80", &[any, taken]), Via::Direct, "a VIP of another pool");
    assert_eq!(via(BOTH, "port = 81", &[any, taken]), tunnel("203.0.113.2"));
}

#[test]
fn desired_survives_json() {
    let desired = load_text(reference::example()).unwrap().desired;
    let json = serde_json::to_string(&desired).unwrap();
    assert!(json.contains("\"203.0.113.10:443/tcp\""), "{json}");
    assert!(json.contains("\"via\":{\"tunnel\":\"203.0.113.10\"}"), "{json}");
    let read: crate::desired::Desired = serde_json::from_str(&json).unwrap();
    assert_eq!(read, desired);
}

/// A directory that goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lb-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

const SECRET: &[u8] = b"000102030405060708090a0B0C0d0e0f\n";

fn main_file(directory: &Directory) -> String {
    let secret = directory.0.join("secret");
    format!(
        "version = 1\n[node]\nname = \"lb1\"\naddress = \"192.0.2.1\"\nsecret_file = {secret:?}\n\
         [dataplane]\ninterfaces = [\"eth0\"]\n"
    )
}

#[test]
fn files_beside_the_main_one_are_read_by_name() {
    let directory = Directory::new("fragments");
    directory.write("secret", SECRET, 0o400);
    let path = directory.write("lb.toml", main_file(&directory).as_bytes(), 0o644);
    let vip =
        b"[[vip]]\nname = \"w\"\naddress = \"203.0.113.1\"\nprotocol = \"tcp\"\nports = [80]\n\
                pool = \"web\"\n";
    directory.write("lb.toml.d/20-vips.toml", vip, 0o644);
    let pool =
        b"[[pool]]\nname = \"web\"\nbackends = [{ name = \"a\", address = \"198.51.100.1\" }]\n";
    directory.write("lb.toml.d/10-pools.toml", pool, 0o644);
    directory.write("lb.toml.d/README", b"not read", 0o644);
    directory.write("lb.toml.d/.hidden.toml", b"not read", 0o644);
    let loaded = load(&path).unwrap_or_else(|r| panic!("{}", r.render(false)));
    assert_eq!((loaded.desired.pools.len(), loaded.desired.vips.len()), (1, 1));
    assert_eq!(loaded.secret.bytes(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let directory = Directory::new("unreadable");
    let ids = |report: Report| report.findings().iter().map(|f| f.id()).collect::<Vec<_>>();
    let missing = load(&directory.0.join("none.toml")).unwrap_err();
    assert!(missing.render(false).starts_with("error[unreadable]: cannot read "));
    assert_eq!(ids(missing), [Id::Unreadable]);
    let not_text = directory.write("bytes.toml", &[0xff, 0xfe], 0o644);
    assert_eq!(ids(load(&not_text).unwrap_err()), [Id::Unreadable]);
    let path = directory.write("lb.toml", main_file(&directory).as_bytes(), 0o644);
    directory.write("lb.toml.d", b"a file where a directory belongs", 0o644);
    assert_eq!(ids(load(&path).unwrap_err()), [Id::Unreadable]);
}

#[test]
fn a_secret_file_is_judged() {
    let directory = Directory::new("secret");
    let path = directory.write("lb.toml", main_file(&directory).as_bytes(), 0o644);
    let cases: [(&[u8], u32, Option<Id>); 8] = [
        (SECRET, 0o400, None),
        (SECRET, 0o600, None),
        (b"  000102030405060708090a0b0c0d0e0f", 0o600, None),
        (SECRET, 0o440, Some(Id::SecretPermissions)),
        (SECRET, 0o604, Some(Id::SecretPermissions)),
        (b"000102030405060708090a0b0c0d0e0", 0o400, Some(Id::SecretFormat)),
        (b"000102030405060708090a0b0c0d0e0g", 0o400, Some(Id::SecretFormat)),
        (b"", 0o400, Some(Id::SecretFormat)),
    ];
    for (text, mode, expected) in cases {
        fs::remove_file(directory.0.join("secret")).ok();
        directory.write("secret", text, mode);
        let found = load(&path).err().map(|report| report.findings()[0].id());
        assert_eq!(found, expected, "{text:?} {mode:o}");
    }
    fs::remove_file(directory.0.join("secret")).ok();
    let report = load(&path).unwrap_err();
    assert_eq!(report.findings()[0].id(), Id::SecretUnreadable);
    assert_eq!(
        report.place(&report.findings()[0]).map(|(_, line, column)| (line, column)),
        Some((5, 15))
    );
}

#[test]
fn the_files_that_bgp_names_are_read_from_disk() {
    let directory = Directory::new("bgp");
    directory.write("secret", SECRET, 0o400);
    let (password, vrps) = (directory.0.join("edge1"), directory.0.join("vrps.json"));
    let text = format!(
        "{}[bgp]\nlocal_as = 64496\nvrp_file = {vrps:?}\n[[bgp.peer]]\nname = \"edge1\"\n\
         address = \"192.0.2.2\"\nremote_as = 64500\npassword_file = {password:?}\n",
        main_file(&directory)
    );
    let path = directory.write("lb.toml", text.as_bytes(), 0o644);
    directory.write("vrps.json", br#"{ "roas": [] }"#, 0o644);
    let cases: [(&[u8], u32, Option<Id>); 6] = [
        (b"s3cret\n", 0o400, None),
        (&[b'x'; 80], 0o600, None),
        (b"s3cret\n", 0o440, Some(Id::PasswordPermissions)),
        (b"\n", 0o400, Some(Id::PasswordFormat)),
        (&[b'x'; 81], 0o400, Some(Id::PasswordFormat)),
        (b"two\nlines\n", 0o400, Some(Id::PasswordFormat)),
    ];
    for (text, mode, expected) in cases {
        fs::remove_file(&password).ok();
        directory.write("edge1", text, mode);
        let found = load(&path).err().map(|report| report.findings()[0].id());
        assert_eq!(found, expected, "{text:?} {mode:o}");
    }
    fs::remove_file(&password).ok();
    directory.write("edge1", b"s3cret\n", 0o400);
    let loaded = load(&path).unwrap_or_else(|r| panic!("{}", r.render(false)));
    assert_eq!(loaded.passwords["edge1"].bytes(), b"s3cret");
    assert!(loaded.vrps.as_ref().is_some_and(|vrps| vrps.is_empty()));
    assert!(!format!("{loaded:?}").contains("s3cret"));
    fs::write(&vrps, "[]").unwrap();
    let report = load(&path).unwrap_err();
    assert_eq!(report.findings()[0].id(), Id::VrpFormat);
}

#[test]
fn outer_sources_are_of_the_backends_family() {
    let node = load_text(reference::example()).unwrap().desired.node;
    let v4 = node.outer_source(Ipv4Addr::new(198, 51, 100, 1).into());
    assert_eq!(v4, node.address.map(Into::into));
    let v6 = node.outer_source(Ipv6Addr::LOCALHOST.into());
    assert_eq!(v6, node.address6.map(Into::into));
}

/// A configuration at the limits that the project promises.
fn large(damage: &str) -> String {
    let mut text = reference::example().to_owned();
    text = text.split("[[pool]]").next().unwrap_or_default().to_owned();
    for pool in 0..256 {
        text += &format!(
            "[[pool]]\nname = \"p{pool}\"\nhealth = \"connect\"\nmaglev_size = 65_537\n\
             backends = [\n"
        );
        for backend in 0..117 {
            text += &format!(
                "  {{ name = \"b{backend}\", address = \"198.19.{}.{}\"{damage} }},\n",
                pool, backend
            );
        }
        text += "]\n";
    }
    for vip in 0..1_024 {
        text += &format!(
            "[[vip]]\nname = \"v{vip}\"\naddress = \"2001:db8:53::{vip:x}\"\nprotocol = \"tcp\"\n\
             ports = [443]\npool = \"p{}\"\n",
            vip / 4
        );
    }
    text
}

#[test]
fn a_large_configuration_is_read_and_its_mistakes_are_cut() {
    let loaded = load_text(&large("")).unwrap_or_else(|r| panic!("{}", r.render(false)));
    assert_eq!(loaded.desired.backend_count(), 29_952);
    assert_eq!(loaded.desired.vips.len(), 1_024);
    assert!(u64::from(loaded.desired.dataplane.max_slots) >= loaded.desired.slots_needed());
    let report = load_text(&large(", wait = 1")).unwrap_err();
    assert_eq!(report.findings().len(), 29_952);
    assert!(report.render(false).contains("and 29852 more findings"));
}
