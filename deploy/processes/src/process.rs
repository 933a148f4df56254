//! Programs of this workspace as child processes: run to the end, kept running, killed.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// The program of this name beside this one.
pub fn program(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe().context("failed to find this program's own path")?;
    let path = here.with_file_name(name);
    ensure!(path.is_file(), "`{}` does not exist; build it with `make build`", path.display());
    Ok(path)
}

/// Runs a program to its end and returns what it printed; what it told on the way goes to this program's own stderr.
pub fn run<S: AsRef<std::ffi::OsStr>>(program: &Path, arguments: &[S]) -> Result<String> {
    run_command(Command::new(program).args(arguments))
}

/// The same for a command that is put together already.
pub(crate) fn run_command(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("failed to start {}", shown(command)))?;
    ensure!(output.status.success(), "{} ended with {}", shown(command), output.status);
    String::from_utf8(output.stdout).with_context(|| format!("output of {}", shown(command)))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    format!("`{}`", words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" "))
}

/// What can be told to a process from outside, short of killing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Stand still (SIGSTOP); the kernel keeps its sockets open.
    Stop,
    /// Go on (SIGCONT).
    Continue,
    /// End in good order (SIGTERM).
    Terminate,
}

fn log_file(log: &Path) -> Result<File> {
    let file = File::options().create(true).append(true).open(log);
    file.with_context(|| format!("failed to open `{}`", log.display()))
}

/// A process that runs beside this one; it is killed when this value goes.
#[derive(Debug)]
pub struct Running {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Running {
    /// Starts a program whose output goes to a log file (appended to, so that a restart keeps the story).
    pub fn start<S: AsRef<std::ffi::OsStr>>(name: &str, program: &Path, arguments: &[S], log: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(log_file(log)?);
        Self::spawn(name, &mut command, log)
    }

    /// Starts a program whose input and output are pipes, to talk to it: [`Self::take_pipes`]. Its stderr goes to a log.
    pub fn start_piped<S: AsRef<std::ffi::OsStr>>(
        name: &str,
        program: &Path,
        arguments: &[S],
        log: &Path,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self::spawn(name, &mut command, log)
    }

    /// Starts a command that is put together already; its output goes to a log.
    pub fn start_command(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        Self::spawn(name, command.stdin(Stdio::null()).stdout(log_file(log)?), log)
    }

    fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let child = command.stderr(log_file(log)?).spawn();
        let child = child.with_context(|| format!("failed to start {}", shown(command)))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// Input and output of a process from [`Self::start_piped`], once.
    pub fn take_pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let flag = match signal {
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
            Signal::Terminate => "-TERM",
        };
        run(Path::new("kill"), &[flag, &self.child.id().to_string()]).map(drop)
    }

    /// Ends the process at once, as a power cut would (SIGKILL).
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("failed to kill {}", self.name))?;
        self.child.wait().with_context(|| format!("failed to wait for {}", self.name))?;
        Ok(())
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("failed to look at {}", self.name))
    }

    /// Fails if the process has ended, with the end of its log.
    pub fn require_alive(&mut self) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; the end of its log:\n{}", self.name, self.last_lines()),
        }
    }

    /// Whether the process has ended well; fails if it has ended badly, with the end of its log.
    pub fn is_done(&mut self) -> Result<bool> {
        match self.ended()? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => bail!("{} ended with {status}; the end of its log:\n{}", self.name, self.last_lines()),
        }
    }

    fn last_lines(&self) -> String {
        const SHOWN: usize = 15;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again until `look` gives an answer; fails after `patience`.
pub fn wait_until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(50);
    let start = Instant::now();
    loop {
        if let Some(answer) = look()? {
            return Ok(answer);
        }
        ensure!(start.elapsed() < patience, "gave up after {} s: {what}", patience.as_secs());
        std::thread::sleep(PAUSE);
    }
}

/// TCP and UDP ports on loopback that nothing listens on at the moment.
pub fn free_ports(n: usize) -> Result<Vec<u16>> {
    // Held until all are chosen, so that no port is given twice.
    let mut held = Vec::new();
    while held.len() < n {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0")?;
        if let Ok(udp) = std::net::UdpSocket::bind(tcp.local_addr()?) {
            held.push((tcp, udp));
        }
    }
    held.iter().map(|(tcp, _)| Ok(tcp.local_addr()?.port())).collect()
}
