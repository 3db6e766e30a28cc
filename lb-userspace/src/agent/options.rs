//! The command line of `lb-agent`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Decapsulates the load balancer's tunnels on a backend, so that its VIPs need no tunnel device.
#[derive(Debug, Parser)]
#[command(name = "lb-agent", version, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true, arg_required_else_help = true)]
pub struct Cli {
    /// Another thing to do than to run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub run: Option<RunOptions>,
}

/// What else it can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the counters of the programs pinned by --pin-path
    Stats {
        /// The directory that was given to the running agent
        #[arg(long)]
        pin_path: PathBuf,
        /// How to print them
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Detach pinned programs and remove the pins
    Unload {
        /// The directory that was given to the running agent
        #[arg(long)]
        pin_path: PathBuf,
    },
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Output {
    /// Columns
    Table,
    /// One JSON object
    Json,
}

/// How to run.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// The interface that tunnels arrive at
    #[arg(long)]
    pub interface: String,
    /// A VIP that this backend serves; repeat for more
    #[arg(long = "vip", required = true, value_name = "ADDR")]
    pub vips: Vec<IpAddr>,
    /// Where to attach; auto takes the first of native XDP, generic XDP and tc that works
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub mode: Mode,
    /// The largest outer IP packet on the path from the load balancers, bytes
    /// [default: the interface's MTU]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(576..))]
    pub tunnel_mtu: Option<u16>,
    /// UDP port of GUE
    #[arg(long, default_value_t = 6080, value_parser = clap::value_parser!(u16).range(1..))]
    pub gue_port: u16,
    /// Accept tunnels only from this prefix; repeat for more [default: from anywhere]
    #[arg(long = "from", value_name = "PREFIX")]
    pub sources: Vec<Prefix>,
    /// Pin programs below this directory of a BPF file system: they outlive the agent, and the
    /// next one takes them over without losing a packet
    #[arg(long, value_name = "DIR")]
    pub pin_path: Option<PathBuf>,
}

/// Where to attach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Mode {
    /// The first that works
    Auto,
    /// Native XDP, in the driver
    Xdp,
    /// Generic XDP, in the kernel's receive path
    XdpGeneric,
    /// tc ingress
    Tc,
}

/// An IP prefix, host bits zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Prefix {
    /// The network.
    pub address: IpAddr,
    /// Bits of the network: 0..=32 or 0..=128.
    pub length: u8,
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|error| format!("`{address}`: {error}"))?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => longest,
            Some(text) => text
                .parse()
                .ok()
                .filter(|length| *length <= longest)
                .ok_or_else(|| format!("`{text}` is not a prefix length of 0 to {longest}"))?,
        };
        let prefix = Self { address, length };
        if prefix.host_bits() {
            return Err(format!("`{text}` has bits set behind its prefix length"));
        }
        Ok(prefix)
    }
}

impl Prefix {
    fn host_bits(&self) -> bool {
        let (bits, length) = match self.address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, self.length),
            IpAddr::V6(v6) => (u128::from(v6), self.length),
        };
        bits.checked_shl(u32::from(length)).unwrap_or(0) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_checked() {
        let good = ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1", "2001:db8::/32", "::/0", "::1"];
        for text in good {
            assert!(text.parse::<Prefix>().is_ok(), "{text}");
        }
        let bad = ["10.0.0.1/8", "10.0.0.0/33", "2001:db8::1/64", "::/129", "x", "10.0.0.0/", ""];
        for text in bad {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn command_line() {
        let cli = |line: &str| Cli::try_parse_from(line.split_whitespace());
        let run = cli("lb-agent --interface eth0 --vip 203.0.113.10 --vip 2001:db8::10").unwrap();
        assert_eq!(run.run.map(|run| run.vips.len()), Some(2));
        assert!(cli("lb-agent stats --pin-path /sys/fs/bpf/lb-agent -o json").is_ok());
        for bad in [
            "lb-agent",
            "lb-agent --interface eth0",
            "lb-agent --vip 203.0.113.10",
            "lb-agent --interface eth0 --vip web",
            "lb-agent --interface eth0 --vip 203.0.113.10 --tunnel-mtu 500",
            "lb-agent --interface eth0 --vip 203.0.113.10 --gue-port 0",
            "lb-agent stats",
        ] {
            assert!(cli(bad).is_err(), "{bad}");
        }
    }
}
