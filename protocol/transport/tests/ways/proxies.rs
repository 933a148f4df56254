//! squid and tinyproxy as Debian packs them, where they are installed: a tunnel with a password, what they refuse, and what becomes of
//! a connection whose proxy is killed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use archipelago_transport::{Error, Transport as _, Way, net::Ways, proxy::Proxy};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::{Members, hold, node};

/// A proxy that runs until it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who may pass, and how the proxies are told.
const USER: &str = "ann:s";

/// squid lets `ann` through to one port.
fn squid(dir: &Path, port: u16, to: u16) -> Option<Command> {
    let (program, helper) = (installed("squid")?, Path::new("/usr/lib/squid/basic_ncsa_auth"));
    let (config, users) = (dir.join("squid.conf"), dir.join("users"));
    // `s`, salted, as `htpasswd` writes it.
    fs::write(&users, "ann:$apr1$abcdefgh$YTrvekMX5wecSCUBkX5mM1\n").unwrap();
    let text = format!(
        "http_port 127.0.0.1:{port}\nauth_param basic program {} {}\nacl known proxy_auth REQUIRED\nacl to port {to}\n\
         http_access allow CONNECT to known\nhttp_access deny all\nshutdown_lifetime 0 seconds\ncache deny all\naccess_log none\n\
         cache_log /dev/null\ncache_store_log none\npid_filename none\nnetdb_filename none\ncoredump_dir none\n",
        helper.display(),
        users.display()
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(program);
    command.args(["-N", "-f"]).arg(config);
    Some(command)
}

/// tinyproxy does the same.
fn tinyproxy(dir: &Path, port: u16, to: u16) -> Option<Command> {
    let config = dir.join("tinyproxy.conf");
    let text = format!(
        "Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\nConnectPort {to}\nBasicAuth ann s\nLogLevel Critical\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(installed("tinyproxy")?);
    command.args(["-d", "-c"]).arg(config);
    Some(command)
}

fn installed(program: &str) -> Option<PathBuf> {
    ["/usr/sbin", "/usr/bin"].map(|dir| Path::new(dir).join(program)).into_iter().find(|path| path.is_file())
}

/// Starts a proxy, and says where it listens.
async fn start(command: impl Fn(u16) -> Option<Command>) -> Option<(Running, String)> {
    // Between the look for a free port and its use somebody else may take it.
    for _ in 0..ATTEMPTS {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut command = command(port)?;
        let mut running =
            Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        while running.0.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return Some((running, format!("127.0.0.1:{port}")));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    panic!("the proxy did not start");
}

#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
async fn through_a_real_proxy(name: &str, command: fn(&Path, u16, u16) -> Option<Command>) {
    let dir = tempfile::tempdir().unwrap();
    // squid gives up root and reads its files as somebody else.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let members = Members::new();
    let mut listener = members.listen(Ways::Tcp).await;
    let address = listener.address().to_owned();
    let to = address.rsplit_once(':').unwrap().1.parse().unwrap();
    let Some((proxy, at)) = start(|port| command(dir.path(), port, to)).await else {
        return eprintln!("skipped: {name} is not installed");
    };
    let site = |proxy: String| members.site(Ways::Auto, Some(Proxy::parse(&proxy).unwrap()));

    // Nothing answers over UDP, as where only a proxy leads out.
    let (near, user) = (site(format!("http://{USER}@{at}")), format!("http://{at}"));
    let (dialled, accepted) = tokio::join!(near.dial(&address, node()), listener.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
    assert_eq!(dialled.way(), Way::Tcp);
    let mut ours = dialled.open_stream().await.unwrap();
    ours.send_frame(b"through").await.unwrap();
    let mut theirs = accepted.accept_stream().await.unwrap();
    assert_eq!(theirs.recv_frame(FRAME).await.unwrap().unwrap(), b"through");
    for i in 0..16 {
        let frame = vec![i; FRAME];
        let (sent, received) = tokio::join!(ours.send_frame(&frame), theirs.recv_frame(FRAME));
        assert_eq!((sent.unwrap(), received.unwrap().unwrap()), ((), frame));
        theirs.send_frame(&[i]).await.unwrap();
        assert_eq!(ours.recv_frame(1).await.unwrap().unwrap(), [i]);
    }

    let holding = tokio::spawn(hold(listener));
    let error = site(user).dial(&address, node()).await.unwrap_err().to_string();
    assert!(error.contains(&at) && error.contains("a user and a password"), "{error}");
    let error = site(format!("http://{USER}@{at}")).dial("127.0.0.1:9", node()).await.unwrap_err().to_string();
    assert!(error.contains("does not allow this address"), "{error}");

    // A proxy that is killed in the middle of it: one that waits for more of the frame never takes what came for the whole.
    let half = tokio::spawn(async move { ours.send_frame(&vec![0; 64 * FRAME]).await });
    drop(proxy);
    assert!(timeout(Duration::from_secs(10), theirs.recv_frame(64 * FRAME)).await.unwrap().is_err());
    assert!(timeout(Duration::from_secs(10), half).await.unwrap().unwrap().is_err());
    let error = timeout(Duration::from_secs(10), dialled.closed()).await.unwrap();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    let error = timeout(Duration::from_secs(10), accepted.closed()).await.unwrap();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    holding.abort();
}

#[tokio::test]
async fn squid_lets_a_site_through_with_its_password() {
    through_a_real_proxy("squid", squid).await;
}

#[tokio::test]
async fn tinyproxy_lets_a_site_through_with_its_password() {
    through_a_real_proxy("tinyproxy", tinyproxy).await;
}

const FRAME: usize = 1 << 20;
const ATTEMPTS: usize = 5;
