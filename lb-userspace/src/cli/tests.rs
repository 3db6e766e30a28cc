//! What lbctl prints, to the letter.

use clap::{CommandFactory as _, Parser as _};

use super::args::Args;
use super::output::{self, Table as _};
use super::*;
use crate::api::sample;
use crate::api::types::Vips;

/// Compares, and shows both when they differ.
fn check(got: &str, want: &str) {
    let want = want.trim_start_matches('\n');
    assert!(got == want, "got:\n{got}\nwant:\n{want}");
}

#[test]
fn the_grammar_is_sound() {
    Args::command().debug_assert();
    for line in [
        "lbctl status",
        "lbctl -o json --socket /s status",
        "lbctl --socket /s -o json vip",
        "lbctl stats -o wide",
        "lbctl trace 198.51.100.7:40001 www",
        "lbctl trace [2001:db8::7]:40001 www6:443",
        "lbctl drops --watch",
        "lbctl apply lb.toml --dry-run",
        "lbctl diff lb.toml",
        "lbctl config check lb.toml",
        "lbctl config show --defaults",
        "lbctl backend drain web/web1",
        "lbctl backend undrain web/web1",
        "lbctl backend weight web/web1 50",
        "lbctl vip drain www",
        "lbctl node undrain",
        "lbctl bgp -o wide",
        "lbctl bgp routes 203.0.113.0/24 --peer edge1",
        "lbctl bgp steer www --for 30m --prepend 2 --peer edge1 --peer edge2",
        "lbctl bgp steer 203.0.113.0/24 --for 1h --more-specific 203.0.113.0/25 --poison 64500",
        "lbctl bgp unsteer 3",
        "lbctl bgp shed 1 --for 10m",
        "lbctl bgp shed 0",
        "lbctl bgp resume",
        "lbctl unload --pin-path /sys/fs/bpf/lb",
    ] {
        if let Err(error) = Args::try_parse_from(line.split(' ')) {
            panic!("{line}: {error}");
        }
    }
    for line in [
        "lbctl",
        "lbctl trace 198.51.100.7 www",
        "lbctl backend weight web/web1 65536",
        "lbctl bgp steer www --prepend 2",
        "lbctl bgp steer www --for 30",
        "lbctl bgp steer www --for 30m --community 65536:1",
    ] {
        assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
    }
}

#[test]
fn status() {
    check(
        &sample::status().table(false),
        "
fra1-lb1  degraded  up 3h12m  config 7 (applied 2026-11-24T12:04:31.000Z)
xdp eth0 native up
flow table 54,412 / 1,048,576 (54,300 confirmed, 12 unconfirmed, 100 closing)
! pool web: 1 up, fewer than min_up 2

POOL    STATE    UP  GEN    CONTESTED  SHARE  FLOWS  PACKETS  NOTE
web     window  1/3    3  16384/65537
  web1  up      100                    66.7%   4300  1234567
  web3  drain    50                     0.0%   4300  1234567  drain (override)
  web4  down    100                    33.3%   4300  1234567  connection refused
",
    );
}

#[test]
fn vip() {
    check(
        &sample::vips().table(false),
        "
VIP                          POOL  STATE   UP  FLOWS    PPS   BPS  SHARE  NOTE
www 203.0.113.10:443/tcp     web   up     1/3  12900  41.2k  380M
www6 [2001:db8::10]:443/tcp  web   up     1/3  12900  41.2k  380M
  web1 10.1.0.1                    up     100   4300  13.7k  126M  66.7%
  web3 10.1.0.3                    drain   50   4300  13.7k  126M   0.0%  drain (override)
  web4 10.1.0.4                    down   100   4300  13.7k  126M  33.3%  connection refused
",
    );
}

#[test]
fn stats() {
    check(
        &sample::stats().table(false),
        "
OUTCOME  PACKETS      BYTES
no_port       12        720
tx       3000000  400000000

FLOW TABLE  COUNT
base            7
evicted         7
hit             7
miss            7
new             7
refused         7

DRIVER  NOT SENT
eth0           2

flow table 54,412 / 1,048,576 (54,300 confirmed, 12 unconfirmed, 100 closing)

LBD                COUNT
tables published       9
slots moved        16384
slots forced           0
flow scans             0
flows aged             0
probes                 0
probes late            0
failures               0
drop samples lost      0
",
    );
}

#[test]
fn trace() {
    check(
        &sample::trace().table(false),
        "
flow      198.51.100.7:40001 > www 203.0.113.10:443/tcp
table     pool web, hash 9c41e07a00000001, slot 41,207 of 65,537, generation 3, contested
owner     web1 10.1.0.1: its entry in the flow table
encap     gue, path MTU 9000
next hop  02:00:00:00:00:01 by eth0
verdict   tx
",
    );
}

#[test]
fn drops() {
    check(
        &sample::drops().table(false),
        "
REASON   PACKETS  MEANING
no_port       12  what no_port means

TIME                      REASON          VIP  FLOW
2026-11-24T12:07:40.000Z  no_port         -  198.51.100.7:40001 > 203.0.113.10:22 tcp, 74 bytes
",
    );
}

#[test]
fn bgp() {
    check(
        &sample::bgp_peers().table(false),
        "
AS 64512
! BGP peer edge2 is Idle: connection refused

PEER   ADDRESS       AS  STATE          FOR  WANTED  SENT  IN  BFD  LAST ERROR
edge1  192.0.2.1  64500  Established  1m00s       1     1   0  Up
edge2  192.0.2.2  64500  Idle         1m01s       1     0   0  -    connection refused (1s ago)
",
    );
    check(
        &sample::bgp_routes().table(false),
        "
steer 3: 203.0.113.0/24: prepend 1; ends in 30m00s

PREFIX          PEER   STATE                    FOR  SENT  WHY
203.0.113.0/24  edge1  announced              1m00s  yes
                         AS_PATH 64512 64512               steer 3
",
    );
}

#[test]
fn outcomes() {
    check(
        &output::outcome(&sample::outcome()),
        "
~ backend web/web3  drains: no new flows, its flows stay
~ pool web          16,384 of 65,537 slots move (25.0%)
  override of web/web1 stays: weight 50
2 changes applied
undo with: lbctl backend undrain web/web3
",
    );
    let none = Outcome { changes: Vec::new(), notes: Vec::new(), undo: None, ..sample::outcome() };
    check(&output::outcome(&none), "no change\n");
}

#[test]
fn questions_are_escaped() {
    let source = "[2001:db8::7]:1".parse().unwrap();
    let target = "203.0.113.10:443/tcp&x=1".to_owned();
    assert_eq!(
        query("/v1/trace", &TraceQuestion { source, target }).unwrap(),
        "/v1/trace?source=%5B2001%3Adb8%3A%3A7%5D%3A1&target=203.0.113.10%3A443%2Ftcp%26x%3D1"
    );
}

/// Runs lbctl; exit code or error, stdout, stderr.
async fn lbctl(line: &str) -> (Result<u8, String>, String, String) {
    let args = Args::try_parse_from(line.split(' ')).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams = Streams { out: &mut out, err: &mut err, color: false };
    let code = run(&args, &mut streams).await.map_err(|error| error.to_string());
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[tokio::test]
async fn mistakes_are_told_before_anyone_is_asked() {
    let (code, ..) = lbctl("lbctl backend drain web1").await;
    assert_eq!(code.unwrap_err(), "`web1` is no backend: write POOL/BACKEND, such as web/web1");
    let (code, ..) = lbctl("lbctl --socket /nowhere/lbd.sock status").await;
    assert!(code.unwrap_err().contains("is lbd running?"));
    let (code, ..) = lbctl("lbctl apply /nowhere/lb.toml").await;
    assert!(code.unwrap_err().contains("cannot read /nowhere/lb.toml"));
    let (code, out, err) = lbctl("lbctl config check /nowhere/lb.toml").await;
    assert_eq!((code, out.as_str()), (Ok(EXIT_FAILED), ""));
    assert!(err.contains("error[unreadable]"), "{err}");
    let (code, out, _) = lbctl("lbctl config show --defaults").await;
    assert!(code == Ok(EXIT_OK) && out.contains("maglev_size = 65_537"));
}

#[test]
fn exit_codes_tell_the_health() {
    for (health, code) in [(Health::Ok, 0), (Health::Degraded, 1), (Health::Down, 2)] {
        assert_eq!(exit_of(health), code);
    }
}

#[test]
fn documents_are_read_as_they_are_written() {
    let text = serde_json::to_string(&sample::vips()).unwrap();
    assert_eq!(serde_json::from_str::<Vips>(&text).unwrap(), sample::vips());
}
