//! Two namespaces on one cable, and the real `lb-agent` in one of them.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};

#[expect(clippy::disallowed_methods, reason = "a deadline")]
fn now() -> Instant {
    Instant::now()
}

/// How long anything may take before a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// Where a BPF file system should be.
const BPFFS: &str = "/sys/fs/bpf";

/// A client and a backend; the name of every interface is `e0`.
pub(crate) struct Lab {
    name: String,
}

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    output
}

impl Lab {
    /// `None`, said aloud, when namespaces are not permitted here.
    pub(crate) fn new(test: &str, mtu: u16) -> Option<Self> {
        let name = format!("lbtest-agent-{test}-{}", std::process::id());
        let lab = Self { name };
        let made = Command::new("ip").args(["netns", "add", &lab.client()]).output();
        if !made.as_ref().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "must not be skipped here: {made:?}");
            println!("SKIP: cannot make network namespaces");
            return None;
        }
        run("ip", &["netns", "add", &lab.backend()]);
        let mtu = mtu.to_string();
        let (client, backend) = (lab.client(), lab.backend());
        let cable = "link add e0 mtu MTU type veth peer name e0 mtu MTU netns";
        let cable: Vec<_> =
            cable.split(' ').map(|word| if word == "MTU" { mtu.as_str() } else { word }).collect();
        let mut arguments = vec!["-n", &client];
        arguments.extend(cable);
        arguments.push(&backend);
        run("ip", &arguments);
        for (namespace, addresses) in [
            (&client, ["10.9.0.1/24 dev e0", "fd09::1/64 dev e0 nodad"].as_slice()),
            (
                &backend,
                &[
                    "10.9.0.2/24 dev e0",
                    "fd09::2/64 dev e0 nodad",
                    "203.0.113.10/32 dev lo",
                    "2001:db8:53::10/128 dev lo nodad",
                ],
            ),
        ] {
            lab.ip(namespace, "link set lo up");
            // The check of the link-local address for duplicates takes a second, in which no
            // neighbour is found.
            inside(namespace, || {
                std::fs::write("/proc/sys/net/ipv6/conf/e0/accept_dad", "0").unwrap();
            });
            lab.ip(namespace, "link set e0 up");
            for address in addresses {
                lab.ip(namespace, &format!("address add {address}"));
            }
        }
        lab.wait_until_up();
        lab.ip(&backend, "route add default via 10.9.0.1");
        lab.ip(&backend, "-6 route add default via fd09::1");
        Some(lab)
    }

    /// Until the kernel has seen the carrier, it drops what is sent.
    fn wait_until_up(&self) {
        let began = now();
        for namespace in [self.client(), self.backend()] {
            while !self.ip(&namespace, "link show dev e0").contains("state UP") {
                assert!(began.elapsed() < DEADLINE, "no carrier in {namespace}");
            }
        }
    }

    pub(crate) fn client(&self) -> String {
        format!("{}-c", self.name)
    }

    pub(crate) fn backend(&self) -> String {
        format!("{}-b", self.name)
    }

    /// `ip -n NAMESPACE WORDS`; what it printed.
    pub(crate) fn ip(&self, namespace: &str, words: &str) -> String {
        let mut arguments = vec!["-n", namespace];
        arguments.extend(words.split(' '));
        String::from_utf8(run("ip", &arguments).stdout).unwrap()
    }

    /// A directory for pins that is this lab's own.
    pub(crate) fn pin_path(&self) -> PathBuf {
        Path::new(BPFFS).join(&self.name)
    }

    /// `lb-agent WORDS` in the backend; it still runs.
    pub(crate) fn spawn(&self, words: &str) -> Running {
        // Not `ip netns exec`: it mounts a /sys of its own, without the BPF file system.
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.backend()))
            .arg(env!("CARGO_BIN_EXE_lb-agent"))
            .args(words.split_whitespace())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines, log: Vec::new() }
    }

    /// `lb-agent --interface e0` with both VIPs and `words`, attached.
    pub(crate) fn agent(&self, words: &str) -> Running {
        let vips = "--interface e0 --vip 203.0.113.10 --vip 2001:db8:53::10";
        let mut agent = self.spawn(&format!("{vips} {words}"));
        agent.wait_for(" attached");
        agent
    }

    /// Runs `lb-agent WORDS` in the backend to its end: did it succeed, what did it say?
    pub(crate) fn try_agent(&self, words: &str) -> (bool, String) {
        let mut agent = self.spawn(words);
        let status = agent.wait();
        (status.success(), agent.rest())
    }

    /// What is attached to the backend's interface: `xdp` and the names of tcx programs.
    pub(crate) fn attached(&self) -> Vec<String> {
        let link = self.ip(&self.backend(), "link show dev e0");
        let xdp = link.contains("prog/xdp").then(|| "xdp".to_owned());
        let tcx = inside(&self.backend(), || {
            [TcAttachType::Ingress, TcAttachType::Egress].map(|direction| {
                let (_, programs) = SchedClassifier::query_tcx("e0", direction).unwrap();
                programs
                    .iter()
                    .filter_map(|program| program.name_as_str().map(str::to_owned))
                    .collect()
            })
        });
        xdp.into_iter().chain(tcx.into_iter().flat_map(|names: Vec<_>| names)).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [self.client(), self.backend()] {
            drop(Command::new("ip").args(["netns", "del", &namespace]).output());
        }
        if let Ok(pins) = std::fs::read_dir(self.pin_path()) {
            for pin in pins.map_while(Result::ok) {
                drop(std::fs::remove_file(pin.path()));
            }
            drop(std::fs::remove_dir(self.pin_path()));
        }
    }
}

/// Runs `work` in a namespace, on a thread of its own.
pub(crate) fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: moves this thread only, which ends with the work.
            let done = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
            work()
        });
        thread.join().unwrap()
    })
}

/// A running agent; killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
}

impl Running {
    /// Waits for a line of its log with this text.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("no `{text}` in {:#?}", self.log),
            }
        }
    }

    pub(crate) fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: our own child, not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        // Its log ends when it does.
        while let Ok(line) = self.lines.recv_timeout(DEADLINE) {
            self.log.push(line);
        }
        if self.child.try_wait().unwrap().is_none() {
            // Closing the log and ending are two moments; a process that hangs fails here.
            self.signal(0);
        }
        self.child.wait().unwrap()
    }

    /// Ends it with SIGTERM; it must succeed.
    pub(crate) fn stop(mut self) -> String {
        self.signal(libc::SIGTERM);
        let status = self.wait();
        let log = self.rest();
        assert!(status.success(), "{log}");
        log
    }

    /// Its whole log.
    pub(crate) fn rest(&mut self) -> String {
        self.log.extend(self.lines.try_iter());
        self.log.join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
