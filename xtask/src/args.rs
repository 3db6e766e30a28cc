//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt as _};

/// Shown for `--help`, and below a mistake in the command line.
pub(crate) const USAGE: &str = "\
usage: cargo xtask COMMAND

  setup  [--no-install]          make everything present that the other commands need
  demo   [--hold] [--no-install] a small internet in namespaces: real flows, broken on purpose,
                                 counted; --hold keeps it to look around
  test   [--no-install] [TIER [FILTER]]
                                 all tiers, or one of: tidy, lint, unit, program, network;
                                 FILTER is a part of a test's name
  bench  [--no-install] [-- ARG...]
                                 program time per packet, table building, flow-table rates
  load   INTERFACE --config FILE [--netns NAME]
                                 build, check FILE, attach to INTERFACE, show what was done
  unload [--pin-path DIR] [--netns NAME]
                                 detach what `load` or lbd left attached, remove the pins
  disasm [balancer|agent] [SYMBOL]
                                 the eBPF instructions of a built program

All of them need root, except `test tidy`. setup, demo, test and bench install what is missing
(Debian packages, rust-src, tools below target/tools) and say so; with --no-install they stop
and name it instead.";

/// One thing to do.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Task {
    Help(&'static str),
    Setup { install: bool },
    Demo(Demo),
    Bench { install: bool, arguments: Vec<OsString> },
    Test(Test),
    Load(Load),
    Unload { pin_path: Option<PathBuf>, netns: Option<String> },
    Disasm { program: Program, symbol: Option<String> },
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Demo {
    pub(crate) hold: bool,
    pub(crate) install: bool,
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Test {
    pub(crate) install: bool,
    pub(crate) tier: Option<Tier>,
    pub(crate) filter: Option<String>,
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Load {
    pub(crate) interface: String,
    pub(crate) config: PathBuf,
    pub(crate) netns: Option<String>,
}

/// The tiers of the tests, quick ones first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Tier {
    Tidy,
    Lint,
    Unit,
    Program,
    Network,
}

impl Tier {
    pub(crate) const ALL: [Self; 5] =
        [Self::Tidy, Self::Lint, Self::Unit, Self::Program, Self::Network];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tidy => "tidy",
            Self::Lint => "lint",
            Self::Unit => "unit",
            Self::Program => "program",
            Self::Network => "network",
        }
    }
}

/// The two eBPF programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    Balancer,
    Agent,
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Balancer => "balancer",
            Self::Agent => "agent",
        }
    }
}

/// Reads the command line.
pub(crate) fn parse(mut parser: Parser) -> Result<Task, lexopt::Error> {
    let command = match parser.next()? {
        None | Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Task::Help(USAGE)),
        Some(Arg::Value(word)) => word.string()?,
        Some(other) => return Err(other.unexpected()),
    };
    let words = Words::read(&command, parser)?;
    if words.help {
        return Ok(Task::Help(USAGE));
    }
    words.task(&command)
}

/// What was given to a command, before it is known to make sense together.
#[derive(Default)]
struct Words {
    help: bool,
    hold: bool,
    no_install: bool,
    config: Option<PathBuf>,
    netns: Option<String>,
    pin_path: Option<PathBuf>,
    free: Vec<OsString>,
}

impl Words {
    fn read(command: &str, mut parser: Parser) -> Result<Self, lexopt::Error> {
        let mut words = Self::default();
        while let Some(argument) = parser.next()? {
            match (command, argument) {
                (_, Arg::Short('h') | Arg::Long("help")) => words.help = true,
                ("demo", Arg::Long("hold")) => words.hold = true,
                ("setup" | "demo" | "test" | "bench", Arg::Long("no-install")) => {
                    words.no_install = true;
                }
                ("load", Arg::Long("config")) => words.config = Some(parser.value()?.into()),
                ("load" | "unload", Arg::Long("netns")) => {
                    words.netns = Some(parser.value()?.string()?)
                }
                ("unload", Arg::Long("pin-path")) => {
                    words.pin_path = Some(parser.value()?.into());
                }
                (_, Arg::Value(value)) => words.free.push(value),
                (_, other) => return Err(other.unexpected()),
            }
        }
        Ok(words)
    }

    fn task(mut self, command: &str) -> Result<Task, lexopt::Error> {
        let install = !self.no_install;
        let mut free = std::mem::take(&mut self.free).into_iter();
        let task = match command {
            "setup" => Task::Setup { install },
            "demo" => Task::Demo(Demo { hold: self.hold, install }),
            "bench" => Task::Bench { install, arguments: free.by_ref().collect() },
            "test" => Task::Test(Test {
                install,
                tier: free.next().map(|word| tier(&word)).transpose()?,
                filter: free.next().map(|word| word.string()).transpose()?,
            }),
            "load" => Task::Load(Load {
                interface: free.next().ok_or("load: which INTERFACE?")?.string()?,
                config: self.config.ok_or("load: --config FILE is missing")?,
                netns: self.netns,
            }),
            "unload" => Task::Unload { pin_path: self.pin_path, netns: self.netns },
            "disasm" => {
                let program = free.next().map(|word| program(&word)).transpose()?;
                Task::Disasm {
                    program: program.unwrap_or(Program::Balancer),
                    symbol: free.next().map(|word| word.string()).transpose()?,
                }
            }
            other => return Err(format!("no command `{other}`").into()),
        };
        match free.next() {
            Some(word) => Err(lexopt::Error::UnexpectedArgument(word)),
            None => Ok(task),
        }
    }
}

fn tier(word: &OsString) -> Result<Tier, lexopt::Error> {
    let found = Tier::ALL.into_iter().find(|tier| word == tier.name());
    found.ok_or_else(|| {
        let names = Tier::ALL.map(Tier::name).join(", ");
        format!("no tier `{}`; there are: {names}", word.to_string_lossy()).into()
    })
}

fn program(word: &OsString) -> Result<Program, lexopt::Error> {
    let found = [Program::Balancer, Program::Agent].into_iter().find(|it| word == it.name());
    found.ok_or_else(|| {
        format!("no program `{}`; there are: balancer, agent", word.to_string_lossy()).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Task, String> {
        parse(Parser::from_args(line.split_whitespace())).map_err(|error| error.to_string())
    }

    #[test]
    fn commands_are_read() {
        let demo = |hold, install| Task::Demo(Demo { hold, install });
        let test = |install, tier, filter: Option<&str>| {
            Task::Test(Test { install, tier, filter: filter.map(str::to_owned) })
        };
        let cases = [
            ("", Task::Help(USAGE)),
            ("--help", Task::Help(USAGE)),
            ("demo --help", Task::Help(USAGE)),
            ("setup", Task::Setup { install: true }),
            ("setup --no-install", Task::Setup { install: false }),
            ("demo", demo(false, true)),
            ("demo --hold --no-install", demo(true, false)),
            ("test", test(true, None, None)),
            ("test unit", test(true, Some(Tier::Unit), None)),
            (
                "test network failover::lb_killed --no-install",
                test(false, Some(Tier::Network), Some("failover::lb_killed")),
            ),
            (
                "bench -- --rounds 3",
                Task::Bench { install: true, arguments: vec!["--rounds".into(), "3".into()] },
            ),
            (
                "load eth0 --config lb.toml",
                Task::Load(Load {
                    interface: "eth0".into(),
                    config: "lb.toml".into(),
                    netns: None,
                }),
            ),
            (
                "load --netns blue --config=lb.toml eth0",
                Task::Load(Load {
                    interface: "eth0".into(),
                    config: "lb.toml".into(),
                    netns: Some("blue".into()),
                }),
            ),
            ("unload", Task::Unload { pin_path: None, netns: None }),
            (
                "unload --pin-path /p --netns blue",
                Task::Unload { pin_path: Some("/p".into()), netns: Some("blue".into()) },
            ),
            ("disasm", Task::Disasm { program: Program::Balancer, symbol: None }),
            (
                "disasm agent lb_agent",
                Task::Disasm { program: Program::Agent, symbol: Some("lb_agent".into()) },
            ),
        ];
        for (line, task) in cases {
            assert_eq!(read(line), Ok(task), "{line}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("frobnicate", "no command `frobnicate`"),
            ("test everything", "no tier `everything`; there are: tidy, lint"),
            ("test unit a b", "unexpected argument \"b\""),
            ("demo now", "unexpected argument \"now\""),
            ("setup --hold", "invalid option '--hold'"),
            ("load eth0", "load: --config FILE is missing"),
            ("load --config lb.toml", "load: which INTERFACE?"),
            ("disasm lbd", "no program `lbd`; there are: balancer, agent"),
        ];
        for (line, complaint) in cases {
            let error = read(line).unwrap_err();
            assert!(error.contains(complaint), "{line}: {error}");
        }
    }
}
